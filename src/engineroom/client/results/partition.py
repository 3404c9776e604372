"""Sequences split into parts, one for each task. The parts of the result are put together in `wire/parts.py`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...wire.parts import join  # noqa: F401 — pickles in old records name it here


def as_sequence(items: Any) -> Sequence[Any]:
    """Items as a sequence: an iterator becomes a list. Raises TypeError if it has no items."""
    check_items(items)
    if hasattr(items, "__len__") and hasattr(items, "__getitem__") and not isinstance(items, Mapping):
        return items  # type: ignore[no-any-return]
    return list(items)


def check_items(items: Any) -> None:
    """Raise TypeError if this is no sequence, and no other iterable."""
    is_array_without_items = getattr(items, "ndim", 1) == 0
    if is_array_without_items or not (hasattr(items, "__iter__") or hasattr(items, "__getitem__")):
        raise TypeError(f"a sequence of items is needed, got {items!r:.60} ({type(items).__name__})")


def as_columns(sequences: Iterable[Any]) -> list[Sequence[Any]]:
    """The arguments of a map as sequences of one length: iterators become lists, longer ones are cut.

    Raises
    ------
    TypeError
        One of them has no items.
    """
    columns = [as_sequence(s) for s in sequences]
    count = min(map(len, columns))
    return [column if len(column) == count else column[:count] for column in columns]


def unchanging(columns: Sequence[Sequence[Any]]) -> list[Sequence[Any]] | None:
    """Copies of columns, of which nothing can change later; None if an item of them can."""
    copies: list[Sequence[Any]] = []
    for column in columns:
        kind = type(column)
        if kind is range or kind is str or kind is bytes:
            copies.append(column)
        elif kind is list or kind is tuple:
            if not _are_constant(column):
                return None
            copies.append(list(column))
        elif hasattr(column, "dtype") and not getattr(column.dtype, "hasobject", True) and hasattr(column, "copy"):
            copies.append(column.copy())
        else:
            return None
    return copies


#: Types of values that cannot change.
_CONSTANTS = {int, float, complex, bool, str, bytes, type(None), range}


def _are_constant(values: Sequence[Any], depth: int = 3) -> bool:
    if _CONSTANTS.issuperset(map(type, values)):
        return True
    return depth > 0 and all(
        type(value) in _CONSTANTS or (type(value) is tuple and _are_constant(value, depth - 1)) for value in values
    )


def split(sequence: Sequence[Any], count: int, dist: str) -> list[Sequence[Any]]:
    """Split into `count` parts: "b" contiguous blocks whose sizes differ by at most one, "r" round robin.

    Arrays are split along their first axis, and stay arrays.
    """
    if dist == "r":
        return [sequence[start::count] for start in range(count)]
    if dist != "b":
        raise ValueError(f"dist is 'b' (blocks) or 'r' (round robin), not {dist!r}")
    size, rest = divmod(len(sequence), count)
    bounds = list(itertools.accumulate((size + (part < rest) for part in range(count)), initial=0))
    return [sequence[a:b] for a, b in itertools.pairwise(bounds)]
