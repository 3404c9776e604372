"""What is due when: a heap of calls, each with its time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Any

#: A heap with fewer entries than this is not searched for entries that are out of date.
PRUNE_ABOVE = 1024


class Deadlines:
    """Calls to be made at certain times. Times are in seconds since the epoch."""

    def __init__(self, is_void: Callable[[Any], bool]) -> None:
        """`is_void(subject)`: whether a call on this subject would do nothing any more."""
        self._is_void = is_void
        self._heap: list[tuple[float, int, Callable[..., None], Any]] = []
        self._count = 0
        self._prune_at = PRUNE_ABOVE

    def add(self, when: float, due: Callable[..., None], subject: Any) -> None:
        """Have `due` called about this subject at this time."""
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, due, subject))
        if len(self._heap) > self._prune_at:
            self._heap = [entry for entry in self._heap if not self._is_void(entry[3])]
            heapq.heapify(self._heap)
            self._prune_at = max(PRUNE_ABOVE, 2 * len(self._heap))

    @property
    def next(self) -> float | None:
        """When the next call is due; None: never."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[tuple[Callable[..., None], Any]]:
        """The calls that are due, and their subjects. Each is removed before the next is looked at."""
        while self._heap and self._heap[0][0] <= now:
            _, _, due, subject = heapq.heappop(self._heap)
            yield due, subject
