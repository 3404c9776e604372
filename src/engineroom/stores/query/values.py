"""How values compare: MongoDB's types, their order, and equality.

Every value maps to a *key*: a tuple that begins with the rank of its type, so that keys of any two values can
be compared, and equal values have equal keys (1 and 1.0; dicts only with their fields in the same order).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ...messages.bounds import MOST_LEVELS

#: Ranks of the types, in MongoDB's order of comparison.
UNDEFINED, NULL, NUMBER, STRING, OBJECT, ARRAY, BINARY, BOOL, DATE, REGEX = 0, 5, 10, 15, 20, 25, 30, 40, 45, 50

Key = tuple[Any, ...]
NULL_KEY: Key = (NULL,)
#: an empty array sorts before everything else
EMPTY_ARRAY_KEY: Key = (UNDEFINED,)

_RANKS: dict[type, int] = {
    type(None): NULL, bool: BOOL, int: NUMBER, float: NUMBER, str: STRING, bytes: BINARY, bytearray: BINARY,
    memoryview: BINARY, dict: OBJECT, list: ARRAY, tuple: ARRAY, datetime: DATE, re.Pattern: REGEX,
}  # fmt: skip
#: types that MongoDB does not have come after all others
OTHER = 100


def rank(value: Any) -> int:
    """The rank of a value's type."""
    found = _RANKS.get(value.__class__)
    if found is not None:
        return found
    return next((_RANKS[base] for base in value.__class__.__mro__ if base in _RANKS), OTHER)


def in_utc(moment: datetime) -> datetime:
    """The instant, in UTC; naive means local time."""
    if moment.tzinfo is UTC:
        return moment
    return moment.astimezone(UTC)


def key_of(value: Any) -> Key:
    """The value's place in MongoDB's total order."""
    kind = rank(value)
    if kind == STRING:
        return (STRING, value)
    if kind == NUMBER:  # NaN equals itself and comes before all other numbers
        return (NUMBER, 1, value) if value == value else (NUMBER, 0)
    if kind == NULL:
        return NULL_KEY
    if kind == OBJECT:
        return (OBJECT, tuple([(rank(v), str(k), key_of(v)) for k, v in value.items()]))
    if kind == ARRAY:
        return (ARRAY, tuple([key_of(v) for v in value]))
    if kind == DATE:
        return (DATE, in_utc(value))
    if kind == BINARY:
        return (BINARY, len(value), bytes(value))
    if kind == REGEX:
        return (REGEX, str(value.pattern), value.flags)
    return (kind, value) if kind == BOOL else (OTHER, repr(value))


def seconds_of(moment: datetime) -> tuple[float, float]:
    """The least and the greatest number of seconds that are this instant when rounded to a datetime.

    A datetime has microseconds, a float of this century about a quarter of one: several floats are one datetime.
    """
    return _edge(moment, -math.inf), _edge(moment, math.inf)


def _edge(moment: datetime, toward: float) -> float:
    """The last number of seconds in one direction that is this instant. Halving finds it: near the epoch, where floats
    are dense, there are billions of billions in a microsecond.
    """
    inside = moment.timestamp()
    outside = inside + math.copysign(max(2e-6, 2 * math.ulp(inside)), toward)
    while (middle := inside + (outside - inside) / 2) not in (inside, outside):
        if _is_at(middle, moment):
            inside = middle
        else:
            outside = middle
    return inside


def _is_at(seconds: float, moment: datetime) -> bool:
    try:
        return datetime.fromtimestamp(seconds, UTC) == moment
    except (ValueError, OverflowError, OSError):  # beyond the end of the calendar
        return False


#: $type's names → codes
TYPE_CODES: dict[str, int] = {
    "double": 1, "string": 2, "object": 3, "array": 4, "binData": 5, "undefined": 6, "objectId": 7, "bool": 8,
    "date": 9, "null": 10, "regex": 11, "dbPointer": 12, "javascript": 13, "symbol": 14, "javascriptWithScope": 15,
    "int": 16, "timestamp": 17, "long": 18, "decimal": 19, "minKey": -1, "maxKey": 127,
}  # fmt: skip

_CODE_OF_RANK = {STRING: 2, OBJECT: 3, ARRAY: 4, BINARY: 5, BOOL: 8, DATE: 9, NULL: 10, REGEX: 11}


def type_code(value: Any) -> int:
    """The code of a value's BSON type; an int is "int" where 32 bits hold it, else "long"."""
    if rank(value) == NUMBER:
        if isinstance(value, float):
            return 1
        return 16 if -(1 << 31) <= value < 1 << 31 else 18
    return _CODE_OF_RANK.get(rank(value), 0)


def plain(value: Any, where: str, error: type[Exception], levels: int = MOST_LEVELS) -> Any:
    """A deep copy made of what a record may hold: None, bool, int, float, str, bytes, datetime (UTC), list, dict.

    `error` is raised for anything else, and for more than so many levels of lists and dicts. It names `where` that was.
    """
    if levels < 0:
        raise error(f"{where:.60}… is nested more than {MOST_LEVELS} levels deep")
    kind = rank(value)
    if kind in (NULL, BOOL, STRING):
        return value
    if kind == NUMBER:
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise error(f"{where}: {value} does not fit in 64 bits")
        return value
    if kind == ARRAY:
        return [plain(item, where, error, levels - 1) for item in value]
    if kind == OBJECT or isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise error(f"{where}: the keys of a dict must be str, got {name!r}")
        return {name: plain(item, f"{where}.{name}", error, levels - 1) for name, item in value.items()}
    if kind == DATE:
        try:
            return in_utc(value)
        except (ValueError, OverflowError, OSError) as problem:
            raise error(f"{where}: {value!r} is not an instant ({problem})") from None
    if kind == BINARY:
        return bytes(value)
    raise error(f"{where}: a value of type {type(value).__name__} has no place in a record")
