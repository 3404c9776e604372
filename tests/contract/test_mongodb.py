"""The MongoDB backend and its server: who may write, what happens when it goes away, what is too large."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from contextlib import closing
from functools import partial

import psutil
import pytest
from conftest import wait_until
from support import mongodb
from support.entries import NOW, failed, finished, pending

from engineroom.errors import ConfigError, QueryError, StoreBusy, StoreError
from engineroom.ids import Digest, TaskId
from engineroom.messages import Function, TaskOptions
from engineroom.stores import MongoDB, open_store
from engineroom.stores.mongodb.server import masked
from engineroom.stores.mongodb.version import VERSION

Open = Callable[..., MongoDB]


# who it belongs to


@pytest.mark.fault(14)
def test_one_controller_owns_the_database(open_mongodb: Open) -> None:
    first = open_mongodb()
    with pytest.raises(StoreBusy, match=f"belongs to another controller: process {os.getpid()} on "):
        open_mongodb()
    look = open_mongodb(readonly=True)
    first.write([finished()])
    assert look.get_history() == ["a"]
    with pytest.raises(StoreError, match="reading only"):
        look.write([finished()])
    first.close()
    open_mongodb().write([finished("b")])


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_over(open_mongodb: Open) -> None:
    url = open_mongodb(readonly=True)._connection._client
    host, port = next(iter(url.nodes))
    name = open_mongodb(readonly=True)._database.name
    script = f"from engineroom.stores import MongoDB; import os\nMongoDB('mongodb://{host}:{port}/{name}'); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    open_mongodb().write([finished()])


@pytest.mark.fault(45)
def test_a_controller_of_the_release_before_can_read_the_lease(open_mongodb: Open) -> None:
    held = open_mongodb()._database.lease.find_one({"_id": "owner"})
    assert {"until", "host", "on", "beat"} <= held.keys()
    assert abs(psutil.Process(held["pid"]).create_time() - held["born"]) <= 1.0  # else it takes the database over


def test_who_was_taken_over_writes_no_more(open_mongodb: Open) -> None:
    first = open_mongodb()
    assert first._lease is not None
    first._database.lease.update_one({"_id": "owner"}, {"$set": {"token": "another's"}})
    first._lease._renewed = float("-inf")  # as after a long silence
    with pytest.raises(StoreBusy, match="taken over by another controller"):
        first.write([finished()])


# its version


@pytest.mark.fault(45)
def test_a_database_of_a_newer_release_is_refused_and_stays_as_it_is(open_mongodb: Open) -> None:
    open_mongodb().write([finished()])
    look = open_mongodb(readonly=True)
    about = look._database.about
    assert about.find_one({"_id": "documents"})["version"] == VERSION
    about.update_one({"_id": "documents"}, {"$set": {"version": VERSION + 1, "release": "9.9"}})
    told = rf"documents of version {VERSION + 1}: a newer Engineroom \(9\.9\) made it"
    for readonly in (False, True):
        with pytest.raises(StoreError, match=told):
            open_mongodb(readonly=readonly)
    about.delete_one({"_id": "documents"})  # as made before there were versions
    assert open_mongodb(readonly=True).get_history() == ["a"]
    assert about.find_one({"_id": "documents"}) is None, "nothing is written by reading"


# power cuts


@pytest.mark.fault(44)
def test_each_write_of_records_waits_for_what_the_url_says(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut leaves of synced writes is the server's affair. Ours is to ask it to sync them."""
    from pymongo import MongoClient, monitoring

    asked: set[tuple[str, str]] = set()

    class Listener(monitoring.CommandListener):
        def started(self, event: monitoring.CommandStartedEvent) -> None:
            if event.command_name in ("insert", "update", "delete", "findAndModify"):
                assert event.command["writeConcern"] == {"w": 1, "j": True}, f"{event.command_name} does not wait"
                asked.add((event.command_name, event.command[event.command_name]))

        def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

        def failed(self, event: monitoring.CommandFailedEvent) -> None: ...

    monkeypatch.setattr("pymongo.MongoClient", partial(MongoClient, event_listeners=[Listener()]))
    base, _, options = server_url.partition("?")
    name = f"engineroom_test_{uuid.uuid4().hex[:12]}"
    url = f"{base.rstrip('/')}/{name}?w=1&journal=true" + (f"&{options}" if options else "")
    with closing(MongoDB(url)) as store:
        try:
            large = bytes(300_000)
            store.add_functions([Function(Digest(b"f" * 16), b"code", "f", "source")])
            store.write([pending("a", buffers=(large,)), finished("b")])
            store.write([finished("a")])
            store.update_record(TaskId("a"), {"label": "changed"})
            store.pin([TaskId("b")], True)
            store.drop_record(TaskId("b"))
        finally:
            store._connection._client.drop_database(name)
    assert {command for command, _ in asked} >= {"insert", "update", "delete"}
    assert {"tasks", "functions", "chunks"} <= {collection for _, collection in asked}


