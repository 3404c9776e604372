"""The msg_ids that a client has made, kept as numbers.

A msg_id is the uuid of the client's session and a number. A history keeps the numbers only: 8 bytes for each task, and
no object that the garbage collector visits. A million tasks slow a client down by nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, overload

from ...ids import ClientId, TaskId


class History(Sequence[TaskId]):
    """msg_ids of one client, in the order in which they were added. It reads like a list of str.

    Several threads may add at the same time: each change is one operation of an array.
    """

    __slots__ = ("_numbers", "_prefix", "add_number")

    #: Add the msg_id that has this number: the hot path.
    add_number: Callable[[int], None]

    def __init__(self, session: ClientId, numbers: Iterable[int] = ()) -> None:
        self._prefix = f"{session}-"
        self._numbers = array("q", numbers)  # changed in place, always: `add_number` is bound to it
        self.add_number = self._numbers.append

    def append(self, id: TaskId) -> None:
        """Add a msg_id of this client."""
        self.add_number(int(id[len(self._prefix) :]))

    def extend(self, ids: Iterable[TaskId]) -> None:
        """Add msg_ids of this client."""
        skip = len(self._prefix)
        self._numbers.extend(array("q", [int(id[skip:]) for id in ids]))

    def forget(self, ids: Collection[TaskId]) -> None:
        """Remove msg_ids. Those of other clients are ignored."""
        gone = {number for id in ids if (number := self.number_of(id)) is not None}
        before = len(self._numbers)  # what is added meanwhile stays
        self._numbers[:before] = array("q", [number for number in self._numbers[:before] if number not in gone])

    def clear(self) -> None:
        """Remove all msg_ids."""
        del self._numbers[:]

    def copy(self) -> History:
        """The msg_ids at this moment."""
        return History(ClientId(self._prefix[:-1]), self._numbers)

    def among(self, ids: Iterable[TaskId]) -> set[TaskId]:
        """Those of some msg_ids that are in here: quicker than to look for each."""
        found = {number: id for id in ids if (number := self.number_of(id)) is not None}
        return {found[number] for number in found.keys() & self._numbers}

    def number_of(self, id: object) -> int | None:
        """The number in a msg_id; None: this client has not made it."""
        if not isinstance(id, str) or not id.startswith(self._prefix):
            return None
        digits = id[len(self._prefix) :]
        return int(digits) if digits.isdecimal() and digits.isascii() else None

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, key: int) -> TaskId: ...
    @overload
    def __getitem__(self, key: slice) -> list[TaskId]: ...
    def __getitem__(self, key: int | slice) -> TaskId | list[TaskId]:
        prefix = self._prefix
        if isinstance(key, slice):
            return [TaskId(prefix + str(number)) for number in self._numbers[key]]
        return TaskId(prefix + str(self._numbers[key]))

    def __iter__(self) -> Iterator[TaskId]:
        """The msg_ids at this moment: those that are added meanwhile are left out."""
        prefix = self._prefix
        return iter([TaskId(prefix + str(number)) for number in self._numbers])

    def __contains__(self, id: object) -> bool:
        return (number := self.number_of(id)) is not None and number in self._numbers

    def index(self, id: Any, start: int = 0, stop: int | None = None) -> int:
        """Where a msg_id is. Raises ValueError if it is not in here."""
        number = self.number_of(id)
        if number is None:
            raise ValueError(f"{id!r} is not in this history")
        return self._numbers.index(number, start, len(self) if stop is None else stop)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, History):
            return self._prefix == other._prefix and self._numbers == other._numbers
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
    """Which tasks of a client have a mark: one byte for each task up to the last marked one."""

    __slots__ = ("_marks", "_session")

    def __init__(self, history: History) -> None:
        self._session = history
        self._marks = bytearray()

    def add(self, ids: Iterable[TaskId]) -> None:
        """Mark tasks of this client."""
        marks = self._marks
        for id in ids:
            number = self._session.number_of(id)
            assert number is not None
            if number >= len(marks):
                marks.extend(bytes(number + 1 - len(marks)))
            marks[number] = 1

    def __contains__(self, id: object) -> bool:
        number = self._session.number_of(id)
        return number is not None and number < len(self._marks) and self._marks[number] == 1
