"""Which clocks are said to be wrong, from signs of life that may be late."""

from __future__ import annotations

import pytest

from engineroom.controller.peer_clock import PeerClock

NOW = 1_000_000.0


def heard(clock: PeerClock, *differences: float) -> list[bool]:
    """Whether each sign of life changes what is known."""
    return [clock.heard(NOW + difference, NOW) for difference in differences]


def test_a_clock_that_is_right_is_not_told_of():
    clock = PeerClock()
    assert not any(heard(clock, 0.1, -0.5, 3.0, -4.0, 0.0))
    assert clock.ahead == 0.0


@pytest.mark.fault(39)
@pytest.mark.parametrize("wrong", [3600.0, -86400.0, 5.3])
def test_a_clock_that_is_wrong_is_told_of_once(wrong: float):
    clock = PeerClock()
    changes = heard(clock, wrong, wrong - 0.3, wrong - 1.0, wrong, wrong, wrong)
    assert changes == [False, False, False, True, False, False]
    assert clock.ahead == wrong


def test_one_that_was_set_right_is_told_of_too():
    clock = PeerClock()
    heard(clock, *[60.0] * 4)
    assert heard(clock, 0.0, 0.0, 0.0, 0.0) == [False, False, False, True]
    assert clock.ahead == 0.0


def test_late_signs_of_life_are_no_wrong_clock():
    clock = PeerClock()
    assert not any(heard(clock, -15.0, -14.0, -13.0, -0.1, -20.0, -19.0, -18.0, -0.2))


def test_a_clock_that_is_set_from_wrong_to_wrong_is_told_of_again():
    clock = PeerClock()
    heard(clock, *[60.0] * 4)
    assert any(heard(clock, *[600.0] * 4))
    assert clock.ahead == 600.0
