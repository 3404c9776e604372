"""Queries → MongoDB's own, from the nodes that the parser made.

The server gets what the user wrote, but for what only we say: conditions on the four times compare seconds, shell
patterns become regular expressions, and names are those that documents have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from ...errors import QueryError
from ...records.fields import TIMES
from ..query.nodes import (
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
    Not,
    Or,
    Path,
    Query,
    Regex,
    Size,
    Test,
    Type,
)
from ..query.patterns import LETTERS, glob_regex
from ..query.values import DATE, NULL, rank, seconds_of
from .documents import Document, key_of, to_bson

#: Matches no document.
NOTHING: Document = {"_id": {"$exists": False}}


def server_query(query: Query) -> Document:
    """A query as the server gets it."""
    if isinstance(query, Field):
        return _field(query.path, query.test)
    parts = [server_query(part) for part in query.parts]
    if isinstance(query, And):
        return _all_of(parts)
    return {"$or" if isinstance(query, Or) else "$nor": parts}


def server_path(path: Path) -> str:
    """Where a key stands in a document, to search and to sort by it."""
    if path == ("msg_id",):
        return "_id"
    return f"_seconds.{path[0]}" if len(path) == 1 and path[0] in TIMES else _dotted(path)


def _dotted(path: Path) -> str:
    return ".".join(map(key_of, path))


def _all_of(parts: Sequence[Document]) -> Document:
    """Conditions that must all hold, in one dict if no two have the same name."""
    names = [name for part in parts for name in part]
    if len(set(names)) < len(names):
        return {"$and": list(parts)}
    return {name: condition for part in parts for name, condition in part.items()}


def _field(path: Path, test: Test) -> Document:
    if len(path) == 1 and path[0] in TIMES:
        return _time(path[0], test)
    if isinstance(test, AllOf):
        return _all_of([_field(path, part) for part in test.tests])
    if isinstance(test, Never):
        return NOTHING
    if isinstance(test, Not) and not isinstance(test.test, Eq | In | Exists):
        return {"$nor": [_field(path, test.test)]}  # $not takes one of each operator, $nor takes all
    if isinstance(test, Eq) and not isinstance(test.value, dict | list):
        return {server_path(path): to_bson(test.value)}
    return {server_path(path): _condition(test)}


def _time(key: str, test: Test) -> Document:
    """A condition on a time, which is a datetime or None, as one on its seconds."""
    column = f"_seconds.{key}"
    if isinstance(test, Not):
        return {"$nor": [_time(key, test.test)]}
    if isinstance(test, AllOf):
        return {"$and": [_time(key, part) for part in test.tests]}
    if isinstance(test, In):
        return {"$or": [_time(key, Eq(value)) for value in test.values]} if test.values else NOTHING
    if isinstance(test, Exists):
        return {}
    if isinstance(test, Type):
        return {key: {"$type": sorted(test.codes)}}
    if isinstance(test, Eq | Compare):
        if rank(test.value) == NULL:
            return {column: None} if isinstance(test, Eq) else {column: {test.op: None}}
        if rank(test.value) == DATE:
            first, last = seconds_of(test.value)
            if isinstance(test, Eq):
                return {column: {"$gte": first, "$lte": last}}
            return {column: {test.op: last if test.op in ("$lte", "$gt") else first}}
    return NOTHING


# ---------------------------------------------------------------------------------------------- one value


def _condition(test: Test) -> Document:
    """Operators on one value."""
    match test:
        case Eq():
            return {"$eq": to_bson(test.value)}
        case Compare():
            return {test.op: to_bson(test.value)}
        case In():
            return {"$in": _items(test)}
        case Mod():
            return {"$mod": [test.divisor, test.remainder]}
        case Regex():
            text, letters = _pattern(test)
            return {"$regex": text, "$options": letters} if letters else {"$regex": text}
        case Type():
            return {"$type": sorted(test.codes)}
        case Size():
            return {"$size": test.length}
        case Exists():
            return {"$exists": True}
        case ElemMatch():
            return {"$elemMatch": _merged(test.tests) if test.query is None else _inside(test.query)}
        case Not(test=Eq() as inner):
            return {"$ne": to_bson(inner.value)}
        case Not(test=In() as inner):
            return {"$nin": _items(inner)}
        case Not(test=Exists()):
            return {"$exists": False}
        case Not():
            return {"$not": _merged([test.test])}
        case AllOf(tests) if all(isinstance(part, Eq | Regex | ElemMatch) for part in tests):
            return {"$all": [_item(part) for part in tests]}
        case AllOf(tests):
            return _merged(tests)
        case Never():
            return {"$in": []}
        case _:
            assert_never(test)


def _merged(tests: Sequence[Test]) -> Document:
    """Operators as one dict, where the server takes no list of them."""
    merged: Document = {}
    for test in tests:
        condition = _condition(test)
        if merged.keys() & condition.keys():
            raise QueryError(
                f"{sorted(merged.keys() & condition.keys())}: two patterns, or the same operator twice, inside "
                "$elemMatch: the server takes one"
            )
        merged |= condition
    return merged


def _inside(query: Query) -> Document:
    """A query about the elements of an array; its names are not keys of records."""
    if isinstance(query, Field):
        return {_dotted(query.path): _condition(query.test)}
    parts = [_inside(part) for part in query.parts]
    if isinstance(query, And):
        return _all_of(parts)
    return {"$or" if isinstance(query, Or) else "$nor": parts}


def _items(test: In) -> list[Any]:
    return [*map(to_bson, test.values), *map(_item, test.patterns)]


def _item(test: Test) -> Any:
    """A test as an item of a list."""
    if isinstance(test, Regex):
        from bson.regex import Regex as ServerRegex

        return ServerRegex(*_pattern(test))
    return to_bson(test.value) if isinstance(test, Eq) else _condition(test)


def _pattern(test: Regex) -> tuple[str, str]:
    """A regular expression as MongoDB has it: its text, and the letters of its options."""
    text = glob_regex(test.glob, r"\z") if isinstance(test, Glob) else test.pattern
    return text, "".join(letter for letter in "imsx" if test.flags & LETTERS[letter])
