"""Which clocks are said to be wrong, from signs of life that may be late."""

from __future__ import annotations

import pytest

from engineroom.controller.presence.peer_clock import ANSWERS, SIGNS, PeerClock

NOW = 1_000_000.0
#: seconds between two signs of life
PAUSE = 1.0


class Exchange:
    """A peer and its controller: signs of life and answers, each of which may take long."""

    def __init__(self) -> None:
        self.clock = PeerClock()
        self._now, self._number, self._answered = NOW, 0, (0, 0.0)

    def signs(self, wrong: float, *late: float, back: float = 0.0) -> list[bool]:
        """Whether each sign of life changes what is known.

        `wrong`: how much the peer's clock is ahead; `late`: seconds that each sign takes to us; `back`: seconds that
        our answers take to the peer.
        """
        return [self._sign(wrong, seconds, back) for seconds in late]

    def _sign(self, wrong: float, late: float, back: float) -> bool:
        sent = self._now + PAUSE
        number, came = self._answered
        self._now = sent + late
        changed = self.clock.heard(sent + wrong, self._now, number, sent - came if number else 0.0)
        self._number += 1
        self.clock.answers(self._number, self._now)
        self._now += back
        self._answered = (self._number, self._now)
        return changed


def test_a_clock_that_is_right_is_not_told_of():
    exchange = Exchange()
    assert not any(exchange.signs(0.0, 0.1, 0.5, 3.0, 4.0, 0.0))
    assert exchange.clock.ahead == 0.0


@pytest.mark.fault(39)
@pytest.mark.parametrize("wrong", [3600.0, -86400.0, 5.3, -5.3])
def test_a_clock_that_is_wrong_is_told_of_once(wrong: float):
    exchange = Exchange()
    assert exchange.signs(wrong, 0.0, 0.01, 0.02, 0.01, 0.0, 0.0) == [False, False, False, True, False, False]
    assert exchange.clock.ahead == pytest.approx(wrong, abs=0.1)


def test_one_that_was_set_right_is_told_of_too():
    exchange = Exchange()
    exchange.signs(60.0, *[0.0] * SIGNS)
    assert exchange.signs(0.0, *[0.0] * SIGNS) == [False, False, False, True]
    assert exchange.clock.ahead == 0.0


def test_late_signs_of_life_are_no_wrong_clock():
    exchange = Exchange()
    assert not any(exchange.signs(0.0, 15.0, 14.0, 13.0, 0.1, 20.0, 19.0, 18.0, 0.2))


@pytest.mark.parametrize("back", [0.0, 7.0, 30.0])
def test_a_machine_on_which_all_signs_of_life_are_late_has_no_wrong_clock(back: float):
    exchange = Exchange()
    assert not any(exchange.signs(0.0, *[9.0] * 50, back=back))
    assert exchange.clock.ahead == 0.0


def test_a_wrong_clock_is_told_of_although_messages_are_late():
    for wrong in (60.0, -60.0):
        exchange = Exchange()
        assert any(exchange.signs(wrong, *[9.0] * SIGNS, back=7.0))
        assert exchange.clock.ahead == pytest.approx(wrong, abs=9.0 + 7.0)


def test_signs_of_life_that_answer_nothing_we_know_say_nothing_of_a_clock_that_is_behind():
    clock = PeerClock()
    for number in range(2 * ANSWERS):
        clock.answers(number + 1, NOW + number)
    assert not any(clock.heard(NOW - 60.0, NOW, answered, 0.0) for answered in (0, 1, 0, 1, 0, 1))


def test_a_clock_that_is_set_from_wrong_to_wrong_is_told_of_again():
    exchange = Exchange()
    exchange.signs(60.0, *[0.0] * SIGNS)
    assert any(exchange.signs(600.0, *[0.0] * SIGNS))
    assert exchange.clock.ahead == 600.0
