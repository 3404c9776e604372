"""Queries: MongoDB's query dicts, parsed once into typed nodes (`nodes.py`).

This is the only parser. It knows no backend. A backend that can answer part of a query by itself (an index, a server)
translates nodes, and its answer must be what `match.compile` says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import QueryError
from .arguments import nearest, parse_path
from .nodes import (
    AllOf,
    And,
    Compare,
    ElemMatch,
    Eq,
    Exists,
    Field,
    Glob,
    In,
    Mod,
    Never,
    Nor,
    Not,
    Or,
    Path,
    Query,
    Regex,
    Size,
    Test,
    Type,
)
from .patterns import LETTERS, check_length, compiled, glob_regex
from .values import TYPE_CODES, plain

MAX_DEPTH = 50  #: nesting of a query
MAX_LIST = 200_000  #: items of a list


def parse(query: Mapping[str, Any]) -> Query:
    """Parse a query dict, or raise QueryError.

    >>> parse({"engine_id": {"$in": [1, 2]}, "completed": None})
    """
    return _parse_query(query, top=True, depth=0)


def _parse_query(query: Any, top: bool, depth: int) -> Query:
    if not isinstance(query, Mapping):
        raise QueryError(f"a query must be a dict, got {query!r}")
    if depth > MAX_DEPTH:
        raise QueryError(f"the query is nested more than {MAX_DEPTH} levels deep")
    parts: list[Query] = []
    for key, value in query.items():
        if isinstance(key, str) and key.startswith("$"):
            join = _JOINS.get(key)
            if join is None:
                hint = f"; {key} belongs inside {{key: {{{key!r}: …}}}}" if key in _OPERATORS else nearest(key, _JOINS)
                raise QueryError(f"unknown operator {key!r} at the top of a query{hint}")
            if not isinstance(value, list | tuple) or not value:
                raise QueryError(f"{key} takes a list of one or more queries, got {value!r}")
            parts.append(join(tuple(_parse_query(part, top, depth + 1) for part in value)))
        else:
            path = parse_path(key, top)
            tests = parse_condition(".".join(path), value, depth)
            parts += [Field(path, test) for test in tests]
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _or(parts: tuple[Query, ...]) -> Query:
    """Any of these. Parts that compare the same key with single values become one list, which an index can serve."""
    equal: dict[Path, list[Any]] = {}
    others: list[Query] = []
    for part in parts:
        if isinstance(part, Field) and isinstance(part.test, Eq):
            equal.setdefault(part.path, []).append(part.test.value)
        else:
            others.append(part)
    joined: list[Query] = [
        Field(path, In(tuple(values)) if len(values) > 1 else Eq(values[0])) for path, values in equal.items()
    ]
    return Or((*joined, *others))


_JOINS: dict[str, Callable[[tuple[Query, ...]], Query]] = {"$and": And, "$or": _or, "$nor": Nor}


def _is_operators(value: Any, key: str) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    marked = [isinstance(name, str) and name.startswith("$") for name in value]
    if any(marked) and not all(marked):
        raise QueryError(f"{key}: {value!r} mixes operators and plain keys")
    return all(marked)


def parse_condition(key: str, value: Any, depth: int = 0) -> list[Test]:
    """The tests of `{key: value}`, which must all be passed."""
    if not _is_operators(value, key):
        if isinstance(value, re.Pattern):
            return [_parse_regex(key, value, None)]
        return [Eq(_literal(value, key))]
    return _parse_operators(key, value, depth)


def _parse_operators(key: str, operators: Mapping[str, Any], depth: int) -> list[Test]:
    if depth > MAX_DEPTH:
        raise QueryError(f"the query is nested more than {MAX_DEPTH} levels deep")
    tests: list[Test] = []
    for name, argument in operators.items():
        if name == "$options":
            if "$regex" not in operators:
                raise QueryError(f"{key}: $options needs a $regex beside it")
        elif name == "$regex":
            tests.append(_parse_regex(key, argument, operators.get("$options")))
        elif name in _OPERATORS:
            tests.append(_OPERATORS[name](f"{key}: {name}", argument, depth))
        else:
            raise QueryError(f"{key}: unknown operator {name!r}{nearest(name, [*_OPERATORS, '$regex', '$options'])}")
    return tests


def _literal(value: Any, where: str) -> Any:
    return _no_operators(plain(value, where, QueryError), where)


def _no_operators(value: Any, where: str) -> Any:
    """Refuse operators deep in a literal: they would be compared as names, and match nothing, which nobody wants."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name.startswith("$"):
                raise QueryError(
                    f"{where}: the operator {name!r} stands inside a literal value; to look inside a "
                    "dict, write a dotted key: {'header.label': {…}}"
                )
            _no_operators(item, where)
    elif isinstance(value, list):
        for item in value:
            _no_operators(item, where)
    return value


def _list(where: str, argument: Any) -> Sequence[Any]:
    if isinstance(argument, list | tuple):
        if len(argument) > MAX_LIST:
            raise QueryError(f"{where} has a list of {len(argument)} items; at most {MAX_LIST} are allowed")
        return argument
    raise QueryError(f"{where} takes a list, got {argument!r}")


