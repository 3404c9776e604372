"""Functions and the like can be dropped after the last record that refers to them, on every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.entries import NOW, finished, pending

from engineroom.ids import ClientId, Digest, EngineUuid, TaskId
from engineroom.messages import Environment, Function
from engineroom.records.entry import Entry
from engineroom.stores import DictDB, MongoDB, NoDB, SQLiteDB, TaskStore
from engineroom.stores.base import References
from engineroom.stores.maintenance.references import drop_unreferenced, find_unreferenced
from engineroom.stores.memory import store as memory
from engineroom.stores.mongodb import references as in_mongodb
from engineroom.stores.sqlite import references as in_sqlite


def digest(number: int) -> Digest:
    return Digest(number.to_bytes(16, "big"))


def calls(entry: Entry, number: int, client: str = "alice", environment: str = "e-alice") -> Entry:
    """The same task, of another function and client."""
    entry.spec.function, entry.client, entry.environment = digest(number), ClientId(client), environment
    return entry


def functions(store: TaskStore) -> list[int]:
    return sorted(int.from_bytes(name) for piece in store.stored_references() for name in piece.functions)


def add_functions(store: TaskStore, count: int) -> None:
    store.add_functions([Function(digest(n), b"code %d" % n, f"f{n}") for n in range(count)])


@pytest.fixture(params=[False, True], ids=["at once", "in pieces"], autouse=True)
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        for module in in_sqlite, in_mongodb, memory:
            monkeypatch.setattr(module, "PIECE", 2)


def test_a_function_goes_with_the_last_record_that_calls_it(store: TaskStore) -> None:
    add_functions(store, 7)
    store.write([calls(finished(f"t{n}", NOW + n), n % 5) for n in range(12)])
    store.write([calls(pending("waits"), 5)])
    store.add_record(TaskId("by hand"), {"function": digest(6).hex()})
    assert store.dropped == 0
    assert drop_unreferenced(store) == 0
    assert functions(store) == [0, 1, 2, 3, 4, 5, 6]
    store.drop_record(TaskId("t0"))
    store.drop_matching_records({"msg_id": {"$in": ["t5", "t1", "t6"]}})
    assert store.dropped == 4
    assert drop_unreferenced(store) == 0, "others call them"
    store.drop_matching_records({"msg_id": {"$in": ["t10", "t11"]}})
    assert drop_unreferenced(store) == 2
    assert functions(store) == [2, 3, 4, 5, 6]
    with pytest.raises(KeyError):
        store.get_function(digest(0))
    assert store.get_function(digest(2)).name == "f2"
    store.update_record(TaskId("by hand"), {"function": "no digest"})
    store.update_record(TaskId("t2"), {"function": digest(6).hex()})
    store.drop_matching_records({"completed": {"$ne": None}, "msg_id": {"$ne": "t2"}})
    assert drop_unreferenced(store) == 3
    assert functions(store) == [5, 6]


def test_what_went_may_come_again(store: TaskStore) -> None:
    add_functions(store, 1)
    store.add_functions([Function(digest(0), b"code 0", "f0")])
    assert drop_unreferenced(store) == 1
    store.add_functions([Function(digest(0), b"code 0", "again")])
    assert store.get_function(digest(0)) == Function(digest(0), b"code 0", "again")


def test_an_environment_goes_with_the_last_task_of_its_clients(store: TaskStore) -> None:
    store.add_environments(
        [(ClientId(name), Environment(f"e-{name}", name.encode())) for name in ("alice", "bob", "eve")]
    )
    store.write([calls(finished("a"), 0, "alice", "e-alice"), calls(finished("b"), 0, "bob", "e-bob")])
    found = References(clients=frozenset(), environments=frozenset({"e-eve"}))
    assert [unused.environments for unused in find_unreferenced(store) if unused and unused.environments] == [
        found.environments
    ]
    drop_unreferenced(store)
    assert store.get_environment("e-alice") == b"alice"
    with pytest.raises(KeyError):
        store.get_environment("e-eve")
    store.drop_record(TaskId("a"))
    drop_unreferenced(store)
    with pytest.raises(KeyError):
        store.get_environment("e-alice")
    assert store.get_record(TaskId("b"))["environment"] == "e-bob"


def test_nothing_is_there_where_nothing_is_kept() -> None:
    assert drop_unreferenced(NoDB()) == NoDB().dropped == 0


def test_an_engine_goes_with_its_last_record_and_comes_with_the_next(tmp_path: Path) -> None:
    def ran(name: str, engine: str) -> Entry:
        entry = finished(name)
        entry.engine_uuid, entry.host = EngineUuid(engine), f"host of {engine}"
        return entry

    def hosts() -> list[str]:
        return [record["attempts"][0]["host"] for record in store.find_records({}, "attempts")]

    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([ran("a", "e1"), ran("b", "e2")])
    store.drop_record(TaskId("a"))
    assert [unused.engines for unused in find_unreferenced(store) if unused and unused.engines] == [{"e1"}]
    drop_unreferenced(store)
    assert hosts() == ["host of e2"]
    store.write([ran("c", "e1")])
    assert hosts() == ["host of e2", "host of e1"]
    store.drop_record(TaskId("c"))
    look = [unused for unused in find_unreferenced(store) if unused]
    store.write([ran("d", "e1")])  # between the look and the deed
    for unused in look:
        store.drop_references(unused)
    assert hosts() == ["host of e2", "host of e1"]
    store.close()


def test_memory_that_drops_by_itself_says_so() -> None:
    store = DictDB(record_limit=3, cull_fraction=0.0)
    add_functions(store, 5)
    store.write([calls(finished(f"t{n}", NOW + n), n) for n in range(5)])
    assert store.dropped == 2
    assert drop_unreferenced(store) == 2


def test_large_functions_and_what_a_crash_left_go_from_a_server(
    open_mongodb: Callable[..., MongoDB], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engineroom.stores.mongodb.chunks.CHUNK_BYTES", 1000)
    store = open_mongodb()
    store.add_functions([Function(digest(n), bytes(5500)) for n in range(3)])
    store._database.functions.delete_one({"_id": digest(1).hex()})  # it died before it had dropped the chunks
    store.write([calls(finished(), 0)])
    assert drop_unreferenced(store) == 1
    assert functions(store) == [0]
    assert store._database.chunks.count_documents({}) == 6


def test_rows_that_are_dropped_between_two_looks_are_left_out() -> None:
    answers = iter([[(5,)], [], [(2**63 - 1,)], [(b"f" * 16, "alice", None, "e")], [(None,)]])
    asked: list[tuple[object, ...]] = []

    def read(sql: str, values: tuple[object, ...]) -> Iterator[tuple[object, ...]]:
        asked.append(values)
        return iter(next(answers))

    [piece] = in_sqlite.used(read)
    assert (piece.clients, piece.environments, piece.engines) == ({"alice"}, {"e"}, frozenset())
    assert asked[0::2] == [(-1,), (4 + in_sqlite.PIECE,), (2**63 - 1,)]
    assert asked[3] == (2**63 - 1, 2**63 - 1)
