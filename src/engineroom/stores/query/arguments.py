"""The other arguments of queries, checked: keys, sort, limit and skip, percentiles. QueryError says what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...errors import QueryError
from ...records.fields import ALIASES, DEFAULT_KEYS, KEYS
from .nodes import Path

#: [(path, descending), …]
Order = tuple[tuple[Path, bool], ...]
#: Numbers of records are below this: SQLite counts with 64 bits, and adds them.
COUNT_LIMIT = 1 << 62
#: (limit, skip)
Window = tuple[int | None, int]


def nearest(word: Any, known: Iterable[str]) -> str:
    """The end of an error about an unknown word: the nearest known one, or all of them."""
    names = list(known)
    import difflib

    close = difflib.get_close_matches(str(word), names, 1, 0.5)
    if not close:  # MongoDB's operators are in camel case; a slip there is no distance
        close = [name for name in names if name.lower() == str(word).lower()]
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(names)}"


def parse_path(key: Any, top: bool = True) -> Path:
    """A dotted key, split; its first part (`top`) must be a key of records."""
    if not isinstance(key, str):
        raise QueryError(f"a key must be a str, got {key!r}")
    path = tuple(key.split("."))
    if "" in path:
        raise QueryError(f"the key {key!r} has an empty part")
    return (canonical_key(path[0]), *path[1:]) if top else path


def canonical_key(key: Any) -> str:
    """A record's key under its own name, not an alias; for an unknown key, QueryError names the nearest one."""
    if isinstance(key, str):
        if key in KEYS:
            return key
        if key in ALIASES:
            return ALIASES[key]
    raise QueryError(f"unknown key {key!r}{nearest(key, [*KEYS, *ALIASES])}")


def parse_keys(keys: Iterable[str] | str | None) -> list[str]:
    """The keys to return, in the order of a document. `msg_id` is always one; the default is all but bulky keys."""
    if keys is None:
        return list(DEFAULT_KEYS)
    if not isinstance(keys, Iterable):
        raise QueryError(f"keys must be a key or a list of keys, got {keys!r}")
    wanted = {canonical_key(key) for key in ([keys] if isinstance(keys, str) else keys)}
    wanted.add("msg_id")
    return [key for key in KEYS if key in wanted]


def parse_sort(sort: Sequence[tuple[str, int]] | None) -> Order:
    """[(path, descending), …] of a sort given as [(key, 1 or -1), …]."""
    if sort is None:
        return ()
    parsed = []
    if isinstance(sort, str | bytes) or not isinstance(sort, Iterable):
        raise QueryError(f"sort must be a list of (key, 1 or -1), got {sort!r}")
    for item in sort:
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise QueryError(f"sort must be a list of (key, 1 or -1), got {item!r} in it")
        key, direction = item
        if direction not in (1, -1) or isinstance(direction, bool):
            raise QueryError(f"the direction to sort {key!r} in must be 1 or -1, got {direction!r}")
        parsed.append((parse_path(key, top=True), direction == -1))
    return tuple(parsed)


def parse_window(limit: int | None, skip: int) -> Window:
    """`limit` and `skip`, checked."""
    for name, value in ("limit", limit), ("skip", skip):
        if (value is None and name == "limit") or (
            isinstance(value, int) and 0 <= value < COUNT_LIMIT and not isinstance(value, bool)
        ):
            continue
        raise QueryError(f"{name} must be a whole number, 0 or more, got {value!r}")
    return limit, skip


def parse_page_size(limit: int) -> int:
    """How many records a page has at most, checked."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 0 < limit < COUNT_LIMIT:
        raise QueryError(f"a page has 1 record or more, got {limit!r}")
    return limit


def parse_percentiles(percentiles: Sequence[float]) -> tuple[float, ...]:
    """Percentiles, checked: numbers from 0 to 100."""
    if isinstance(percentiles, str | bytes) or not isinstance(percentiles, Iterable):
        raise QueryError(f"percentiles must be a list of numbers from 0 to 100, got {percentiles!r}")
    for number in percentiles:
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 100:
            raise QueryError(f"a percentile is a number from 0 to 100, got {number!r}")
    return tuple(percentiles)
