"""What a query means: from typed nodes to predicates on records as dicts, with exactly MongoDB's semantics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, assert_never

from ...errors import QueryError
from .deadline import Deadline
from .nodes import (
    AllOf,
    And,
    Compare,
    ElemMatch,
    Eq,
    Exists,
    Field,
    In,
    Mod,
    Never,
    Not,
    Or,
    Path,
    Query,
    Regex,
    Size,
    Test,
    Type,
)
from .patterns import compiled, is_tame
from .values import NULL_KEY, NUMBER, key_of, rank, type_code

Predicate = Callable[[Mapping[str, Any]], bool]


_NO_LIMIT = Deadline()

class _Missing:
    """Stands for a value that a record does not have."""


MISSING: Any = _Missing()


def _leaf(value: Any) -> Iterator[Any]:
    """The elements of an array, then the array; anything else as it is."""
    if isinstance(value, list | tuple):
        yield from value
    yield value


def walk(value: Any, path: Path, spread: bool) -> Iterator[Any]:
    """The values at `path` below `value`; MISSING where a dict lacks the name.

    An array on the way is entered: each dict in it, and the element at an index if the path has a number there.
    An array at the end of the path gives its elements and then itself (`spread`), unless an index led to it.
    """
    for position, name in enumerate(path):
        if isinstance(value, dict):
            if name not in value:
                yield MISSING
                return
            value = value[name]
        elif isinstance(value, list | tuple):
            rest = path[position:]
            index = int(name) if name.isascii() and name.isdecimal() and (name == "0" or name[0] != "0") else -1
            for number, item in enumerate(value):
                if isinstance(item, dict):
                    yield from walk(item, rest, spread)
                if number == index:
                    if len(rest) == 1:
                        yield item
                    elif isinstance(item, dict | list | tuple):
                        yield from walk(item, rest[1:], spread)
            return
        else:
            yield MISSING
            return
    if spread:
        yield from _leaf(value)
    else:
        yield value


def compile(query: Query, deadline: Deadline = _NO_LIMIT) -> Predicate:
    """A function that tells whether a record matches."""
    if isinstance(query, Field):
        return _compile_field(query, deadline)
    parts = [compile(part, deadline) for part in query.parts]
    if isinstance(query, And):
        return lambda record: all(part(record) for part in parts)
    if isinstance(query, Or):
        return lambda record: any(part(record) for part in parts)
    return lambda record: not any(part(record) for part in parts)


def _compile_field(field: Field, deadline: Deadline) -> Predicate:
    test = field.test
    if isinstance(test, Not):
        inner = _compile_field(Field(field.path, test.test), deadline)
        return lambda record: not inner(record)
    if isinstance(test, AllOf):
        parts = [_compile_field(Field(field.path, part), deadline) for part in test.tests]
        return lambda record: all(part(record) for part in parts)
    check, (first, *others) = _compile_test(test, deadline), field.path
    rest, spread = tuple(others), not isinstance(test, Size | Exists | ElemMatch)
    if not rest and not spread:
        return lambda record: check(record.get(first, MISSING))
    if not rest:
        return lambda record: any(check(v) for v in _leaf(record.get(first, MISSING)))

    def deep(record: Mapping[str, Any]) -> bool:
        top = record.get(first, MISSING)
        return any(check(v) for v in walk(top, rest, spread))

    return deep


def _compile_test(test: Test, deadline: Deadline) -> Callable[[Any], bool]:
    """A function that tells whether one value passes the test. It does not enter arrays."""
    if isinstance(test, Eq):
        return _compile_eq(test.value)
    if isinstance(test, Compare):
        return _compile_compare(test.op, test.value)
    if isinstance(test, In):
        keys, patterns = {key_of(v) for v in test.values}, [_compile_test(p, deadline) for p in test.patterns]
        null = NULL_KEY in keys
        return lambda v: null if v is MISSING else (key_of(v) in keys or any(p(v) for p in patterns))
    if isinstance(test, Mod):
        divisor, remainder = test.divisor, test.remainder
        return lambda v: rank(v) == NUMBER and math.isfinite(v) and _c_remainder(int(v), divisor) == remainder
    if isinstance(test, Regex):
        return compile_regex(test, deadline)
    if isinstance(test, Type):
        codes = test.codes
        return lambda v: v is not MISSING and type_code(v) in codes
    if isinstance(test, Size):
        length = test.length
        return lambda v: isinstance(v, list | tuple) and len(v) == length
    if isinstance(test, Exists):
        return lambda v: v is not MISSING
    if isinstance(test, ElemMatch):
        return _compile_elem_match(test, deadline)
    if isinstance(test, Not):
        inner = _compile_test(test.test, deadline)
        return lambda v: not inner(v)
    if isinstance(test, AllOf):
        parts = [_compile_test(part, deadline) for part in test.tests]
        return lambda v: all(part(v) for part in parts)
    if isinstance(test, Never):
        return lambda v: False
    assert_never(test)


#: Seconds for which a search may hold the interpreter's lock; a longer one starts again without the lock.
_GLANCE = 0.005
#: Seconds that a search in one text may take. It cannot be stopped from outside, when its asker leaves.
_LONGEST = 1.0
#: In texts up to this length, a tame pattern is searched for without a timeout.
_SHORT = 2000


def compile_regex(test: Regex, deadline: Deadline) -> Callable[[Any], bool]:
    """A function that tells whether a pattern is found in a value; QueryError if that takes too long."""
    search = compiled(test.pattern, test.flags).search
    short = _SHORT if is_tame(test.pattern) else 0

    def found(v: Any) -> bool:
        if not isinstance(v, str):
            return False
        if deadline.left() < 0:  # many searches, each of which is in time
            raise deadline.passed()
        if len(v) <= short:
            return search(v) is not None
        try:
            return search(v, timeout=_GLANCE, concurrent=False) is not None
        except TimeoutError:
            pass
        # The library counts the processor time of the whole process: less than a clock on the wall shows if the machine
        # is busy, more if other threads work. So the deadline need not have passed when its search ends for it.
        limit = min(max(deadline.left(), _GLANCE), _LONGEST)
        try:
            return search(v, timeout=limit, concurrent=True) is not None
        except TimeoutError:
            if limit < _LONGEST or deadline.left() < 0:
                raise deadline.passed(f"the pattern {test.pattern!r} takes too long on some text") from None
            raise QueryError(
                f"the query was given up: the pattern {test.pattern!r} takes too long on some text, more than "
                f"{_LONGEST:g} s"
            ) from None

    return found


def _compile_eq(value: Any) -> Callable[[Any], bool]:
    if value is None:
        return lambda v: v is None or v is MISSING
    if isinstance(value, str):
        return lambda v: v.__class__ is str and v == value
    kind, key = rank(value), key_of(value)
    return lambda v: rank(v) == kind and key_of(v) == key


def _compile_compare(op: str, value: Any) -> Callable[[Any], bool]:
    if value is None:
        inclusive = op in ("$lte", "$gte")
        return lambda v: inclusive and (v is None or v is MISSING)
    kind, key = rank(value), key_of(value)
    if kind == NUMBER and value != value:  # NaN is neither before nor after anything
        return _compile_eq(value) if op in ("$lte", "$gte") else lambda v: False

    def comparable(v: Any) -> bool:
        return rank(v) == kind and (kind != NUMBER or v == v)

    if op == "$lt":
        return lambda v: comparable(v) and key_of(v) < key
    if op == "$lte":
        return lambda v: comparable(v) and key_of(v) <= key
    if op == "$gt":
        return lambda v: comparable(v) and key_of(v) > key
    return lambda v: comparable(v) and key_of(v) >= key


def _c_remainder(number: int, divisor: int) -> int:
    remainder = abs(number) % abs(divisor)
    return -remainder if number < 0 else remainder


def _compile_elem_match(test: ElemMatch, deadline: Deadline) -> Callable[[Any], bool]:
    if test.query is not None:
        matches = compile(test.query, deadline)

        def element(v: Any) -> bool:
            if isinstance(v, list | tuple):  # an array is a dict of its indexes here
                v = {str(index): item for index, item in enumerate(v)}
            return isinstance(v, dict) and matches(v)

        return lambda v: isinstance(v, list | tuple) and any(element(item) for item in v)
    checks = [_compile_test(part, deadline) for part in test.tests]
    return lambda v: isinstance(v, list | tuple) and any(all(check(item) for check in checks) for item in v)
