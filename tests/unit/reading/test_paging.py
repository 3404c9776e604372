"""All records in pages: each comes once, in order, and memory stays flat."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from engineroom.ids import ClientId, Digest, TaskId
from engineroom.messages import TaskSpec
from engineroom.reading.paging import pages
from engineroom.records.entry import Entry
from engineroom.records.record import TaskRecord
from engineroom.stores import TaskStore, open_store

SIZE = 7


class Found:
    """A store, and how many records it was asked for at a time."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self.limits: set[int | None] = set()

    def find(self, query: Any, keys: Any = None, sort: Any = None, limit: Any = None, skip: int = 0) -> list[Any]:
        self.limits.add(limit)
        found: list[TaskRecord] = self._store.find_records(query, keys, sort=sort, limit=limit, skip=skip)
        return found


def task(name: str, at: float) -> Entry:
    return Entry(TaskSpec(TaskId(name), Digest(b"f"), b"", at), ClientId("c"))


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    made = open_store("memory" if request.param == "memory" else f"sqlite://{tmp_path}/tasks.db")
    yield made
    made.close()


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("step", [0.0, 1e-7, 1e-6, 3e-6, 1e-5, 0.01])
def test_every_record_comes_once_and_in_order(store: Any, direction: int, step: float):
    names = [f"t{number:03}" for number in range(50)]
    store.write([task(name, 1.7e9 + number * step) for number, name in enumerate(names)])
    for number in range(10):
        store.add_record(f"none{number}", {"label": "added by hand"})
    records = Found(store)
    found = list(itertools.chain.from_iterable(pages(records, {}, ["msg_id"], direction, SIZE)))
    ids = [record["msg_id"] for record in found]
    assert sorted(ids) == sorted([*names, *(f"none{number}" for number in range(10))])
    assert records.limits == {SIZE}
    times = [record["submitted"] for record in found if record["submitted"] is not None]
    assert times == sorted(times, reverse=direction < 0)


def test_a_query_narrows_them(store: Any):
    store.write([task(f"t{number}", 1e9 + number) for number in range(30)])
    query = {"msg_id": {"$regex": "1"}}
    found = [record["msg_id"] for part in pages(Found(store), query, None, -1, 4) for record in part]
    assert found == [f"t{number}" for number in range(29, -1, -1) if "1" in str(number)]
