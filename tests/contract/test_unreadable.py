"""A record that cannot be read is left out of answers, and named in the log; all others are answered."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.entries import finished, pending

from engineroom.controller.loop import Controller
from engineroom.controller.requests.record_requests import get_environment
from engineroom.controller.requests.stored_results import StoredResults
from engineroom.controller.storage.store_reader import readable_entries, readable_functions
from engineroom.errors import StoreDamaged
from engineroom.ids import ClientId, TaskId, digest_of
from engineroom.messages import (
    Environment,
    Function,
    GetEnvironment,
    Message,
    Results,
    ResultsUnavailable,
    Run,
    TaskOptions,
)
from engineroom.reading.records import Records
from engineroom.stores import DictDB, MongoDB, SQLiteDB, TaskStore
from engineroom.stores.base import QueryDict
from engineroom.testing.network import MemoryNetwork
from engineroom.wire import frames

FUNCTION = Function(digest_of(b"pickled"), b"pickled", "f")
BAD = TaskOptions(metadata={"x": msgspec.msgpack.Ext(5, b"z")})


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TaskStore]:
    store: TaskStore = SQLiteDB(tmp_path / "tasks.db") if request.param == "sqlite" else DictDB()
    entries = [pending(id) for id in ("a", "bad", "c")]
    entries[1].spec = msgspec.structs.replace(entries[1].spec, options=BAD)
    store.write(entries)
    yield store
    store.close()


@pytest.mark.parametrize("query", [{}, {"header.msg_type": {"$ne": None}}])
def test_one_record_hides_no_other(store: TaskStore, query: QueryDict, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert [record["msg_id"] for record in store.find_records(query)] == ["a", "c"]
    assert [record["msg_id"] for record in store.find_records(query, sort=[("header.label", 1)])] == ["a", "c"]
    assert [record["msg_id"] for record in store.page(query, limit=10).records] == ["a", "c"]
    assert len(store.distinct("header.msg_id", query)) == 2
    assert sum(each["count"] for each in store.group_by("header.msg_id", query)) == 2
    [told] = [record.getMessage() for record in caplog.records]
    assert "the record of task 'bad' cannot be read" in told


# ---------------------------------------------------------------------------------------- whole records


def bad_rows(path: Path) -> None:
    """Values that no message may have, in rows of a version that had no checksums; `ok` stays as it is."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE tasks SET request_sum = NULL, outcome_sum = NULL")
    for id, column, value in (
        ("options", "options", b"\xc1\xc1"),
        ("text", "arguments", None),
        ("time", "submitted", "yesterday"),
        ("target", "target", "everywhere"),
        ("frames", "frames", b"\xff\xff\xff"),
    ):
        if id == "text":
            connection.execute("UPDATE tasks SET arguments = CAST(x'ff41' AS TEXT) WHERE msg_id = ?", (id,))
        else:
            connection.execute(f"UPDATE tasks SET {column} = ? WHERE msg_id = ?", (value, id))
    connection.close()


BAD_IDS = ["options", "text", "time", "target", "frames"]


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[SQLiteDB]:
    path = tmp_path / "tasks.db"
    store = SQLiteDB(path)
    store.write([pending(id) for id in [*BAD_IDS, "ok"]])
    store.close()
    bad_rows(path)
    store = SQLiteDB(path)
    yield store
    store.close()


def test_unreadable_unfinished_tasks_are_skipped_when_a_controller_begins(
    damaged: SQLiteDB, caplog: pytest.LogCaptureFixture
) -> None:
    assert [entry.id for entry in damaged.unfinished()] == ["ok"]
    told = " ".join(record.getMessage() for record in caplog.records)
    for id in BAD_IDS:
        assert f"'{id}'" in told or f"task {id} " in told


@pytest.mark.fault(20)
def test_a_controller_comes_up_with_unreadable_records(damaged: SQLiteDB) -> None:
    network = MemoryNetwork()
    damaged.add_functions([FUNCTION, Function(pending("ok").spec.function, b"other bytes than it was sent with")])
    whole = pending("whole")
    whole.spec = msgspec.structs.replace(whole.spec, function=FUNCTION.digest)
    damaged.write([whole])
    controller = Controller(network.listener, damaged, "key")
    controller.recover()
    assert list(controller.scheduler.tasks) == ["whole"], "it goes on; of the other one the function is damaged"
    controller.close()


def test_an_unreadable_record_takes_no_other_with_it(damaged: SQLiteDB) -> None:
    found, unreadable = readable_entries(damaged, [TaskId(id) for id in [*BAD_IDS, "ok"]])
    assert "ok" in found
    assert unreadable.keys() >= {"options", "frames"}
    for id, text in unreadable.items():
        assert id in text
    assert damaged.get_record(TaskId("ok"))["state"] == "pending"
    for id in ("options", "frames"):
        with pytest.raises(StoreDamaged, match=f"the record of task {id} cannot be read"):
            damaged.get_record(TaskId(id))


def test_a_text_that_is_no_text_hides_no_other_record(damaged: SQLiteDB) -> None:
    for query in ({}, {"state": "pending"}, {"header.msg_type": {"$ne": None}}):
        found = {record["msg_id"] for record in damaged.find_records(query, ["msg_id", "state", "arguments"])}
        assert "ok" in found
    assert damaged.count({"state": "pending"}) == 6
    assert len(damaged.get_history()) == 6


