"""The time of day jumps; the controller's clock does not."""

from __future__ import annotations

import pytest

from engineroom.controller.loop import Machinery
from engineroom.core import steady_clock
from engineroom.core.steady_clock import SteadyClock


class Clocks:
    """The host's two clocks."""

    def __init__(self) -> None:
        self.day, self.steady = 1e9, 50.0

    def pass_seconds(self, seconds: float) -> None:
        self.day += seconds
        self.steady += seconds


@pytest.fixture
def host() -> Clocks:
    return Clocks()


@pytest.fixture
def clock(host: Clocks) -> SteadyClock:
    return SteadyClock(lambda: host.day, lambda: host.steady)


@pytest.mark.fault(39)
@pytest.mark.parametrize("jump", [3600.0, -3600.0, 86400.0, -0.5])
def test_a_jump_of_the_time_of_day_is_no_jump_of_the_clock(host: Clocks, clock: SteadyClock, jump: float) -> None:
    before = clock()
    host.day += jump
    assert clock() == before
    host.pass_seconds(10.0)
    assert 5.0 <= clock() - before <= 15.0


@pytest.mark.fault(39)
@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_it_goes_back_to_the_time_of_day_and_never_runs_backwards(
    host: Clocks, clock: SteadyClock, jump: float
) -> None:
    host.day += jump
    last = clock()
    for _ in range(int(abs(jump) / steady_clock.CORRECTION / 10) + 1):
        host.pass_seconds(10.0)
        assert last < clock()
        last = clock()
    assert clock() == pytest.approx(host.day)


def test_without_jumps_it_is_the_time_of_day(host: Clocks, clock: SteadyClock) -> None:
    for _ in range(100):
        host.pass_seconds(0.37)
        assert clock() == pytest.approx(host.day, abs=1e-6)


@pytest.mark.fault(39)
def test_the_controller_uses_it() -> None:
    assert isinstance(Machinery.clock, SteadyClock)
