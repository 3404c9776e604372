"""What is kept, and what is dropped, on every backend."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from support.entries import failed, finished, pending

from engineroom.config import retention_settings
from engineroom.ids import TaskId
from engineroom.messages import TaskOptions
from engineroom.records.entry import Entry
from engineroom.stores import DictDB, SQLiteDB, TaskStore
from engineroom.stores.maintenance.retention import Retention

NOW = time.time()
DAY = 86400.0


def tend(store: TaskStore, retention: Retention | None = None, now: float = NOW, **given: Any) -> int:
    retention = retention or Retention(store, retention_settings(given))
    return sum(retention.apply(now))


def labelled(entry: Entry, label: str) -> Entry:
    entry.spec.options = TaskOptions(label=label)
    return entry


def test_old_records_are_dropped(store: TaskStore) -> None:
    store.write([finished("old", NOW - 3 * DAY), finished("new", NOW - 60), pending("waits", NOW - 3 * DAY)])
    assert tend(store, age="2d") == 1
    assert store.get_history() == ["waits", "new"]


def test_what_ended_just_now_is_not_old_however_long_it_waited(store: TaskStore) -> None:
    late = finished("a", NOW - 3 * DAY)
    assert late.done is not None
    late.done.completed = NOW - 60
    store.write([late])
    retention = Retention(store, retention_settings({"age": "2d"}))
    assert tend(store, retention) == 0
    assert tend(store, retention, NOW + 3 * DAY) == 1


def test_what_is_written_after_a_look_at_its_time_is_found_at_the_next(store: TaskStore) -> None:
    retention = Retention(store, retention_settings({"age": 0}))
    assert tend(store, retention, NOW) == 0
    store.write([finished("a", NOW - 3)])
    assert tend(store, retention, NOW + 0.1) == 1


def test_buffers_go_before_records(store: TaskStore) -> None:
    cell = pending("cell", NOW - 2 * DAY, payload=b"print(1)", kind="execute")
    whole = finished("a", NOW - 2 * DAY, buffers=(b"x" * 100_000,))
    store.write([whole, failed("b", NOW - 2 * DAY), cell, pending("waits", NOW - 2 * DAY, buffers=(b"y" * 100,))])
    store.update_record(TaskId("b"), {"resubmitted": "c"})
    before = store.get_record(TaskId("a"))
    assert tend(store, payload_age="1d") == 2
    assert store.get_record(TaskId("a")) == {**before, "buffers": None, "result_buffers": None}
    assert store.get_record(TaskId("b"))["result_content"]["ename"] == "ValueError"
    assert store.get_record(TaskId("waits"))["buffers"] == [b"call", b"y" * 100]
    assert store.get_record(TaskId("cell"))["pyin"] == "print(1)"
    entry = store.entries([TaskId("a")])[TaskId("a")]
    assert entry.is_light
    assert tend(store, payload_age="1d") == 0
    store.write([whole])
    assert store.get_record(TaskId("a"))["buffers"] is None, "what is written again stays as it is"


def test_the_source_of_a_cell_stays(store: TaskStore) -> None:
    cell = finished("cell", NOW - 2 * DAY, kind="execute")
    cell.spec.payload = b"print(1)"
    store.write([cell])
    tend(store, payload_age="1d")
    record = store.get_record(TaskId("cell"))
    assert (record["pyin"], record["content"], record["result_buffers"]) == ("print(1)", {"code": "print(1)"}, None)
    assert record["buffers"] == [b"print(1)"]


def test_the_newest_stay_within_a_number(store: TaskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engineroom.stores.maintenance.retention.BATCH", 50)  # more records than go in two pieces
    store.write([finished(f"t{n:03}", NOW - 10_000 + n) for n in range(120)])
    store.write([pending("old", NOW - DAY)])
    assert tend(store, count=10) == 111
    assert store.get_history() == ["old", *[f"t{n:03}" for n in range(111, 120)]]


def test_the_newest_stay_within_a_size(store: TaskStore) -> None:
    store.write([finished(f"t{n:03}", NOW - 1000 + n, payload=bytes([n]) * 20_000) for n in range(250)])
    tend(store, bytes="3MB")
    left = store.get_history()
    assert store.usage().used <= 3e6
    assert 20 < len(left) < 250
    assert left == [f"t{n:03}" for n in range(250 - len(left), 250)]


def test_rules_by_state_and_label(store: TaskStore) -> None:
    at = NOW - 10 * DAY
    store.write([finished("a", at), failed("b", at), labelled(finished("c", at), "test-1")])
    store.write([labelled(finished("d", NOW - 7200), "test-2"), labelled(finished("e", NOW - 7200), "fit")])
    tend(store, age="5d", rules=[{"state": "failed"}, {"label": "test-*", "age": "1h"}])
    assert store.get_history() == ["b", "e"]


def test_pinned_records_stay_until_they_are_let_loose(store: TaskStore) -> None:
    store.write([finished(name, NOW - 3 * DAY + n) for n, name in enumerate("abc")])
    assert store.pin([TaskId("b"), TaskId("c"), TaskId("nobody")], True) == 2
    assert store.pin([TaskId("b")], True) == 0
    assert [r["msg_id"] for r in store.find_records({"pinned": True})] == ["b", "c"]
    assert store.count({"pinned": False}) == store.count({"pinned": {"$ne": True}}) == 1
    assert store.distinct("pinned", {}) == [False, True]
    retention = Retention(store, retention_settings({"age": "1d", "count": 0, "payload_age": 0}))
    assert tend(store, retention) == 1
    assert store.get_history() == ["b", "c"]
    assert store.get_record(TaskId("b"))["result_buffers"] == [b"result"]
    store.pin([TaskId("b")], False)
    retention.rescan()
    assert tend(store, retention) == 1
    store.update_record(TaskId("c"), {"pinned": False})
    assert store.get_record(TaskId("c"))["pinned"] is False


def test_a_dropped_record_takes_its_pin_along(store: TaskStore) -> None:
    store.write([finished("a")])
    store.pin([TaskId("a")], True)
    store.drop_record(TaskId("a"))
    store.write([finished("a")])
    assert store.get_record(TaskId("a"))["pinned"] is False


def test_memory_never_drops_what_is_pinned() -> None:
    store = DictDB(record_limit=10, cull_fraction=0.0)
    store.write([finished("first", 0.0)])
    store.pin([TaskId("first")], True)
    store.write([finished(f"t{n:02}", n + 1.0) for n in range(50)])
    assert store.get_history() == ["first", *[f"t{n:02}" for n in range(41, 50)]]


def test_the_oldest_large_buffers_go_beyond_a_size(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([finished(f"t{n}", NOW - 100 + n, buffers=(bytes([n]) * 100_000,)) for n in range(10)])
    store.write([finished("small", NOW - 200)])
    store.write([pending("waits", NOW - 300, buffers=(b"w" * 100_000,))])
    shared = b"s" * 100_000
    store.write([finished(f"shared{n}", NOW - 150 + n, buffers=(shared,)) for n in range(2)])
    store.pin([TaskId("t1")], True)
    assert store.usage().large == 1_200_000
    assert [id for id, _ in store.large_buffers(3)] == ["shared0", "shared1", "t0"]
    retention = Retention(store, retention_settings({"payload_bytes": "1MB"}))
    tend(store, retention)
    assert store.usage().large == 1_000_000
    left = {r["msg_id"] for r in store.find_records({}, "buffers") if r["buffers"] is not None}
    assert left == {"small", "waits", *(f"t{n}" for n in range(1, 10))}
    assert store.count({}) == 14, "the records stay"
    assert tend(store, retention) == 0
    tend(store, payload_bytes=0)
    assert store.usage().large == 200_000, "of the pinned record and the unfinished task"
    store.close()


def test_payloads_have_a_bound_by_default_that_can_be_taken_away() -> None:
    assert retention_settings({}).payload_bytes == 10 << 30
    assert retention_settings({}).drops
    assert not retention_settings({"payload_bytes": None}).drops
