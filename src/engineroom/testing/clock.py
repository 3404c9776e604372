"""A clock that stands still until it is moved, and does then what was due in between."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class VirtualClock:
    """Time as a number, and what is to happen when.

    Call it for the time in seconds. `at` and `later` plan a call; `step` jumps to the next planned call and makes it.
    Calls planned for the same moment happen in the order in which they were planned.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._count = itertools.count()
        self._planned: list[tuple[float, int, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self._now

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Plan a call; a moment that has passed means now."""
        heapq.heappush(self._planned, (max(moment, self._now), next(self._count), call))

    def later(self, delay: float, call: Callable[[], None]) -> None:
        """Plan a call, `delay` seconds from now."""
        self.at(self._now + delay, call)

    def step(self) -> bool:
        """Jump to the next planned call and make it. False: nothing is planned."""
        if not self._planned:
            return False
        self._now, _, call = heapq.heappop(self._planned)
        call()
        return True

    def advance(self, seconds: float) -> None:
        """Let time pass, making the calls that come due."""
        end = self._now + seconds
        while self._planned and self._planned[0][0] <= end:
            self.step()
        self._now = end
