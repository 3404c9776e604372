"""The time that the core is given: the time of day, without its jumps. The caller brings the clocks."""

from __future__ import annotations

from collections.abc import Callable

#: How much faster or slower than real time the clock runs, at most, while it goes back to the time of day.
CORRECTION = 0.5


class SteadyClock:
    """Seconds since 1970. If the time of day jumps, this clock follows it slowly: at 1.5 or 0.5 times its usual speed.

    The controller measures silence and time limits with the same clock that dates records. If the time of day jumped by
    an hour, all peers would seem to have been silent for an hour. Only the controller's main thread may call it.
    """

    def __init__(self, time_of_day: Callable[[], float], steady: Callable[[], float]) -> None:
        self._time_of_day, self._steady = time_of_day, steady
        self._now, self._last = time_of_day(), steady()

    def __call__(self) -> float:
        last, self._last = self._last, self._steady()
        passed = self._last - last
        behind, most = self._time_of_day() - self._now - passed, passed * CORRECTION
        self._now += passed + max(-most, min(behind, most))
        return self._now
