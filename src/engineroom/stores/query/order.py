"""The order of answers: a sort with MongoDB's order of values, and by submission where the sort leaves ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .match import MISSING, walk
from .nodes import Path
from .values import EMPTY_ARRAY_KEY, NULL_KEY, Key, key_of


def order_key(submitted: float | None, msg_id: str) -> tuple[bool, float, str]:
    """The default order: by submission (unknown times first), then by id."""
    return (submitted is not None, submitted or 0.0, msg_id)


def sort_key(record: Mapping[str, Any], path: Path, descending: bool) -> Key:
    """A record's place in a sort by `path`. An array counts as its least element; descending, as its greatest."""
    top = record.get(path[0], MISSING)
    found = walk(top, path[1:], spread=False) if len(path) > 1 else iter((top,))
    keys: list[Key] = []
    for value in found:
        if isinstance(value, list | tuple):
            keys += [key_of(item) for item in value] or [EMPTY_ARRAY_KEY]
        else:
            keys.append(NULL_KEY if value is MISSING else key_of(value))
    if not keys:
        return NULL_KEY
    return max(keys) if descending else min(keys)


def sort_rows(rows: list[tuple[Any, ...]], order: Sequence[tuple[Path, bool]], times: Sequence[str]) -> None:
    """Sort rows of (number, some times in seconds, …, record). Seconds hold more digits than a record's datetimes."""
    for path, descending in reversed(order):
        if len(path) == 1 and path[0] in times:
            place = 1 + times.index(path[0])
            rows.sort(key=lambda row, n=place: (row[n] is not None, row[n] or 0.0), reverse=descending)  # type: ignore[misc]
        else:
            rows.sort(key=lambda row, p=path, d=descending: sort_key(row[-1], p, d), reverse=descending)  # type: ignore[misc]
