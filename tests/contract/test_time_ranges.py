"""Questions for a time: the same answers on every backend, and from SQLite by the index if few tasks ended then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.entries import NOW, finished, pending

from engineroom.ids import TaskId
from engineroom.stores import SQLiteDB, TaskStore
from engineroom.stores.query.parse import parse
from engineroom.stores.sqlite.where import narrowed

COUNT = 40


@pytest.fixture(params=[3, 5000], ids=["many", "few"], autouse=True)
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("engineroom.stores.sqlite.where.MAX_COUNTED", request.param)
    return int(request.param)


def at(seconds: float) -> datetime:
    """So many seconds after the first task ended."""
    return datetime.fromtimestamp(NOW + 2, UTC) + timedelta(seconds=seconds)


def fill(store: TaskStore) -> None:
    """t00, t01, … ended a second after one another, from the last submitted to the first."""
    made = [finished(f"t{n:02}", NOW + COUNT - n) for n in range(COUNT)]
    for n, entry in enumerate(made):
        assert entry.done is not None
        entry.done.completed = NOW + 2 + n
    store.write(made)
    store.write([pending("waits")])


def ids(store: TaskStore, query: dict[str, Any], **more: Any) -> list[str]:
    return [record["msg_id"] for record in store.find_records(query, "msg_id", **more)]


def named(*numbers: int) -> list[str]:
    return [f"t{n:02}" for n in numbers]


def test_ranges_of_ends(store: TaskStore) -> None:
    fill(store)
    some = {"completed": {"$gte": at(10), "$lt": at(15)}}
    assert ids(store, some) == named(14, 13, 12, 11, 10), "by submission"
    assert ids(store, some, limit=2, skip=1) == named(13, 12)
    assert ids(store, some, sort=[("completed", -1)], limit=2) == named(14, 13)
    assert ids(store, some, sort=[("engine_id", 1), ("completed", 1)], limit=2) == named(10, 11)
    assert ids(store, {**some, "state": "completed", "engine_id": 3, "stdout": ""}) == named(14, 13, 12, 11, 10)
    assert ids(store, {"$and": [some, {"completed": {"$gt": at(13)}}, {"metadata.x": None}]}) == named(14)
    assert ids(store, {"completed": at(7)}) == named(7)
    assert ids(store, {"completed": {"$gte": at(37)}}) == named(39, 38, 37)
    assert ids(store, {"completed": {"$lt": at(2)}}) == named(1, 0)
    assert ids(store, {}, sort=[("completed", -1)], limit=2) == named(39, 38)
    assert ids(store, {}, sort=[("completed", 1)], limit=2) == ["waits", "t00"]
    assert ids(store, {"completed": {"$gte": at(100)}}) == []
    assert ids(store, {"$or": [{"completed": None}, {"completed": {"$gte": at(38)}}]}) == ["waits", *named(39, 38)]
    assert ids(store, {"completed": {"$not": {"$gte": at(2)}}}) == ["waits", *named(1, 0)]
    assert store.count(some) == 5
    assert store.count({**some, "state": "failed"}) == 0
    assert store.distinct("msg_id", some) == named(10, 11, 12, 13, 14)
    assert [group["count"] for group in store.group_by("engine_id", some)] == [5]
    found, after = [], None
    while True:
        page = store.page(some, "msg_id", after=after, limit=2)
        found += [record["msg_id"] for record in page.records]
        after = page.next
        if after is None:
            break
    assert found == named(14, 13, 12, 11, 10)
    assert store.drop_matching_records({"completed": {"$lt": at(35)}}) == 35
    assert store.get_history() == ["waits", *named(39, 38, 37, 36, 35)]


def test_what_never_ran_is_found_without_an_index(store: TaskStore) -> None:
    fill(store)
    assert ids(store, {"engine_id": None}) == ids(store, {"engine_uuid": None}) == ["waits"]
    assert ids(store, {"engine_id": {"$in": [None, 3]}}, limit=2) == ["waits", "t39"]
    store.update_record(TaskId("t39"), {"engine_id": None, "engine_uuid": None})
    assert ids(store, {"engine_id": None}) == ["waits", "t39"]
    assert store.count({"engine_uuid": "e3"}) == COUNT - 1


def test_few_are_looked_up_and_many_are_walked_through(tmp_path: Path, few: int) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    fill(store)

    def plan(query: dict[str, Any]) -> str:
        where = narrowed(parse(query), store._read)
        sql = f"EXPLAIN QUERY PLAN SELECT * FROM {where.table} WHERE {where.sql} ORDER BY submitted, msg_id"
        return " ".join(row[3] for row in store._connections.reader().execute(sql, where.parameters))

    for query in ({"completed": {"$gte": at(30)}}, {"completed": {"$gte": at(5), "$lt": at(30)}, "engine_id": 3}):
        assert ("tasks_by_end" in plan(query)) == (few > COUNT)
    assert "tasks_by_end (completed>" in plan({"completed": {"$gt": at(37)}})
    assert "tasks_by_engine_id" in plan({"engine_id": 3})
    assert "tasks_by_engine " in plan({"engine_uuid": "e3"})
    assert "tasks_by_end" not in plan({"$or": [{"completed": None}, {"completed": {"$gte": at(38)}}]})
    store.close()
