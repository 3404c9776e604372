"""Which tasks have changed since the last look: each change is told once. No cluster; the clock is given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engineroom.reading.changes import OVERLAP, Changes
from engineroom.stores.query.match import compile as predicate
from engineroom.stores.query.parse import parse

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Table:
    """Records in a dict, found as a store finds them."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.read = 0

    def put(self, id: str, state: str, submitted: float, started: float | None = None, completed: float | None = None):
        times = {"submitted": submitted, "started": started, "completed": completed}
        self.records[id] = {"msg_id": id, "state": state, **{k: None if v is None else at(v) for k, v in times.items()}}

    def find(self, query: Any, keys: Any = None, sort: Any = None, limit: Any = None, skip: int = 0) -> list[Any]:
        found = list(filter(predicate(parse(query)), self.records.values()))
        for key, direction in reversed(sort or []):
            found.sort(key=lambda record: record[key], reverse=direction < 0)
        found = found[skip:][:limit]
        self.read += len(found)
        return found


@pytest.fixture
def table() -> Table:
    return Table()


class Watcher:
    def __init__(self, table: Table, query: Any = None, since: float = 0) -> None:
        self._changes = Changes(table, query or {}, None, at(since))

    def look(self, now: float) -> list[tuple[str, str]]:
        return [(record["msg_id"], record["state"]) for part in self._changes.look(at(now)) for record in part]


def test_each_state_of_a_task_is_told_once(table: Table):
    watcher = Watcher(table)
    assert watcher.look(0.1) == []
    table.put("a", "pending", 1)
    assert watcher.look(1.1) == [("a", "pending")]
    assert watcher.look(1.6) == []
    table.put("a", "running", 1, 2)
    assert watcher.look(2.1) == [("a", "running")]
    for now in range(3, 40):
        assert watcher.look(now) == []
    table.put("a", "completed", 1, 2, 40)
    assert watcher.look(40.5) == [("a", "completed")]
    for now in range(41, 60):
        assert watcher.look(now) == []


def test_what_happened_before_is_not_told_but_what_runs_is(table: Table):
    table.put("old", "completed", -9, -8, -1)
    table.put("waits", "pending", -3)
    table.put("runs", "running", -9, -8)
    watcher = Watcher(table)
    assert watcher.look(0.1) == [("runs", "running")]
    table.put("waits", "completed", -3, 1, 60)
    table.put("runs", "failed", -9, -8, 61)
    assert watcher.look(61.5) == [("waits", "completed"), ("runs", "failed")]


def test_since_begins_in_the_past(table: Table):
    for i in range(5):
        table.put(f"t{i}", "completed", -10 * i - 2, -10 * i - 1, -10 * i)
    assert watcher_ids(Watcher(table, since=-25).look(0.1)) == ["t2", "t1", "t0"]


def watcher_ids(found: list[tuple[str, str]]) -> list[str]:
    return [id for id, _ in found]


def test_a_task_that_is_written_late_is_told(table: Table):
    watcher = Watcher(table)
    watcher.look(10)
    table.put("late", "completed", 7, 8, 10 - OVERLAP.total_seconds() + 1)
    assert watcher.look(10.5) == [("late", "completed")]


def test_a_retry_is_told_though_it_waits_again(table: Table):
    watcher = Watcher(table)
    table.put("a", "running", 1, 2)
    assert watcher.look(3) == [("a", "running")]
    table.put("a", "pending", 1)
    assert watcher.look(30) == [("a", "pending")]
    table.put("a", "running", 1, 31)
    assert watcher.look(32) == [("a", "running")]


@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_the_clock_of_an_engine_is_wrong(table: Table, ahead: float):
    watcher = Watcher(table)
    table.put("a", "running", 1, 2 + ahead)
    assert watcher.look(2.5) == [("a", "running")]
    table.put("a", "completed", 1, 2 + ahead, 20 + ahead)
    table.put("short", "completed", 19, 19 + ahead, 20 + ahead)
    assert sorted(watcher.look(20.5)) == [("a", "completed"), ("short", "completed")]
    assert [watcher.look(now) for now in range(21, 40)] == [[]] * 19


def test_a_purged_task_is_forgotten(table: Table):
    watcher = Watcher(table)
    table.put("a", "running", 1, 2)
    watcher.look(3)
    del table.records["a"]
    assert watcher.look(4) == []


def test_only_what_matches(table: Table):
    watcher = Watcher(table, {"state": "failed"})
    table.put("good", "completed", 1, 2, 3)
    table.put("bad", "failed", 1, 2, 4)
    assert watcher.look(5) == [("bad", "failed")]


def test_many_come_in_parts_and_all_come(table: Table):
    for i in range(2500):
        table.put(f"t{i}", "completed", 1, 2, 3 + i / 1000)
    changes = Changes(table, {}, None, at(0))
    parts = list(changes.look(at(6)))
    assert [len(part) <= 1000 for part in parts] == [True] * len(parts)
    assert len({record["msg_id"] for part in parts for record in part}) == 2500


def test_a_look_reads_what_is_new_and_not_everything(table: Table):
    for i in range(3000):
        table.put(f"old{i}", "completed", -500, -400, -300)
    watcher = Watcher(table)
    watcher.look(0.1)
    assert table.read == 0
