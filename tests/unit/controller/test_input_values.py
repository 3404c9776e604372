"""Results that the controller keeps for tasks to come."""

from __future__ import annotations

import pytest

from engineroom.controller.supplies import input_values
from engineroom.controller.supplies.input_values import InputValues
from engineroom.ids import TaskId

A, B = TaskId("a"), TaskId("b")


def test_without_a_store_the_latest_results_are_kept_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_values, "RECENT", 100_000)
    kept = InputValues()
    for n in range(10):
        kept.note(TaskId(f"large-{n}"), b"x" * 30_000, ())
    assert [n for n in range(10) if kept.recent(TaskId(f"large-{n}"))] == [7, 8, 9]
    for n in range(10_000):
        kept.note(TaskId(f"small-{n}"), b"x", ())
    assert kept.recent(TaskId("large-9")) is None
    assert kept.recent(TaskId("small-9999")) == (b"x", ())
    assert 300 < sum(kept.recent(TaskId(f"small-{n}")) is not None for n in range(10_000)) < 400, (
        "small ones weigh, too"
    )


def test_only_recorded_results_leave_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_values, "LIMIT", 1000)
    kept = InputValues()
    kept.keep(A, b"x" * 800, ())
    kept.keep(B, b"x" * 800, ())
    assert kept.spilled([A, B]) == []
    kept.recorded(A)
    assert (kept.spilled([A, B]), kept.get(A)) == ([A], None)
    kept.recorded(B)
    assert kept.get(B) == (b"x" * 800, ())
    kept.release(B)
    assert kept.get(B) is None
