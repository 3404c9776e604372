"""Engines that are expected in the place of others: who has started a nanny mostly starts it again if it was killed."""

from __future__ import annotations

from collections import deque

#: Seconds after which nobody starts it again: `er.Cluster` and `ipcluster` do so within half a second.
EXPECTED_SECONDS = 3.0


class Successors:
    """Counts the engines of nannies that were killed and may be started again."""

    def __init__(self) -> None:
        #: for each of these nannies, the earliest first: its engines, and until when they are expected
        self._expected: deque[tuple[int, float]] = deque()

    @property
    def count(self) -> int:
        """How many engines are expected."""
        return sum(engines for engines, _ in self._expected)

    def killed(self, engines: int, now: float) -> None:
        """A nanny with so many engines was killed."""
        self._expected.append((engines, now + EXPECTED_SECONDS))

    def came(self) -> None:
        """Another nanny is about to start engines."""
        if self._expected:
            self._expected.popleft()

    def give_up(self, now: float) -> bool:
        """Expect those no more that have not come. Returns whether there were some."""
        before = len(self._expected)
        while self._expected and self._expected[0][1] <= now:
            self._expected.popleft()
        return len(self._expected) < before
