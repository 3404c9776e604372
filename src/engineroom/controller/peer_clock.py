"""Whether a peer's clock is right, by the times of day in its signs of life. There is no clock here.

A sign of life may be late, and then its time of day seems to be behind. It is never early. So of several differences
the largest is the best one.
"""

from __future__ import annotations

from collections import deque

#: Differences of fewer seconds are not told.
TOLERANCE = 5.0
#: So many signs of life in a row must say the same.
SIGNS = 4


class PeerClock:
    """The clock of one peer."""

    __slots__ = ("_differences", "ahead")

    def __init__(self) -> None:
        self._differences: deque[float] = deque(maxlen=SIGNS)
        #: seconds that it is ahead of ours (below 0: behind), if it is wrong; 0: it is right, or not known yet
        self.ahead = 0.0

    def heard(self, at: float, now: float) -> bool:
        """A sign of life has come. `at`: when it was sent, by the peer's clock; `now`: by ours; both time of day.

        Returns whether `ahead` has changed by more than a little.
        """
        self._differences.append(at - now)
        if len(self._differences) < SIGNS:
            return False
        best = max(self._differences)
        ahead = round(best, 1) if abs(best) > TOLERANCE else 0.0
        if abs(ahead - self.ahead) <= TOLERANCE and bool(ahead) == bool(self.ahead):
            return False
        self.ahead = ahead
        return True