def _whole(value: Any) -> int | None:
    """A value as a whole number; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if math.isfinite(value) and int(value) == value else None


def _eq(where: str, argument: Any, depth: int) -> Test:
    if isinstance(argument, re.Pattern):
        return _parse_regex(where, argument, None)
    return Eq(_literal(argument, where))


def _compare(op: str) -> Callable[[str, Any, int], Test]:
    def parse_compare(where: str, argument: Any, depth: int) -> Test:
        if isinstance(argument, re.Pattern):
            raise QueryError(f"{where} cannot compare with a regular expression")
        return Compare(op, _literal(argument, where))

    return parse_compare


def _in(where: str, argument: Any, depth: int) -> Test:
    items = _list(where, argument)
    patterns = tuple(_parse_regex(where, item, None) for item in items if isinstance(item, re.Pattern))
    return In(tuple(_literal(item, where) for item in items if not isinstance(item, re.Pattern)), patterns)


def _all(where: str, argument: Any, depth: int) -> Test:
    tests: list[Test] = []
    for item in _list(where, argument):
        if isinstance(item, Mapping) and "$elemMatch" in item and len(item) == 1:
            tests.append(_elem_match(where, item["$elemMatch"], depth + 1))
        else:
            tests.append(_eq(where, item, depth))
    return AllOf(tuple(tests)) if tests else Never()


def _mod(where: str, argument: Any, depth: int) -> Test:
    numbers = _list(where, argument)
    if len(numbers) != 2 or any(
        isinstance(n, bool) or not isinstance(n, int | float) or not math.isfinite(n) for n in numbers
    ):
        raise QueryError(f"{where} takes [divisor, remainder], got {argument!r}")
    divisor, remainder = (int(n) for n in numbers)
    if divisor == 0:
        raise QueryError(f"{where}: the divisor cannot be 0")
    return Mod(divisor, remainder)


def _exists(where: str, argument: Any, depth: int) -> Test:
    if not isinstance(argument, bool | int):
        raise QueryError(f"{where} takes True or False, got {argument!r}")
    return Exists() if argument else Not(Exists())


def _size(where: str, argument: Any, depth: int) -> Test:
    length = _whole(argument)
    if length is None or length < 0:
        raise QueryError(f"{where} takes a whole number, 0 or more, got {argument!r}")
    return Size(length)


def _type(where: str, argument: Any, depth: int) -> Test:
    codes: set[int] = set()
    wanted = argument if isinstance(argument, list | tuple) else [argument]
    if not wanted:
        raise QueryError(f"{where} takes one or more types, got none")
    for item in wanted:
        if item == "number":
            codes |= {1, 16, 18, 19}
        elif isinstance(item, str) and item in TYPE_CODES:
            codes.add(TYPE_CODES[item])
        elif _whole(item) in TYPE_CODES.values():
            codes.add(int(item))
        else:
            raise QueryError(f"{where}: unknown type {item!r}{nearest(item, [*TYPE_CODES, 'number'])}")
    return Type(frozenset(codes))


def _not(where: str, argument: Any, depth: int) -> Test:
    if isinstance(argument, re.Pattern):
        return Not(_parse_regex(where, argument, None))
    if not _is_operators(argument, where):
        raise QueryError(
            f"{where} takes a dict of operators or a regular expression, got {argument!r}; for a plain value use $ne"
        )
    tests = _parse_operators(where, argument, depth + 1)
    return Not(tests[0] if len(tests) == 1 else AllOf(tuple(tests)))


def _elem_match(where: str, argument: Any, depth: int) -> Test:
    if not isinstance(argument, Mapping):
        raise QueryError(f"{where} takes a dict, got {argument!r}")
    if argument and next(iter(argument)) not in _JOINS and _is_operators(argument, where):
        return ElemMatch(tests=tuple(_parse_operators(where, argument, depth + 1)))
    return ElemMatch(query=_parse_query(argument, top=False, depth=depth + 1))


def _glob(where: str, argument: Any, depth: int) -> Test:
    if not isinstance(argument, str):
        raise QueryError(f"{where} takes a str, got {argument!r}")
    check_length(where, argument)
    return Glob(glob_regex(argument), glob=argument)


_OPERATORS: dict[str, Callable[[str, Any, int], Test]] = {
    "$eq": _eq,
    "$ne": lambda where, argument, depth: Not(_eq(where, argument, depth)),
    "$lt": _compare("$lt"), "$lte": _compare("$lte"), "$gt": _compare("$gt"), "$gte": _compare("$gte"),
    "$le": _compare("$lt"), "$ge": _compare("$gt"),  # IPython.parallel's first manual has $le for 'less than'
    "$in": _in,
    "$nin": lambda where, argument, depth: Not(_in(where, argument, depth)),
    "$all": _all, "$mod": _mod, "$exists": _exists, "$size": _size, "$type": _type, "$not": _not,
    "$elemMatch": _elem_match, "$glob": _glob,
}  # fmt: skip

def _parse_regex(where: str, pattern: Any, options: Any) -> Regex:
    flags = 0
    if isinstance(pattern, re.Pattern):
        flags, pattern = pattern.flags & ~re.UNICODE, pattern.pattern
    if not isinstance(pattern, str):
        raise QueryError(f"{where}: $regex takes a str or a compiled pattern of str, got {pattern!r}")
    if options is not None:
        if not isinstance(options, str):
            raise QueryError(f"{where}: $options takes a str of letters, got {options!r}")
        for letter in options:
            if letter not in LETTERS:
                raise QueryError(
                    f"{where}: unknown letter {letter!r} in $options; known are {', '.join(LETTERS)}"
                )
            flags |= LETTERS[letter] & ~re.UNICODE
    check_length(where, pattern)
    try:
        compiled(pattern, flags)
    except (ValueError, RecursionError, OverflowError) as error:
        raise QueryError(f"{where}: {pattern!r} is not a regular expression: {error}") from None
    return Regex(pattern, int(flags))
