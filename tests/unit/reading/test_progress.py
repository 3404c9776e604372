"""How long the rest of a label's tasks may take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from engineroom.reading.progress import RATE_SECONDS, RECENT, seconds_left

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_nothing_is_known_before_a_task_has_ended():
    assert seconds_left(5, [], NOW) is None


def test_the_rest_goes_on_as_the_last_minute():
    ended = [(ago(10), ago(5)), (ago(5), ago(0.5))]
    assert seconds_left(6, ended, NOW) == 30.0
    assert seconds_left(4, [(ago(10_000), ago(30))] * 2, NOW) == 2 * RATE_SECONDS


def test_of_very_many_tasks_only_some_are_read():
    ended = [(ago(50), ago(50))] * (RECENT - 1) + [(ago(50), ago(40))]
    assert seconds_left(RECENT, ended, NOW) == 10.0