# many at once


def test_many_tasks_are_completed_in_one_group(open_mongodb: Open) -> None:
    store = open_mongodb()
    names = [f"task {number}" for number in range(100)]
    store.write([pending(name) for name in names])
    store.write([finished(name) for name in names])
    assert store.count({"state": "completed"}) == 100


# when the server goes away


def opened(url: str, patience: float) -> MongoDB:
    """A store that does not wait long for its server. While it is opened it does: the machine may be busy."""

    def opens() -> MongoDB | None:
        try:
            return MongoDB(url, patience=patience)
        except StoreError:
            return None

    store = wait_until(opens)
    assert isinstance(store, MongoDB)
    return store


@pytest.mark.fault(17)
def test_a_server_that_comes_back_loses_nothing(own_server: mongodb.Server) -> None:
    store = MongoDB(f"{own_server.url}engineroom", patience=60)
    store.write([pending("a"), finished("b")])
    own_server.stop(kill=True)
    began = threading.Event()

    def write() -> None:
        began.set()
        store.write([finished("a"), finished("c", NOW + 1)])

    writer = threading.Thread(target=write)
    writer.start()
    began.wait()
    own_server.start()
    writer.join(60)
    assert not writer.is_alive()
    assert store.get_history() == ["a", "b", "c"]
    assert store.count({"state": "completed"}) == 3
    store.close()


@pytest.mark.fault(17)
def test_a_server_that_stays_away_is_named(own_server: mongodb.Server) -> None:
    store = opened(f"{own_server.url}engineroom?serverSelectionTimeoutMS=100", patience=0.1)
    own_server.stop()
    for call in (lambda: store.write([finished()]), store.get_history, lambda: store.count({})):
        with pytest.raises(StoreError, match=r"no MongoDB server answers at 127\.0\.0\.1:"):
            call()
    store.close()


@pytest.mark.fault(17)
def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(own_server: mongodb.Server) -> None:
    options = "serverSelectionTimeoutMS=100&connectTimeoutMS=100&socketTimeoutMS=1000"
    store = opened(f"{own_server.url}engineroom?{options}", patience=0.1)
    own_server.freeze()
    with pytest.raises(StoreError, match=r"cannot write tasks: no MongoDB server answers at 127\.0\.0\.1:"):
        store.write([finished("a"), pending("b")])
    own_server.freeze(False)
    store._connection._patience = 60
    store.write([finished("a"), finished("b"), pending("c")])  # whether it has taken the first ones in or not
    store.close()
    store = MongoDB(f"{own_server.url}engineroom")
    assert store.count({"state": "completed"}) == 2
    assert store.count({}) == 3
    store.close()


def test_no_server_no_user_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="no MongoDB server answers at localhost:1 ") as caught:
        open_store("mongodb://ann:secret@localhost:1/tasks?serverSelectionTimeoutMS=100")
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="percent-escaped") as refused:
        open_store("mongodb://ann:sec/ret@localhost/tasks")
    assert "ret" not in str(refused.value).partition(" is not")[0]
    monkeypatch.setitem(sys.modules, "pymongo", None)
    with pytest.raises(ConfigError, match=r"pip install 'engineroom\[mongo\]'"):
        open_store("mongodb://localhost/tasks")


