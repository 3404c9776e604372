"""A loop that hangs is told of once, and no other."""

from __future__ import annotations

import pytest

from engineroom.watchdog.judge import Judge


def looks(judge: Judge, *story: tuple[int, float]) -> list[float | None]:
    """What a judge says to (turns, seconds)."""
    return [judge.look(turns, now) for turns, now in story]


def test_a_loop_that_turns_is_let_alone():
    assert looks(Judge(10.0), (1, 0.0), (2, 3.0), (2, 6.0), (2, 9.0), (2, 12.9), (3, 15.0)) == [None] * 6


@pytest.mark.fault(15)
def test_a_loop_that_hangs_is_told_once_and_so_is_that_it_goes_on():
    judge = Judge(10.0)
    assert looks(judge, (1, 0.0), (1, 4.0), (1, 8.0)) == [None] * 3
    assert (judge.look(1, 12.0), judge.is_hanging) == (12.0, True)
    assert looks(judge, (1, 16.0), (1, 200.0)) == [None, None]
    assert (judge.look(2, 204.0), judge.is_hanging) == (204.0, False)
    assert looks(judge, (2, 208.0), (2, 212.0)) == [None, None]
    assert judge.look(2, 216.0) == 12.0, "and again"


def test_a_loop_that_has_not_begun_does_not_hang():
    assert looks(Judge(1.0), (0, 0.0), (0, 0.5), (0, 0.9), (0, 1.4), (0, 50.0), (0, 50.4)) == [None] * 6


def test_a_process_that_was_stopped_is_not_blamed():
    assert looks(Judge(10.0), (1, 0.0), (1, 4.0), (1, 300.0), (1, 304.0), (2, 305.0)) == [None] * 5
