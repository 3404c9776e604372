"""Queries: MongoDB's query dicts, parsed once into small typed nodes.

    parse(dict) → Query            QueryError names what is wrong, and the nearest valid word
    parse_keys, parse_sort, …      the other arguments of `find_records`

What the nodes mean is in `matching.py`. Nothing here knows a backend. One that can answer part of a query by
itself (an index, a server) may do so, as long as the answer is what `matching.compile` says.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import regex

from ...errors import QueryError
from ...records.record import ALIASES, BULKY, KEYS
from .values import TYPE_CODES, plain

#: A dotted key, split.
Path = tuple[str, ...]

MAX_PATTERN = 1000  #: characters of a regular expression
MAX_DEPTH = 50  #: nesting of a query
MAX_LIST = 200_000  #: items of a list


class Node(msgspec.Struct, frozen=True, tag=True):
    """Base of all nodes. Nodes are values: equal queries are equal trees."""


# what one value is asked


class Eq(Node, frozen=True):
    """Equal to `value`, or an array that has an element that is. None also matches what is absent."""

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


class Type(Node, frozen=True):
    """Of one of these BSON types."""

    codes: frozenset[int]


class Size(Node, frozen=True):
    """An array of this length."""

    length: int


class Exists(Node, frozen=True):
    """Present, be it as None."""


class ElemMatch(Node, frozen=True):
    """An array with an element that passes all of `tests`, or (`query`) is a dict that matches."""

    tests: tuple[Test, ...] = ()
    query: Query | None = None


class Not(Node, frozen=True):
    """None of what the test would match, the absent included."""

    test: Test


class AllOf(Node, frozen=True):
    """Several tests of one key; each may be passed by another element of an array."""

    tests: tuple[Test, ...]


class Never(Node, frozen=True):
    """Matches nothing: `$all: []`."""


Test = Eq | Compare | In | Mod | Regex | Type | Size | Exists | ElemMatch | Not | AllOf | Never


# what a record is asked


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
    """Conditions that must all hold."""
    if isinstance(query, And):
        for part in query.parts:
            yield from conjuncts(part)
    else:
        yield query


# ---------------------------------------------------------------------------------------------- parsing


def parse(query: Mapping[str, Any]) -> Query:
    """Parse a query dict, or raise QueryError.

    >>> parse({"engine_id": {"$in": [1, 2]}, "completed": None})
    """
    return _parse_query(query, top=True, depth=0)


def keys_in(query: Query) -> frozenset[str]:
    """The record's keys that a query looks at."""
    if isinstance(query, Field):
        return frozenset((query.path[0],))
    return frozenset[str]().union(*(keys_in(part) for part in query.parts))


def canonical_key(key: Any) -> str:
    """A record's key by its proper name; QueryError names the nearest one if there is none."""
    if isinstance(key, str):
        if key in KEYS:
            return key
        if key in ALIASES:
            return ALIASES[key]
    raise QueryError(f"unknown key {key!r}{_nearest(key, [*KEYS, *ALIASES])}")


def parse_keys(keys: Iterable[str] | str | None) -> list[str]:
    """The keys to return, in a document's order; `msg_id` always is, and the default is all but the bulky ones."""
    if keys is None:
        return [key for key in KEYS if key not in BULKY]
    if not isinstance(keys, Iterable):
        raise QueryError(f"keys must be a key or a list of keys, got {keys!r}")
    wanted = {canonical_key(key) for key in ([keys] if isinstance(keys, str) else keys)}
    wanted.add("msg_id")
    return [key for key in KEYS if key in wanted]


def parse_sort(sort: Sequence[tuple[str, int]] | None) -> tuple[tuple[Path, bool], ...]:
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


def parse_window(limit: int | None, skip: int) -> tuple[int | None, int]:
    """`limit` and `skip`, checked."""
    for name, value in ("limit", limit), ("skip", skip):
        if (value is None and name == "limit") or (
            isinstance(value, int) and value >= 0 and not isinstance(value, bool)
        ):
            continue
        raise QueryError(f"{name} must be a whole number, 0 or more, got {value!r}")
    return limit, skip


def _nearest(word: Any, known: Iterable[str]) -> str:
    names = list(known)
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
                hint = f"; {key} belongs inside {{key: {{{key!r}: …}}}}" if key in _OPERATORS else _nearest(key, _JOINS)
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
    """Any of these. What asks whether the same key equals one value or another becomes one list to look up."""
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
    """What `{key: value}` asks: tests that must all be passed."""
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
            raise QueryError(f"{key}: unknown operator {name!r}{_nearest(name, [*_OPERATORS, '$regex', '$options'])}")
    return tests


def _literal(value: Any, where: str) -> Any:
    return _no_operators(plain(value, where, QueryError), where)


