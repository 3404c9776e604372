"""Whole numbers in the order in which they were added. A run of numbers in a row takes 16 bytes, however long it is."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator


class Runs:
    """For one thread at a time."""

    __slots__ = ("_count", "_is_rising", "_places", "_starts")

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        #: of each run the first number, and how many numbers are before it
        self._starts, self._places = array("q"), array("q")
        self._count = 0
        #: whether each run begins above the one before
        self._is_rising = True
        self.extend(numbers)

    def extend(self, numbers: Iterable[int]) -> None:
        """Add numbers."""
        starts, places, count = self._starts, self._places, self._count
        due = starts[-1] + count - places[-1] if starts else None
        for number in numbers:
            if number != due:
                self._is_rising = self._is_rising and (due is None or number >= due)
                starts.append(number)
                places.append(count)
            due = number + 1
            count += 1
        self._count = count

    def copy(self) -> Runs:
        """The same numbers."""
        made = Runs()
        made._starts, made._places = self._starts[:], self._places[:]
        made._count, made._is_rising = self._count, self._is_rising
        return made

    def among(self, numbers: Iterable[int]) -> set[int]:
        """Those of some numbers that are in here."""
        if self._is_rising:
            return set(filter(self._has, numbers))
        return set(numbers).intersection(self)

    def _has(self, number: int) -> bool:
        place = bisect_right(self._starts, number) - 1
        return place >= 0 and number < self._starts[place] + self._length(place)

    def _length(self, place: int) -> int:
        end = self._places[place + 1] if place + 1 < len(self._places) else self._count
        return end - self._places[place]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> int:
        """`index`: from 0 on."""
        place = bisect_right(self._places, index) - 1
        return self._starts[place] + index - self._places[place]

    def __iter__(self) -> Iterator[int]:
        for place, start in enumerate(self._starts):
            yield from range(start, start + self._length(place))
