"""Where FerretDB answers otherwise than MongoDB, by name: the judge is not asked about these.

MongoDB's own test suite and manual say what is right; docs/records.md has the list in words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
Sort = Sequence[tuple[str, int]] | None


def can_hold(value: Any, inside: bool = False) -> bool:
    """Whether FerretDB stores a value: it refuses NaN, infinities, and arrays in arrays."""
    if isinstance(value, list):
        return not inside and all(can_hold(item, True) for item in value)
    if isinstance(value, dict):
        return all(can_hold(item) for item in value.values())
    return not isinstance(value, float) or math.isfinite(value)


def conditions(query: Any) -> Iterator[tuple[str, Any]]:
    """(key, condition) of all fields in a query."""
    for key, value in query.items():
        if key.startswith("$"):
            for part in value:
                yield from conditions(part)
        else:
            yield key, value


def operators(condition: Any) -> Iterator[tuple[str, Any]]:
    """(operator, argument) of a condition, those inside $not and $elemMatch too; equality is $eq."""
    if not isinstance(condition, dict) or not any(name.startswith("$") for name in condition):
        yield "$eq", condition
        return
    for name, argument in condition.items():
        yield name, argument
        if name in ("$not", "$elemMatch") and isinstance(argument, dict):
            yield from operators(argument)


def _nested(value: Any, wanted: Callable[[Any], bool]) -> bool:
    if wanted(value):
        return True
    if isinstance(value, dict):
        return any(_nested(item, wanted) for item in value.values())
    return isinstance(value, list) and any(_nested(item, wanted) for item in value)


def _through_array(key: str, records: Sequence[Record]) -> bool:
    """Whether a key leads through an array in some record."""
    first, *rest = key.split(".")
    first = {"error": "pyerr"}.get(first, first)
    for record in records:
        value = record.get(first)
        for name in rest:
            if isinstance(value, list):
                return True
            value = value.get(name) if isinstance(value, dict) else None
    return False


def _has_array(key: str, records: Sequence[Record]) -> bool:
    first, *rest = key.split(".")
    first = {"error": "pyerr"}.get(first, first)
    for record in records:
        value = record.get(first)
        for name in rest:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, list):
            return True
    return False


def elem_match(query: Any, sort: Sort, records: Sequence[Record]) -> bool:
    """$elemMatch asks the array, not each element; with $not, $ne, $and, $or, $nor it is "not implemented"."""
    return any(name == "$elemMatch" for _, c in conditions(query) for name, _ in operators(c)) or "$elemMatch" in repr(
        query
    )


def type_of_arrays(query: Any, sort: Sort, records: Sequence[Record]) -> bool:
    """$type: "number" is "not implemented"; in a list of types, and of arrays, types are not found."""
    return any(
        name == "$type" and (isinstance(argument, list) or argument in ("number", "array"))
        for _, c in conditions(query)
        for name, argument in operators(c)
    )


def documents_and_null_in_lists(query: Any, sort: Sort, records: Sequence[Record]) -> bool:
    """$all never matches a dict or a pattern; $in and $all do not find an empty dict, or null among absent keys."""
    return any(
        (name in ("$in", "$nin", "$all") and _nested(argument, lambda v: isinstance(v, dict) or v is None))
        or (name == "$all" and _nested(argument, lambda v: isinstance(v, re.Pattern)))
        for _, c in conditions(query)
        for name, argument in operators(c)
    )


def paths_through_arrays(query: Any, sort: Sort, records: Sequence[Record]) -> bool:
    """A key that leads through an array: what is absent in an element, and indexes, are understood otherwise."""
    return any(
        _through_array(key, records) and (_may_be_absent(c) or any(name.isdecimal() for name in key.split(".")))
        for key, c in conditions(query)
    )


def _may_be_absent(condition: Any) -> bool:
    return any(
        name in ("$ne", "$nin", "$not", "$exists", "$size", "$all") or _nested(argument, lambda v: v is None)
        for name, argument in operators(condition)
    )


def arithmetic_in_arrays(query: Any, sort: Sort, records: Sequence[Record]) -> bool:
    """$mod does not look into arrays; a dict is not found as an element of one."""
    return any(
        (_has_array(key, records) or _through_array(key, records))
        and any(name == "$mod" or isinstance(argument, dict) for name, argument in operators(c))
        for key, c in conditions(query)
    )


def sorts_of_arrays(query: Any, sort: Sort, records: Sequence[Record]) -> bool:
    """Sorting by a key that holds arrays, or leads through them, or by dicts."""
    return any(_through_array(key, records) or _has_array(key, records) for key, _ in sort or ())


NAMED: dict[str, Callable[[Any, Sort, Sequence[Record]], bool]] = {
    "elemMatch": elem_match,
    "types of arrays": type_of_arrays,
    "dicts and null in lists": documents_and_null_in_lists,
    "paths through arrays": paths_through_arrays,
    "arithmetic in arrays": arithmetic_in_arrays,
    "sorts of arrays": sorts_of_arrays,
}


def differs(query: Any, sort: Sort, records: Sequence[Record]) -> str | None:
    """The name of the difference that a question may run into."""
    return next((name for name, holds in NAMED.items() if holds(query, sort, records)), None)
