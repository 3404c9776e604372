"""What every task database does, on every backend."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.entries import NOW, failed, finished, pending

from engineroom.errors import ConfigError, QueryError, StoreError
from engineroom.ids import Digest, EngineId, EngineUuid, TaskId
from engineroom.messages import Attempt, Function, TaskOptions, TaskSpec
from engineroom.records.entry import Entry
from engineroom.records.fields import BULKY, KEYS
from engineroom.records.record import document
from engineroom.stores import DictDB, NoDB, SQLiteDB, TaskStore, open_store
from engineroom.stores.base import PIECE
from engineroom.stores.canonical import blank


def ids(store: TaskStore, query: dict[str, Any], **more: Any) -> list[str]:
    found = [record["msg_id"] for record in store.find_records(query, "msg_id", **more)]
    if not more:
        assert store.count(query) == len(found)
    return found


# writing


def test_a_task_is_pending_then_finished(store: TaskStore) -> None:
    store.write([pending()])
    assert store.get_record(TaskId("a"))["state"] == "pending"
    assert [entry.id for entry in store.unfinished()] == ["a"]
    store.write([finished()])
    assert store.get_record(TaskId("a")) == document(finished())
    assert list(store.unfinished()) == []


def running(entry: Entry) -> Entry:
    """The same task while engine 3 runs it."""
    entry.started, entry.engine, entry.engine_uuid, entry.host = NOW + 1, EngineId(3), EngineUuid("e3"), "node3"
    return entry


@pytest.mark.parametrize("frames", [(), (b"frame",)])
def test_a_task_that_runs_has_a_start_and_an_engine(store: TaskStore, frames: Any) -> None:
    store.write([pending("a", buffers=frames), pending("b")])
    store.write([running(pending("a", buffers=frames))])
    record = store.get_record(TaskId("a"))
    assert (record["state"], record["engine_id"], record["engine_uuid"]) == ("running", 3, "e3")
    assert record["started"] == datetime.fromtimestamp(NOW + 1, UTC)
    assert (record["completed"], record["duration"], record["attempts"], record["stdout"]) == (None, None, [], "")
    assert ids(store, {"state": "running"}) == ids(store, {"engine_id": 3}) == ["a"]
    assert ids(store, {"state": "pending"}) == ["b"]
    assert ids(store, {"completed": None}) == ["a", "b"]
    [entry, _] = store.unfinished()
    assert (entry.started, entry.engine, entry.engine_uuid) == (NOW + 1, 3, "e3")
    store.write([pending("a", buffers=frames)])  # its engine died: it waits for another
    waiting = store.get_record(TaskId("a"))
    assert (waiting["state"], waiting["started"], waiting["engine_id"], waiting["engine_uuid"]) == (
        "pending", None, None, None,
    )  # fmt: skip
    store.write([running(pending("a", buffers=frames))])
    store.write([finished("a")])
    store.write([running(pending("a"))])  # late
    assert store.get_record(TaskId("a"))["state"] == "completed"


@pytest.mark.fault(25)
def test_writing_twice_changes_nothing(store: TaskStore) -> None:
    store.write([finished("a"), failed("b")])
    before = store.find_records({}, list(KEYS))
    store.write([finished("a"), failed("b"), failed("b")])
    assert store.find_records({}, list(KEYS)) == before


@pytest.mark.parametrize("together", [True, False])
def test_a_finished_task_stays_finished(store: TaskStore, together: bool) -> None:
    late = [pending(), finished(payload=b"another")]
    if together:
        store.write([finished(), *late])
    else:
        store.write([finished()])
        store.write(late)
    assert store.get_record(TaskId("a"))["result_buffers"] == [b"result"]


def test_attempts_of_a_pending_task_are_kept(store: TaskStore) -> None:
    store.write([pending()])
    retried = pending()
    retried.attempts = [Attempt(0, EngineId(1), EngineUuid("e1"), "node1", NOW, NOW + 1, "killed by SIGKILL")]
    store.write([retried])
    assert ids(store, {"attempts.cause": {"$regex": "SIGKILL"}, "completed": None}) == ["a"]
    assert store.entries([TaskId("a")])[TaskId("a")].attempts == retried.attempts


def test_an_outcome_leaves_the_request_as_it_was(store: TaskStore) -> None:
    store.write([pending(buffers=(b"big", b"bigger"))])
    light = finished()
    light.spec.payload = b""  # the controller let go of it
    store.write([light])
    assert store.get_record(TaskId("a"))["buffers"] == [b"call", b"big", b"bigger"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 17, 1023, 1024, 1025, 2500])
def test_batches_of_any_size(store: TaskStore, count: int) -> None:
    makers = [pending, finished, failed]
    store.write([makers[n % 3](f"t{n:05}", NOW + n) for n in range(count)])
    assert store.get_history() == [f"t{n:05}" for n in range(count)]
    assert store.count({"state": "failed"}) == count // 3


def test_frames_may_be_any_buffer(store: TaskStore) -> None:
    import array

    doubles = array.array("d", [1.0, 2.0])
    store.write([pending("a", payload=b"", buffers=(memoryview(doubles), bytearray(b""), memoryview(b"abcdef")[::2]))])
    assert store.get_record(TaskId("a"))["buffers"] == [doubles.tobytes(), b"", b"ace"]


def test_entries_come_back_as_they_were(store: TaskStore) -> None:
    options = TaskOptions(retries=2, targets=(EngineId(1),), label="fit", metadata={"x": [1, None, 2.5]})
    entry = failed("full")
    entry.spec = TaskSpec(TaskId("full"), Digest(b"d"), b"", NOW, EngineId(2), (7, 9), options, "map")
    entry.frames = (b"one", b"two" * 1000)
    assert entry.done is not None
    entry.done.frames, entry.done.content, entry.result_frames = (4,), {"data": b"\x00"}, (b"out",)
    entry.attempts = [
        Attempt(0, EngineId(1), EngineUuid("e1"), "host", None, NOW, "lost"),
        Attempt(1, EngineId(3), EngineUuid("e3"), "host", NOW, NOW + 1, "ValueError"),
    ]
    store.write([entry, finished("plain")])
    entry.spec.frames, entry.done.frames = (0, 1), (0,)
    found = store.entries([TaskId("plain"), TaskId("unknown"), TaskId("full")])
    assert list(found) == ["plain", "full"]
    assert found == {"plain": finished("plain"), "full": entry}
    assert all(type(f) is bytes for f in found[TaskId("full")].frames)


def test_unfinished_tasks_come_by_submission_with_their_payload(store: TaskStore) -> None:
    last, first = pending("x", NOW + 5, buffers=(b"frame",)), pending("z", NOW)
    store.write([last, finished("y"), first])
    last.spec.frames = (0,)
    assert list(store.unfinished()) == [first, last]


def test_functions_are_kept_once(store: TaskStore) -> None:
    store.add_functions([Function(Digest(b"1"), b"code"), Function(Digest(b"1"), b"other")])
    assert store.get_function(Digest(b"1")).payload == b"code"
    with pytest.raises(KeyError):
        store.get_function(Digest(b"2"))


# records


def test_a_cell_is_recorded_with_its_source(store: TaskStore) -> None:
    entry = finished("cell", payload=b"")
    entry.spec = TaskSpec(TaskId("cell"), Digest(b""), b"1/0", NOW, kind="execute")
    assert entry.done is not None
    entry.done.content = {"execute_result": {"text/plain": "1"}, "status": "odd"}
    store.write([entry])
    [record] = store.find_records({"pyin": {"$regex": "^1"}, "function": None, "result_content.status": "odd"})
    assert (record["pyin"], record["execute_input"], record["content"]) == ("1/0", "1/0", {"code": "1/0"})
    assert record["execute_result"] == {"text/plain": "1"}


def test_added_records_come_back(store: TaskStore) -> None:
    record = {
        "header": {"when": datetime(2024, 1, 2, 3, 4, 5, 678901, UTC), "raw": b"\x00", "list": [1, [2.5, {}], None]},
        "content": {}, "buffers": [b"a", b""], "submitted": datetime(2024, 5, 6), "client_uuid": "alice",
        "result_content": {"status": "ok", "ename": 5}, "queue": "task", "label": "ünï", "function": "0fff",
        "pyout": [1, 2], "engine_id": 7, "stdout": "", "result_buffers": [],
    }  # fmt: skip
    store.add_record(TaskId("a"), record)
    found = store.get_record(TaskId("a"))
    assert list(found) == list(KEYS)
    assert found == {**blank(), **record, "msg_id": "a", "submitted": datetime(2024, 5, 6).astimezone(UTC)}
    with pytest.raises(StoreError, match="already"):
        store.add_record(TaskId("a"), {})
    assert list(store.unfinished()) == []


@pytest.mark.parametrize("record", [
    {"headr": {}}, {"client_uuid": 5}, {"submitted": "today"}, {"header": {"x": object()}}, {"buffers": ["text"]},
    {"engine_id": True}, {"content": {1: 2}}, {"msg_id": "b"}, {"metadata": {"x": 1 << 70}},
])  # fmt: skip
def test_nonsense_is_not_recorded(store: TaskStore, record: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="record a"):
        store.add_record(TaskId("a"), record)
    assert store.get_history() == []


def test_records_change(store: TaskStore) -> None:
    store.write([finished("a"), pending("b")])
    store.update_record(TaskId("a"), {"resubmitted": "c", "metadata": {"pinned": True}, "error": {"ename": "E"}})
    store.update_record(TaskId("b"), {"metadata": {"pinned": False}})
    assert store.get_record(TaskId("a"))["resubmitted"] == "c"
    assert ids(store, {"metadata.pinned": True, "resubmitted": {"$ne": None}, "pyerr.ename": "E"}) == ["a"]
    store.write([finished("b")])
    changed = store.get_record(TaskId("b"))
    assert (changed["metadata"], changed["state"]) == ({"pinned": False}, "completed")


def test_the_error_of_any_task_is_a_key(store: TaskStore) -> None:
    store.write([finished("a"), failed("b", NOW + 1), pending("c", NOW + 2)])
    error = {"ename": "ValueError", "evalue": "bad", "traceback": "Traceback …"}
    assert store.get_record(TaskId("b"))["error"] == error
    for asked in ({"error.ename": "ValueError"}, {"error": {"$ne": None}}, {"pyerr.ename": {"$in": ["ValueError"]}}):
        assert ids(store, asked) == ["b"]
    assert ids(store, {"error": None}) == ["a", "c"]
    store.update_record(TaskId("a"), {"error": {"ename": "ValueError"}})
    assert ids(store, {"error.ename": "ValueError"}) == ["a", "b"]


def test_records_go(store: TaskStore) -> None:
    store.write([finished("a"), failed("b", NOW + 1), pending("c", NOW + 2), finished("d", NOW + 3)])
    store.drop_record(TaskId("a"))
    assert store.drop_matching_records({"result_content.ename": "ValueError"}) == 1
    assert store.drop_matching_records({"state": "aborted"}) == 0
    assert store.get_history() == ["c", "d"]
    assert store.drop_matching_records({}) == 2


@pytest.mark.parametrize("call", [
    lambda s: s.get_record("x"), lambda s: s.update_record("x", {"label": "l"}), lambda s: s.drop_record("x"),
])  # fmt: skip
def test_an_unknown_id_is_a_key_error(store: TaskStore, call: Any) -> None:
    with pytest.raises(KeyError):
        call(store)


# asking


def test_the_bulky_keys_come_only_when_asked_for(store: TaskStore) -> None:
    store.write([finished()])
    [record] = store.find_records({})
    assert list(record) == [key for key in KEYS if key not in BULKY]
    [record] = store.find_records({}, ["result_buffers"])
    assert record == {"msg_id": "a", "result_buffers": [b"result"]}
    [record] = store.find_records({"buffers": {"$size": 1}}, "error")
    assert list(record) == ["msg_id", "pyerr"]
    assert record["error"] is None


def test_what_a_result_was_taken_from_is_kept(store: TaskStore) -> None:
    entry = finished()
    assert entry.done is not None
    entry.done.cached_from, entry.done.peak_memory = TaskId("b"), 1
    store.write([entry])
    assert store.get_record(TaskId("a"))["cached_from"] == "b"


def test_a_duration_is_a_float_however_it_is_sorted(store: TaskStore) -> None:
    entry = finished()
    assert entry.done is not None
    entry.done.started = entry.done.completed
    store.write([entry])
    assert ids(store, {"duration": {"$type": "int"}}, sort=[("started", 1)]) == []
    assert ids(store, {"duration": {"$type": "double"}}, sort=[("started", 1)]) == ["a"]
    [found] = store.find_records({}, ["duration"], sort=[("started", 1)])
    assert repr(found["duration"]) == "0.0"


def test_answers_come_by_submission_then_id(store: TaskStore) -> None:
    store.add_record(TaskId("never"), {})
    store.write([finished("b"), pending("a"), finished("c", NOW - 1)])
    assert ids(store, {}) == store.get_history() == ["never", "c", "a", "b"]
    assert ids(store, {}, limit=2, skip=1) == ["c", "a"]
    assert ids(store, {"msg_id": {"$regex": "."}}, limit=2, skip=1) == ["c", "a"]
    assert ids(store, {}, sort=[("submitted", -1)]) == ["a", "b", "c", "never"]
    assert ids(store, {}, sort=[("result_content.status", -1), ("msg_id", -1)]) == ["c", "b", "never", "a"]
    assert ids(store, {}, limit=0) == []


@pytest.mark.parametrize("keys", ["msg_id", ["submitted", "duration", "engine_id"], ["metadata", "state"], None])
@pytest.mark.parametrize("more", [{}, {"sort": [("completed", -1)], "skip": 1}, {"limit": 2}, {"limit": 0}])
def test_columns_hold_what_records_hold(store: TaskStore, keys: Any, more: dict[str, Any]) -> None:
    store.write([*(finished(f"t{n}", NOW + n) for n in range(5)), pending("p", NOW + 9)])
    for query in ({}, {"msg_id": "none"}, {"msg_id": {"$in": ["t3", "p"]}}, {"result_content.status": "ok"}):
        pieces = list(store.find_columns(query, keys, **more))
        rows = [dict(zip(piece, row, strict=True)) for piece in pieces for row in zip(*piece.values(), strict=True)]
        assert rows == store.find_records(query, keys, **more)


def test_many_records_come_in_pieces_of_columns(store: TaskStore) -> None:
    count = 2 * PIECE + 1
    store.write([pending(f"t{n:05}", NOW + n) for n in range(count)])
    pieces = list(store.find_columns({}, "msg_id"))
    assert [len(piece["msg_id"]) for piece in pieces] == [PIECE, PIECE, 1]
    assert [id for piece in pieces for id in piece["msg_id"]] == [f"t{n:05}" for n in range(count)]


def test_the_categories_of_the_manual(store: TaskStore) -> None:
    store.write([finished("a"), failed("b"), pending("c")])
    for query, expected in [
        ({"completed": None}, ["c"]),
        ({"completed": None, "client_uuid": "bob"}, []),
        ({"received": None, "completed": None}, ["c"]),
        ({"submitted": {"$lt": datetime.fromtimestamp(NOW + 1)}}, ["a", "b", "c"]),
        ({"submitted": datetime.fromtimestamp(NOW, UTC)}, ["a", "b", "c"]),
        ({"submitted": {"$ge": datetime.fromtimestamp(NOW, UTC)}}, []),
        ({"engine_uuid": {"$in": ["e3", None]}}, ["a", "b", "c"]),
        ({"engine_id": {"$nin": [3.0]}}, ["c"]),
        ({"header.msg_type": "apply_request", "result_content.status": "error"}, ["b"]),
        ({"function": "0fff", "attempts.0.cause": "ok"}, ["a"]),
        ({"msg_id": {"$in": ["b", "z"]}}, ["b"]),
        ({"stdout": {"$ne": ""}}, ["b"]),
        ({"queue": "task", "$nor": [{"state": "pending"}, {"state": "failed"}]}, ["a"]),
    ]:
        assert ids(store, query) == expected, query


@pytest.mark.parametrize("arguments", [
    {"query": {"stats": 1}}, {"query": {"state": {"$foo": 1}}}, {"query": []}, {"query": {}, "keys": ["nope"]},
    {"query": {}, "sort": [("nope", 1)]}, {"query": {}, "sort": [("state", 2)]}, {"query": {}, "limit": -1},
    {"query": {}, "skip": None}, {"query": {"state": {"$in": "abc"}}},
])  # fmt: skip
def test_wrong_questions_are_refused(store: TaskStore, arguments: dict[str, Any]) -> None:
    with pytest.raises(QueryError):
        store.find_records(**arguments)


def test_closing_twice(store: TaskStore) -> None:
    store.close()
    store.close()


# the memory's limits


def test_the_oldest_finished_records_are_culled() -> None:
    store = DictDB(record_limit=10, cull_fraction=0.3)
    store.write([pending("p", 0.0)])
    store.write([finished(f"t{n}", NOW + n) for n in range(9)])
    assert store.count({}) == 10
    store.write([finished("last", NOW + 100)])
    assert store.get_history() == ["p", "t4", "t5", "t6", "t7", "t8", "last"]


def test_buffers_are_bounded() -> None:
    store = DictDB(size_limit=10_000, cull_fraction=0)
    store.write([finished(f"t{n}", NOW + n, payload=bytes(996)) for n in range(5)])
    store.write([pending("big", buffers=(bytes(9_000),))])
    assert store.get_history() == ["big"]
    store.drop_record(TaskId("big"))
    assert store.usage().used == 0


# nothing kept


def test_nodb_keeps_nothing() -> None:
    store: TaskStore = NoDB()
    assert not store.keeps
    store.write([finished()])
    assert store.entries([TaskId("a")]) == {}
    assert list(store.unfinished()) == []
    for call in (lambda: store.get_record(TaskId("a")), lambda: store.find_records({}), lambda: store.count({}),
                 store.get_history, lambda: store.drop_record(TaskId("a"))):  # fmt: skip
        with pytest.raises(KeyError, match="--sqlitedb"):
            call()


def test_stores_are_named_by_urls(tmp_path: Path) -> None:
    for url, kind in [("memory", DictDB), ("none", NoDB), (f"sqlite://{tmp_path}/deep/tasks.db", SQLiteDB)]:
        store = open_store(url)
        assert isinstance(store, kind)
        assert store.url == url
        store.close()
    for url in ("mysql://host", "sqlite", "sqlite://relative", ""):
        with pytest.raises(ConfigError, match="available are sqlite"):
            open_store(url)
