"""Sequences split into parts, one for each task. The parts of the result are put together in `wire/parts.py`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...wire.parts import join  # noqa: F401 — pickles in old records name it here

#: Types of sequences whose slices are sequences of the same kind, by position.
_SLICED = {list, tuple, range, str, bytes, bytearray}


def as_sequence(items: Any) -> Sequence[Any]:
    """Items as a sequence that `split` can cut: what has no slices by position becomes a list.

    Raises
    ------
    TypeError
        It has no items.
    ValueError
        It is endless.
    """
    check_items(items)
    if isinstance(items, memoryview) and items.ndim != 1:
        try:
            return items.tolist()  # one of several dimensions has no slices
        except NotImplementedError:
            raise TypeError(
                f"a memoryview of format {items.format!r} cannot be split into items: give numpy.asarray(view)"
            ) from None
    if _is_endless(items):
        raise ValueError(f"{items!r:.60} is endless: it cannot be split into parts")
    return items if _has_slices(items) else list(items)


def as_items(items: Any) -> Sequence[Any]:
    """Items as a sequence of what iterating gives: of a data frame the names of its columns.

    Raises
    ------
    TypeError
        It has no items.
    """
    return list(items) if _is_table(items) else as_sequence(items)


def _is_table(items: Any) -> bool:
    """Whether indexing gives something else than iterating: a data frame, or a pandas Series (indexed by labels)."""
    return hasattr(type(items), "iloc") or hasattr(type(items), "columns")


def _has_slices(items: Any) -> bool:
    if type(items) in _SLICED or hasattr(type(items), "iloc"):
        return True
    if isinstance(items, Mapping) or not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        return False
    try:
        return len(items[0:0]) == 0
    except Exception:  # a deque, a pandas groupby, a data set that knows only whole numbers
        return False


def check_items(items: Any) -> None:
    """Raise TypeError if this is no sequence, and no other iterable."""
    is_array_without_items = getattr(items, "ndim", 1) == 0
    if is_array_without_items or not (hasattr(items, "__iter__") or hasattr(items, "__getitem__")):
        raise TypeError(f"a sequence of items is needed, got {items!r:.60} ({type(items).__name__})")


def as_columns(sequences: Iterable[Any], *, whole: bool = False) -> list[Sequence[Any]]:
    """The arguments of a map as sequences of one length: longer ones are cut, and iterators are not read any further.

    Parameters
    ----------
    sequences : iterable
        Any iterables.
    whole : bool
        For functions that get parts of the sequences: a data frame stays one, and is split by rows.

    Raises
    ------
    TypeError
        One of them has no items.
    ValueError
        All of them are endless.
    """
    given = list(sequences)
    for items in given:
        check_items(items)
    as_column = as_sequence if whole else as_items
    sized = {n: as_column(items) for n, items in enumerate(given) if hasattr(items, "__len__")}
    columns: list[Sequence[Any]]
    if sized:
        count = min(map(len, sized.values()))
        columns = [sized[n] if n in sized else list(itertools.islice(items, count)) for n, items in enumerate(given)]
    elif all(map(_is_endless, given)):
        raise ValueError(f"{given[0]!r:.60} is endless, and a map needs all items: imap takes them one by one")
    else:
        rows = list(zip(*given, strict=False))
        columns = [[row[n] for row in rows] for n in range(len(given))]
    count = min(map(len, columns))
    return [column if len(column) == count else _rows(column)[:count] for column in columns]


def _is_endless(items: Any) -> bool:
    if isinstance(items, itertools.repeat):
        try:
            items.__length_hint__()
        except TypeError:
            return True
    return isinstance(items, itertools.count | itertools.cycle)


def _rows(sequence: Sequence[Any]) -> Any:
    """What slices a sequence by position: of a pandas object `iloc`."""
    return sequence.iloc if hasattr(type(sequence), "iloc") else sequence  # type: ignore[attr-defined]


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

    Arrays are split along their first axis, and stay arrays; data frames are split by rows.
    """
    rows = _rows(sequence)
    if dist == "r":
        return [rows[start::count] for start in range(count)]
    if dist != "b":
        raise ValueError(f"dist is 'b' (blocks) or 'r' (round robin), not {dist!r}")
    size, rest = divmod(len(sequence), count)
    bounds = list(itertools.accumulate((size + (part < rest) for part in range(count)), initial=0))
    return [rows[a:b] for a, b in itertools.pairwise(bounds)]
