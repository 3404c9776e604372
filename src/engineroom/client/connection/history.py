"""The msg_ids that a client has made, kept as numbers.

A msg_id is the uuid of the client's session and a number. A history keeps the numbers only, and of numbers in a row the
first: a client that has submitted a million tasks has neither objects that the garbage collector visits, nor memory
that grows with each task.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, overload

from ...ids import ClientId, TaskId
from .runs import Runs

#: Larger numbers no client has.
MOST_DIGITS = 18
#: So many numbers are kept one by one, before they are put together.
RECENT = 4096


class History(Sequence[TaskId]):
    """msg_ids of one client, in the order in which they were added. It reads like a list of str.

    Several threads may add at the same time: each adds by one operation of an array.
    """

    __slots__ = ("_lock", "_older", "_prefix", "_recent", "add_number")

    #: Add the msg_id that has this number: the hot path. Call `tidy` once in a while.
    add_number: Callable[[int], None]

    def __init__(self, session: ClientId, numbers: Iterable[int] = ()) -> None:
        self._prefix = f"{session}-"
        #: for all that is not adding
        self._lock = threading.Lock()
        self._older = Runs(numbers)
        self._recent = array("q")  # changed in place, always: `add_number` is bound to it
        self.add_number = self._recent.append

    def append(self, id: TaskId) -> None:
        """Add a msg_id of this client."""
        self.add_number(int(id[len(self._prefix) :]))
        self.tidy()

    def extend(self, ids: Iterable[TaskId]) -> None:
        """Add msg_ids of this client."""
        skip = len(self._prefix)
        self._recent.extend(array("q", [int(id[skip:]) for id in ids]))
        self.tidy()

    def tidy(self) -> None:
        """Put the latest numbers together, if they are many."""
        if len(self._recent) >= RECENT:
            with self._lock:
                numbers = self._recent[:]  # what is added meanwhile stays
                self._older.extend(numbers)
                del self._recent[: len(numbers)]

    def forget(self, ids: Collection[TaskId]) -> None:
        """Remove msg_ids. Those of other clients are ignored."""
        gone = {number for id in ids if (number := self.number_of(id)) is not None}
        with self._lock:
            numbers = self._recent[:]
            self._older = Runs(number for kept in (self._older, numbers) for number in kept if number not in gone)
            del self._recent[: len(numbers)]

    def clear(self) -> None:
        """Remove all msg_ids."""
        with self._lock:
            self._older = Runs()
            del self._recent[:]

    def copy(self) -> History:
        """The msg_ids at this moment."""
        made = History(ClientId(self._prefix[:-1]))
        with self._lock:
            made._older = self._older.copy()
            made._recent.extend(self._recent)
        return made

    def among(self, ids: Iterable[TaskId]) -> set[TaskId]:
        """Those of some msg_ids that are in here: quicker than to look for each."""
        found = {number: id for id in ids if (number := self.number_of(id)) is not None}
        with self._lock:
            here = self._older.among(found).union(found.keys() & self._recent)
        return {found[number] for number in here}

    def number_of(self, id: object) -> int | None:
        """The number in a msg_id; None: this client has not made it."""
        if not isinstance(id, str) or not id.startswith(self._prefix):
            return None
        digits = id[len(self._prefix) :]
        if not (digits.isdecimal() and digits.isascii()) or len(digits) > MOST_DIGITS or digits != str(int(digits)):
            return None
        return int(digits)

    def _numbers(self) -> list[int]:
        with self._lock:
            return [*self._older, *self._recent]

    def __len__(self) -> int:
        with self._lock:
            return len(self._older) + len(self._recent)

    @overload
    def __getitem__(self, key: int) -> TaskId: ...
    @overload
    def __getitem__(self, key: slice) -> list[TaskId]: ...
    def __getitem__(self, key: int | slice) -> TaskId | list[TaskId]:
        with self._lock:
            older, recent = self._older, self._recent
            count = len(older) + len(recent)
            if not isinstance(key, slice) and not -count <= key < count:
                raise IndexError(f"this history has {count:,} tasks; there is no number {key}")
            places = range(count)[key]
            chosen = [places] if isinstance(places, int) else places
            numbers = [older[i] if i < len(older) else recent[i - len(older)] for i in chosen]
        ids = [TaskId(self._prefix + str(number)) for number in numbers]
        return ids if isinstance(key, slice) else ids[0]

    def __iter__(self) -> Iterator[TaskId]:
        """The msg_ids at this moment: those that are added meanwhile are left out."""
        prefix = self._prefix
        return iter([TaskId(prefix + str(number)) for number in self._numbers()])

    def __contains__(self, id: object) -> bool:
        return bool(self.among([id]))  # type: ignore[list-item]  # what is no msg_id is not in here

    def index(self, id: Any, start: int = 0, stop: int | None = None) -> int:
        """Where a msg_id is. Raises ValueError if it is not in here."""
        number = self.number_of(id)
        if number is None:
            raise ValueError(f"{id!r} is not in this history")
        numbers = self._numbers()
        try:
            return numbers.index(number, start, len(numbers) if stop is None else stop)
        except ValueError:
            raise ValueError(f"{id!r} is not in this part of the history") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return History, (ClientId(self._prefix[:-1]), self._numbers())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, History):
            return self._prefix == other._prefix and self._numbers() == other._numbers()
        return list(self) == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # like a list: it changes

    def __add__(self, other: Iterable[TaskId]) -> list[TaskId]:
        return [*self, *other]

    def __radd__(self, other: Iterable[TaskId]) -> list[TaskId]:
        return [*other, *self]

    def __iadd__(self, ids: Iterable[TaskId]) -> History:
        self.extend(ids)
        return self

    def __repr__(self) -> str:
        return repr(list(self))


class Marks:
    """Which tasks of a client have a mark: one bit for each task up to the last marked one."""

    __slots__ = ("_lock", "_marks", "_session")

    def __init__(self, history: History) -> None:
        self._session = history
        self._lock = threading.Lock()
        self._marks = bytearray()

    def add(self, ids: Iterable[TaskId]) -> None:
        """Mark tasks of this client."""
        numbers = [number for id in ids if (number := self._session.number_of(id)) is not None]
        with self._lock:
            marks = self._marks
            for number in numbers:
                if number >> 3 >= len(marks):
                    marks.extend(bytes((number >> 3) + 1 - len(marks)))
                marks[number >> 3] |= 1 << (number & 7)

    def __contains__(self, id: object) -> bool:
        number, marks = self._session.number_of(id), self._marks
        return number is not None and number >> 3 < len(marks) and bool(marks[number >> 3] & 1 << (number & 7))