def _no_operators(value: Any, where: str) -> Any:
    """Operators deep in a literal would be compared as they stand, and match nothing: surely a slip."""
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
    """The whole number a value is, if it is one."""
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
            raise QueryError(f"{where}: unknown type {item!r}{_nearest(item, [*TYPE_CODES, 'number'])}")
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
    _check_length(where, argument)
    return Regex(glob_regex(argument))


def glob_regex(glob: str, end: str = r"\Z") -> str:
    """A shell pattern as a regular expression; `end` is the end of a text in the dialect that is wanted."""
    made, rest = [], glob
    while rest:
        letter, rest = rest[0], rest[1:]
        closed = rest.find("]", 2 if rest[:1] == "!" else 1) if letter == "[" else -1
        if letter == "*":
            rest = rest.lstrip("*")
            made.append(".*")
        elif letter == "?":
            made.append(".")
        elif closed > 0:
            inside = rest[:closed].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]")
            made.append(f"[{'^' + inside[1:] if inside[0] == '!' else inside.replace('^', chr(92) + '^')}]")
            rest = rest[closed + 1 :]
        else:
            made.append(re.escape(letter))
    return f"^(?s:{''.join(made)}){end}"


_OPERATORS: dict[str, Callable[[str, Any, int], Test]] = {
    "$eq": _eq,
    "$ne": lambda where, argument, depth: Not(_eq(where, argument, depth)),
    "$lt": _compare("$lt"), "$lte": _compare("$lte"), "$gt": _compare("$gt"), "$gte": _compare("$gte"),
    "$le": _compare("$lt"), "$ge": _compare("$gt"),  # as the first manual had them
    "$in": _in,
    "$nin": lambda where, argument, depth: Not(_in(where, argument, depth)),
    "$all": _all, "$mod": _mod, "$exists": _exists, "$size": _size, "$type": _type, "$not": _not,
    "$elemMatch": _elem_match, "$glob": _glob,
}  # fmt: skip

#: flags of `re` → flags of `regex`, whose numbers differ
_FLAGS = {
    int(re.IGNORECASE): int(regex.IGNORECASE), int(re.MULTILINE): int(regex.MULTILINE),
    int(re.DOTALL): int(regex.DOTALL), int(re.VERBOSE): int(regex.VERBOSE), int(re.ASCII): int(regex.ASCII),
}  # fmt: skip

_REGEX_OPTIONS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE, "u": re.UNICODE}


def _check_length(where: str, pattern: str) -> None:
    if len(pattern) > MAX_PATTERN:
        raise QueryError(f"{where}: the pattern has {len(pattern)} characters; at most {MAX_PATTERN} are allowed")


def is_tame(pattern: str) -> bool:
    """Whether a pattern surely takes no more than quadratic time: it repeats once, and nothing that is composed."""
    return "(" not in pattern and sum(map(pattern.count, "*+{")) <= 1


#: an escape, or a class in brackets
_TOKENS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_ASCII = {"w": "A-Za-z0-9_", "d": "0-9"}


def _in_ascii(token: re.Match[str]) -> str:
    r"""`\w` and `\d` as MongoDB has them: ASCII only, though letters fold their case in all scripts."""
    text = token[0]
    if text[0] == "[":
        return re.sub(r"\\([wd])|\\.", lambda m: _ASCII[m[1]] if m[1] else m[0], text, flags=re.DOTALL)
    if text[1].lower() not in _ASCII:
        return text
    return f"[{'^' if text[1].isupper() else ''}{_ASCII[text[1].lower()]}]"


@functools.lru_cache(256)
def compiled(pattern: str, flags: int) -> Any:
    """A compiled regular expression, of the module `regex`: its searches can be given a timeout."""
    pattern = _TOKENS.sub(_in_ascii, pattern)
    return regex.compile(pattern, sum(ours for theirs, ours in _FLAGS.items() if flags & theirs))


def pattern_of(pattern: re.Pattern[str] | str, options: str | None) -> tuple[str, str]:
    """A regular expression as MongoDB has it: its text, and the letters of its options."""
    if isinstance(pattern, re.Pattern):
        return pattern.pattern, "".join(letter for letter in "imsx" if pattern.flags & _REGEX_OPTIONS[letter])
    return pattern, (options or "").replace("u", "")


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
            if letter not in _REGEX_OPTIONS:
                raise QueryError(
                    f"{where}: unknown letter {letter!r} in $options; known are {', '.join(_REGEX_OPTIONS)}"
                )
            flags |= _REGEX_OPTIONS[letter] & ~re.UNICODE
    _check_length(where, pattern)
    try:
        compiled(pattern, flags)
    except (regex.error, ValueError, RecursionError, OverflowError) as error:
        raise QueryError(f"{where}: {pattern!r} is not a regular expression: {error}") from None
    return Regex(pattern, int(flags))
