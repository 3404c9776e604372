"""Whether a peer's clock is right, by the times of day in its signs of life. There is no clock here.

A sign of life was sent before we received it. And it was sent after our answer to the one before, by at least the time
that the peer has had that answer. So the difference of the clocks lies between two bounds. A message that is late, or a
machine that is busy, moves the bounds apart: then we know less, and say nothing wrong. The bounds of several signs of
life hold together.
"""

from __future__ import annotations

from collections import deque

#: Differences of fewer seconds are not told.
TOLERANCE = 5.0
#: So many signs of life are taken together.
SIGNS = 4
#: So many of our latest answers are remembered.
ANSWERS = 8


class PeerClock:
    """The clock of one peer."""

    __slots__ = ("_answers", "_bounds", "ahead")

    def __init__(self) -> None:
        #: number of an answer of ours → when it was sent, by our clock
        self._answers: deque[tuple[int, float]] = deque(maxlen=ANSWERS)
        #: of each sign of life the least and the largest difference
        self._bounds: deque[tuple[float, float]] = deque(maxlen=SIGNS)
        #: seconds that it is ahead of ours (below 0: behind), if it is wrong; 0: it is right, or not known yet
        self.ahead = 0.0

    def answers(self, number: int, now: float) -> None:
        """We are about to answer a sign of life. `number`: of the answer; `now`: time of day by our clock."""
        self._answers.append((number, now))

    def heard(self, at: float, now: float, answered: int, since: float) -> bool:
        """A sign of life has come.

        Parameters
        ----------
        at : float
            When it was sent, by the peer's clock; time of day.
        now : float
            By ours.
        answered : int
            The number of our last answer that the peer had then; 0: it had none.
        since : float
            How many seconds it had had that answer.

        Returns
        -------
        bool
            Whether `ahead` has changed by more than a little.
        """
        # An answer of an earlier session may have the same number. It was sent earlier: the bound is only wider.
        sent = next((sent for number, sent in reversed(self._answers) if number == answered), float("-inf"))
        self._bounds.append((at - now, at - since - sent))
        if len(self._bounds) < SIGNS:
            return False
        least, largest = max(low for low, _ in self._bounds), min(high for _, high in self._bounds)
        ahead = round(least, 1) if least > TOLERANCE or largest < -TOLERANCE else 0.0
        if abs(ahead - self.ahead) <= TOLERANCE and bool(ahead) == bool(self.ahead):
            return False
        self.ahead = ahead
        return True