@pytest.mark.parametrize(("url", "shown"), [
    ("mongodb://host/db", "mongodb://host/db"),
    ("mongodb://ann:secret@host:1,other:2/db?tls=true&authMechanismProperties=TOKEN:x", "mongodb://ann@host:1,other:2/db"),
    ("mongodb+srv://ann:se@cr/et@host/db", "mongodb+srv://ann@host/db"),
])  # fmt: skip
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert masked(url) == shown


# what is too large, or not to the server's taste


def test_large_buffers_are_kept_apart(open_mongodb: Open) -> None:
    store = open_mongodb()
    large = [os.urandom(9 << 20), b"", os.urandom(10 << 20)]
    store.write([pending("a", buffers=tuple(large))])
    done = finished("a", payload=os.urandom(20 << 20))
    store.write([done])
    record = store.get_record(TaskId("a"))
    assert record["buffers"] == [b"call", *large]
    assert record["result_buffers"] == [done.done and done.done.payload]
    assert [entry.frames for entry in store.entries([TaskId("a")]).values()] == [tuple(large)]
    assert store.count({"buffers": {"$size": 4}}) == 1
    store.drop_record(TaskId("a"))
    assert store._database.chunks.count_documents({}) == 0


def test_much_output_is_kept_apart(open_mongodb: Open) -> None:
    store = open_mongodb()
    entry = failed("a")
    assert entry.done is not None
    entry.done.stdout = "line\n" * (1 << 20)
    store.write([entry, finished("b")])
    assert store.get_record(TaskId("a"))["stdout"] == entry.done.stdout
    store.update_record(TaskId("a"), {"stdout": "short"})
    assert store.get_record(TaskId("a"))["stdout"] == "short"
    assert store._database.chunks.count_documents({}) == 0


def test_what_the_server_refuses_is_stored_all_the_same(open_mongodb: Open) -> None:
    store = open_mongodb()
    metadata = {"a.b": 1, "$c": [[1, [2]], 2.5], "deep": [[{"x": None}]]}
    store.add_record(TaskId("a"), {"metadata": metadata, "label": "odd"})
    [record] = store.find_records({"label": "odd"})
    assert repr(record["metadata"]) == repr(metadata)


def test_what_breaks_the_connection_does_not_keep_others_out(open_mongodb: Open) -> None:
    store = open_mongodb()
    odd = pending("odd", options=TaskOptions(label="odd", metadata={"n": float("nan")}))
    store.write([finished("a"), odd, finished("b")])
    assert store.get_history() == ["a", "b", "odd"]
    [record] = store.find_records({"label": "odd"})
    assert repr(record["metadata"]) == "{'n': nan}"


@pytest.mark.parametrize("size", [1, 5 << 20])
def test_an_outcome_that_breaks_the_connection_is_stored_all_the_same(open_mongodb: Open, size: int) -> None:
    store = open_mongodb()
    store.write([pending("a"), pending("odd", buffers=(b"x" * size,)), pending("b")])
    odd = finished("odd", buffers=(b"x" * size,))
    assert odd.done is not None
    odd.done.content = {"execute_result": {"data": {"n": float("nan")}}}
    odd.result_frames = (b"y" * size,)
    store.write([finished("a"), odd, finished("b")])
    assert store.count({"state": "completed"}) == 3
    record = store.get_record(TaskId("odd"))
    assert repr(record["result_content"]["execute_result"]) == "{'data': {'n': nan}}"
    assert record["buffers"] == [b"call", b"x" * size]
    assert record["result_buffers"] == [b"result", b"y" * size]


def test_keys_with_dollars_are_found_by_their_names(open_mongodb: Open) -> None:
    store = open_mongodb()
    store.add_record(TaskId("a"), {"metadata": {"$x": 2, "deep": {"y$": 3}}})
    assert store.count({"metadata.$x": 2}) == store.count({"metadata.deep.y$": {"$gt": 2}}) == 1
    assert store.count({"metadata.$x": 3}) == 0


def test_the_servers_word_is_passed_on(open_mongodb: Open) -> None:
    store = open_mongodb()
    with pytest.raises(QueryError, match="did you mean"):
        store.find_records({"stat": 1})
    assert store.find_records({"submitted": {"$gt": "yesterday"}}) == []