def test_a_server_with_unreadable_documents_answers_with_the_others(
    open_mongodb: Callable[..., MongoDB], caplog: pytest.LogCaptureFixture
) -> None:
    store = open_mongodb()
    store.write([pending(id) for id in ["bad", "apart", "seconds", "ok"]])
    tasks = store._database.tasks
    tasks.update_one({"_id": "bad"}, {"$set": {"_task.options": b"\xc1\xc1", "header": 5}})
    tasks.update_one({"_id": "apart"}, {"$set": {"_apart": 5, "_task": "nothing"}})
    tasks.update_one({"_id": "seconds"}, {"$set": {"_seconds": 5}})
    assert [entry.id for entry in store.unfinished()] == ["ok"]
    found, unreadable = readable_entries(store, [TaskId(id) for id in ("bad", "apart", "seconds", "ok")])
    assert list(found) == ["ok"]
    assert unreadable.keys() == {"bad", "apart", "seconds"}
    assert "ok" in {record["msg_id"] for record in store.find_records({})}
    assert "ok" in {record["msg_id"] for record in store.page({}, limit=10).records}
    assert store.get_record(TaskId("ok"))["state"] == "pending"
    with pytest.raises(StoreDamaged, match="the record of task seconds cannot be read"):
        store.get_record(TaskId("seconds"))
    assert "cannot be read" in caplog.text


def test_whatever_a_row_holds_its_parts_can_be_sent(tmp_path: Path) -> None:
    """A message that its receiver cannot read would end the connection."""
    path = tmp_path / "tasks.db"
    store = SQLiteDB(path)
    store.write([finished("whole")])
    store.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE tasks SET request_sum = NULL, outcome_sum = NULL")
    info = connection.execute("PRAGMA table_xinfo(tasks)").fetchall()
    columns = [name for _, name, _, _, _, _, hidden in info if not hidden and name not in ("seq", "msg_id")]
    ids = []
    for column in columns:
        for number, value in enumerate((b"\xff", "text", 7, -5.5, None)):
            ids.append(TaskId(f"{column}-{number}"))
            names = ["msg_id", *columns]
            values = ["?", *("?" if name == column else name for name in columns)]
            connection.execute(
                f"INSERT OR IGNORE INTO tasks ({', '.join(names)}) SELECT {', '.join(values)} FROM tasks"
                " WHERE msg_id = 'whole'",
                (ids[-1], value),
            )
    connection.close()
    store = SQLiteDB(path)
    found, unreadable = readable_entries(store, ids)
    assert len(found) > 10
    assert len(unreadable) > 10
    for entry in found.values():
        frames.decode_to_client(frames.encode(Results([entry.done] if entry.done else [])))
        frames.decode_to_engine(frames.encode(Run([entry.spec], [1])))
    store.close()


def test_a_row_of_functions_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    store = SQLiteDB(path)
    other = Function(digest_of(b"other"), b"other", "g")
    store.add_functions([FUNCTION, other])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE functions SET name = x'ff', source = x'00' WHERE digest = ?", (FUNCTION.digest,))
    connection.execute("UPDATE functions SET payload = 'text' WHERE digest = ?", (other.digest,))
    connection.close()
    found, missing = readable_functions(store, [FUNCTION.digest, other.digest])
    assert found == [Function(FUNCTION.digest, FUNCTION.payload, None, "")]
    assert list(missing) == [other.digest]
    assert "the database has a str in its place" in missing[other.digest]
    store.close()


def test_a_task_that_only_the_database_has_as_unfinished_keeps_nobody_waiting() -> None:
    network, store = MemoryNetwork(), DictDB()
    store.write([pending("nobody's")])
    controller = Controller(network.listener, store, "key")
    told: list[Message] = []
    results = StoredResults(
        controller.scheduler, controller.decide, controller._outbox, lambda client, message: told.append(message),
        AtOnce(store), "", store.url, lambda function: function(), lambda id: [], lambda uuid: False, lambda: 0.0,
    )  # fmt: skip
    results.watch(ClientId("me"), [TaskId("nobody's")])
    [answer] = told
    assert isinstance(answer, ResultsUnavailable)
    assert answer.tasks == ["nobody's"]
    assert "resubmit it" in answer.reason
    controller.close()


class AtOnce:
    """Reads where it is asked to."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store

    def read(self, work: Any, then: Any, failed: Any, **_: Any) -> None:
        then(work(self._store))


def test_a_value_out_of_bounds_hides_only_its_own_record(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([finished(id) for id in ("a", "b", "c")])
    with closing(sqlite3.connect(store.path)) as other, other:
        other.execute("UPDATE tasks SET completed = 1e300 WHERE msg_id = 'b'")
    [columns] = store.find_columns({}, ["completed"])
    assert list(columns["msg_id"]) == ["a", "c"]
    assert [record["msg_id"] for record in store.find_records({}, ["completed"])] == ["a", "c"]
    [columns] = store.find_columns({}, ["state"])
    assert list(columns["msg_id"]) == ["a", "b", "c"]
    store.close()


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"a": "\xff"}', b"[" * 100_000, b'{"a": ' + b"[" * 100_000])
def test_an_environment_may_be_any_bytes(store: TaskStore, content: bytes) -> None:
    """A client sends it. Who asks for it gets a typed error."""
    store.add_environments([(ClientId("alice"), Environment("e", content))])
    with pytest.raises(StoreDamaged, match="environment 'e' cannot be read"):
        get_environment(store, GetEnvironment("e"), "")
    with pytest.raises(StoreDamaged, match="environment 'e' cannot be read"):
        Records(store=store).environment("e")
