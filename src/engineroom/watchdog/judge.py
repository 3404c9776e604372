"""Decides whether a loop hangs. There is no thread and no clock here."""

from __future__ import annotations


class Judge:
    """Decides whether a loop hangs, from looks at the count of its turns. `limit`: seconds without a turn."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._turns, self._since, self._looked = -1, 0.0, 0.0
        #: whether it was said that the loop hangs
        self.is_hanging = False

    def look(self, turns: int, now: float) -> float | None:
        """Look at the count of turns; 0: the loop has not begun, or need not turn.

        Returns seconds without a turn, once when the loop hangs and once when it has gone on; else None. `is_hanging`
        says which.
        """
        gap, self._looked = now - self._looked, now
        without = now - self._since
        if turns != self._turns:
            self._turns, self._since = turns, now
            if self.is_hanging:
                self.is_hanging = False
                return without
        elif gap > self._limit / 2 and not self.is_hanging:
            self._since = now  # nobody looked meanwhile: the whole process stood still
        elif turns and without >= self._limit and not self.is_hanging:
            self.is_hanging = True
            return without
        return None
