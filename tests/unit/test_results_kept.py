"""Results that the controller keeps for tasks to come, without a store."""

from __future__ import annotations

import pytest

from engineroom.controller import input_values as values
from engineroom.controller.input_values import Values
from engineroom.ids import TaskId
from engineroom.stores import NoDB


def test_the_latest_results_are_kept_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "RECENT", 100_000)
    kept = Values(NoDB())
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
