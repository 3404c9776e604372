"""A query as a tree of small typed nodes: what `parse.py` makes, and what every backend works on.

A query asks something of a record; a test asks something of one value. What they mean is in `match.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

#: A dotted key, split.
Path = tuple[str, ...]


class Node(msgspec.Struct, frozen=True, tag=True):
    """Base of all nodes. Nodes are values: equal queries are equal trees."""


# tests of one value


class Eq(Node, frozen=True):
    """Equal to `value`, or an array with such an element. None also matches a missing value."""

    value: Any


class Compare(Node, frozen=True):
    """Before or after `value`, which must be of the same type: numbers with numbers, strings with strings."""

    op: str  # "$lt", "$lte", "$gt" or "$gte"
    value: Any


class In(Node, frozen=True):
    """Equal to one of `values`, or matching one of the patterns among them."""

    values: tuple[Any, ...]
    patterns: tuple[Regex, ...] = ()


class Mod(Node, frozen=True):
    """A number that leaves `remainder` (rounding toward zero, as C does)."""

    divisor: int
    remainder: int


class Regex(Node, frozen=True):
    """A string in which the pattern is found somewhere."""

    pattern: str
    flags: int = 0


class Glob(Regex, frozen=True):
    """A string that matches a shell pattern; `pattern` is the same as a regular expression."""

    glob: str = ""


class Type(Node, frozen=True):
    """Of one of these BSON types."""

    codes: frozenset[int]


class Size(Node, frozen=True):
    """An array of this length."""

    length: int


class Exists(Node, frozen=True):
    """Present, even if the value is None."""


class ElemMatch(Node, frozen=True):
    """An array with an element that passes all of `tests`, or (`query`) is a dict that matches."""

    tests: tuple[Test, ...] = ()
    query: Query | None = None


class Not(Node, frozen=True):
    """Everything that the test does not match, a missing value too."""

    test: Test


class AllOf(Node, frozen=True):
    """Several tests of one key. In an array, different elements may pass them."""

    tests: tuple[Test, ...]


class Never(Node, frozen=True):
    """Matches nothing: `$all: []`."""


Test = Eq | Compare | In | Mod | Regex | Type | Size | Exists | ElemMatch | Not | AllOf | Never


# conditions on a record


class Field(Node, frozen=True):
    """The value at `path` passes the test."""

    path: Path
    test: Test


class And(Node, frozen=True):
    parts: tuple[Query, ...]


class Or(Node, frozen=True):
    parts: tuple[Query, ...]


class Nor(Node, frozen=True):
    parts: tuple[Query, ...]


Query = Field | And | Or | Nor

EVERYTHING = And(())


def conjuncts(query: Query) -> Iterator[Query]:
    """The conditions that must all hold for the query to match."""
    if isinstance(query, And):
        for part in query.parts:
            yield from conjuncts(part)
    else:
        yield query


def keys_in(query: Query) -> frozenset[str]:
    """The record's keys that a query looks at."""
    if isinstance(query, Field):
        return frozenset((query.path[0],))
    return frozenset[str]().union(*(keys_in(part) for part in query.parts))
