"""Queries → SQL: which rows can match.

The condition that `translate` gives is true for every row that matches. If it is false for all other rows, it is
`exact`, and SQL can count, sort and cut alone. Otherwise the predicate (`query/match.py`) must check each row.

In conditions NULL (SQL's "unknown") means false. `_negation` turns it into false before it negates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from ...records.entry import is_hex
from ...records.fields import TIMES
from ...records.states import STATE_OF_STATUS
from ..query.nodes import (
    AllOf,
    And,
    Compare,
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
    conjuncts,
)
from ..query.patterns import behind_prefix, glob_prefix, literal_prefix
from ..query.values import DATE, NULL, NUMBER, STRING, rank, seconds_of
from .rows.columns import COLUMN_TYPES, PINNED

_MOST_PARAMETERS = 500  #: of one condition


class Where(NamedTuple):
    """An SQL condition with its parameters."""

    sql: str
    parameters: tuple[Any, ...] = ()
    exact: bool = True
    #: the table to select from, with the index to use if that is known to be good
    table: str = "tasks"


ALWAYS, NEVER, UNKNOWN = Where("1"), Where("0"), Where("1", exact=False)

#: Compares with a list of values, which is one parameter.
LONG_LIST = "IN (SELECT value FROM json_each(?))"

#: A range of so many rows is read by its index: that takes a small part of a second.
MAX_COUNTED = 20_000
#: So many matching rows are sorted whole, if only the first of them are wanted.
SORTED = 2000

_SIGNS = {"$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}


def translate(query: Query) -> Where:
    """The condition on rows of `tasks` for a query."""
    if isinstance(query, Field):
        return _field(query.path, query.test)
    if len(query.parts) > _MOST_PARAMETERS:  # SQLite's own limit is 1,000; the predicate decides
        return UNKNOWN
    parts = [translate(part) for part in query.parts]
    if isinstance(query, And):
        return _join("AND", parts)
    if isinstance(query, Or):
        return _join("OR", parts)
    return _negation(_join("OR", parts))


#: Columns with ranges of values that may hold few rows or nearly all → the index on each.
_RANGES = {"completed": "tasks_by_end", "label": "tasks_by_label", "msg_id": "sqlite_autoindex_tasks_1",
           "engine_uuid": "tasks_by_engine"}  # fmt: skip


def narrowed(query: Query, read: Callable[[str, Sequence[Any]], Iterable[Any]]) -> Where:
    """The same. If few rows are in a range of values that the query names, it uses the index on that column.

    SQLite does not know how many rows a range holds, so they are counted here, up to `MAX_COUNTED`.
    """
    where = translate(query)
    if where.sql == NEVER.sql:
        return where
    for column, index in _RANGES.items():
        parts = [
            part
            for condition in conjuncts(query)
            if isinstance(condition, Field) and condition.path == (column,)
            if _held(column) in (part := _range(column, condition.test)).sql
        ]
        if not parts:
            continue
        inside = indexed(_join("AND", parts))
        rows = f"SELECT 1 FROM tasks INDEXED BY {index} WHERE {inside.sql} LIMIT {MAX_COUNTED + 1}"
        sql = f"SELECT count(*) FROM ({rows})"
        [(found,)] = read(sql, inside.parameters)
        if found <= MAX_COUNTED:
            return indexed(where)._replace(table=f"tasks INDEXED BY {index}")
    return where


def latest(where: Where, read: Callable[[str, Sequence[Any]], Iterable[Any]]) -> Where:
    """The condition for a question whose answer is sorted by `completed` and cut.

    If few rows match, they are found and sorted. If many do, the index on `completed` soon has enough of them.
    """
    if where.sql == NEVER.sql or where.table != "tasks" or not where.exact or "text_matches" in where.sql:
        return indexed(where)
    sql = f"SELECT count(*) FROM (SELECT 1 FROM tasks WHERE {where.sql} LIMIT {SORTED + 1})"
    [(found,)] = read(sql, where.parameters)
    return where if found <= SORTED else indexed(where)._replace(table="tasks INDEXED BY tasks_by_end")


def _held(column: str) -> str:
    """A column with a range of values. With the plus sign, SQLite does not use an index on it."""
    return f"+{column}" if column in _RANGES else column


def indexed(where: Where) -> Where:
    """The condition, allowed to use the indexes for ranges of values."""
    sql = where.sql
    for column in _RANGES:
        sql = sql.replace(f"+{column}", column)
    return where._replace(sql=sql)


def _join(word: str, parts: Sequence[Where]) -> Where:
    exact = all(part.exact for part in parts)
    if word == "AND":
        if any(part.sql == NEVER.sql for part in parts):  # SQLite has no plan for an index with `AND 0`
            return NEVER
        parts = [part for part in parts if part.sql != "1"]
        if not parts:
            return Where("1", exact=exact)
    elif not exact and any(part.sql == "1" for part in parts):
        return UNKNOWN
    if len(parts) == 1:
        return parts[0]._replace(exact=exact)
    sql = f" {word} ".join(f"({part.sql})" for part in parts)
    return Where(sql, tuple(p for part in parts for p in part.parameters), exact)


def _negation(part: Where) -> Where:
    if not part.exact:  # it may be true for rows that do not match; its negation would miss them
        return UNKNOWN
    return Where(f"NOT coalesce(({part.sql}), 0)", part.parameters)


def _field(path: Path, test: Test) -> Where:
    if isinstance(test, Not):
        return _negation(_field(path, test.test))
    if isinstance(test, AllOf):
        return _join("AND", [_field(path, part) for part in test.tests])
    if isinstance(test, Never):
        return NEVER
    if len(path) == 1 and isinstance(test, Exists):
        return ALWAYS  # a record has every key
    if path == ("pinned",) and isinstance(test, Eq) and isinstance(test.value, bool):
        return Where(PINNED if test.value else f"NOT {PINNED}")
    if len(path) == 1 and path[0] in COLUMN_TYPES:
        return _column(path[0], test)
    return _derived(path, test)


# ---------------------------------------------------------------------------------------------- columns


def _column(key: str, test: Test) -> Where:
    if isinstance(test, Eq):
        return _equal(key, (test.value,))
    if isinstance(test, In) and not test.patterns:
        return _equal(key, test.values)
    if isinstance(test, Compare):
        return _compare(key, test.op, test.value)
    if isinstance(test, Regex) and COLUMN_TYPES[key] is str and key != "function":
        return _pattern(key, test)
    return UNKNOWN


def _pattern(key: str, test: Regex) -> Where:
    found = Where(f"text_matches(?, ?, {key})", (test.pattern, test.flags))
    begins, is_all = _beginning(key, test)
    return begins if is_all else _join("AND", [begins, found])


def _beginning(key: str, test: Regex) -> tuple[Where, bool]:
    """The condition that a text begins as a pattern says; and whether that is all the pattern says."""
    prefix, is_all = literal_prefix(test.pattern, test.flags), False
    if isinstance(test, Glob):
        prefix, is_all = glob_prefix(test.glob)
    end = behind_prefix(prefix)
    if end is None or any("\ud800" <= letter <= "\udfff" for letter in prefix):
        return ALWAYS, False
    return Where(f"{_held(key)} >= ? AND {_held(key)} < ?", (prefix, end)), is_all


def _range(key: str, test: Test) -> Where:
    """The range of values that a test names, as a condition that an index can answer alone."""
    if isinstance(test, Regex):
        return _beginning(key, test)[0]
    return _column(key, test) if isinstance(test, Compare | Eq) else ALWAYS


def _equal(key: str, values: Sequence[Any]) -> Where:
    if key in TIMES:
        if len(values) > _MOST_PARAMETERS:
            return UNKNOWN
        return _join_any([_moment(key, value) for value in values])
    wanted: list[Any] = []
    conditions: list[Where] = []
    for value in values:
        kind = rank(value)
        if kind == NULL:
            conditions += [Where(f"{key} IS NULL")] if key != "msg_id" else []  # every record has one
        elif key == "function":
            wanted += [bytes.fromhex(value)] if kind == STRING and is_hex(value) else [value] if kind == STRING else []
        elif (kind == NUMBER and value == value) if COLUMN_TYPES[key] in (int, float) else kind == STRING:
            wanted.append(value)
    if len(wanted) == 1:
        conditions.append(Where(f"{key} = ?", (wanted[0],)))
    elif wanted:
        conditions.append(_one_of(key, wanted))
    return _join_any(conditions)


def one_of_few(column: str, wanted: Sequence[Any]) -> Where:
    """One of some values, each of which is a parameter.

    The last is repeated until their number is a power of two: `sqlite3` keeps each statement ready that it has had.
    """
    filled = tuple(wanted)
    if filled:
        filled += filled[-1:] * ((1 << (len(filled) - 1).bit_length()) - len(filled))
    return Where(f"{column} IN ({', '.join('?' * len(filled))})", filled)


def _one_of(column: str, wanted: Sequence[Any]) -> Where:
    """One of several values. A long list is a single parameter; SQLite uses the index with both forms."""
    if len(wanted) <= _MOST_PARAMETERS:
        return one_of_few(column, wanted)
    if column == "function" or any((isinstance(v, str) and "\0" in v) or v in (math.inf, -math.inf) for v in wanted):
        return UNKNOWN
    return Where(f"{column} {LONG_LIST}", (msgspec.json.encode(wanted).decode(),))


def _join_any(conditions: list[Where]) -> Where:
    return _join("OR", conditions) if conditions else NEVER


def _moment(key: str, value: Any) -> Where:
    if value is None:
        return Where(f"{key} IS NULL")
    if rank(value) != DATE:
        return NEVER
    first, last = seconds_of(value)
    return Where(f"{_held(key)} BETWEEN ? AND ?", (first, last))


def _compare(key: str, op: str, value: Any) -> Where:
    kind = rank(value)
    if kind == NULL:
        return Where(f"{key} IS NULL") if op in ("$lte", "$gte") else NEVER
    sign = _SIGNS[op]
    if key in TIMES:
        if kind != DATE:
            return NEVER
        first, last = seconds_of(value)
        return Where(f"{_held(key)} {sign} ?", (last if op in ("$lte", "$gt") else first,))
    if key == "function":
        return NEVER if kind != STRING else UNKNOWN  # blobs and text in one column have another order
    if kind != (NUMBER if COLUMN_TYPES[key] in (int, float) else STRING) or value != value:
        return NEVER
    return Where(f"{_held(key)} {sign} ?", (value,))


# ---------------------------------------------------------------------------------------------- derived keys

def _derived(path: Path, test: Test) -> Where:
    """Conditions on keys that are derived from columns. Never exact, because `document` may hold another value."""
    if path[0] == "metadata" and len(path) > 1 and _needs_a_value(test):
        return Where("options IS NOT NULL OR document IS NOT NULL", exact=False)
    if path == ("function_name",) and isinstance(test, Regex):
        sql = "function IN (SELECT digest FROM functions WHERE text_matches(?, ?, name)) OR document IS NOT NULL"
        return Where(sql, (test.pattern, test.flags), exact=False)
    values = (test.value,) if isinstance(test, Eq) else test.values if isinstance(test, In) else ()
    if not values or (isinstance(test, In) and test.patterns) or len(values) > _MOST_PARAMETERS:
        return UNKNOWN
    if not all(isinstance(value, str) for value in values):
        return UNKNOWN
    if path in (("result_content", "ename"), ("pyerr", "ename")):
        column, wanted = "ename", list(values)
    elif path == ("result_content", "status"):
        column, wanted = "state", [STATE_OF_STATUS[value] for value in values if value in STATE_OF_STATUS]
    elif path == ("header", "msg_type"):
        column, wanted = "kind", [value.removesuffix("_request") for value in values if value.endswith("_request")]
    elif path == ("header", "session"):
        column, wanted = "client_uuid", list(values)
    elif path == ("header", "label"):
        column, wanted = "label", list(values)
    elif path == ("header", "msg_id"):
        column, wanted = "msg_id", list(values)
    elif path in (("function_name",), ("environment",)):
        table, column, ours = {
            "function_name": ("functions", "name", "function = functions.digest"),
            "environment": ("clients", "environment", "tasks.client_uuid = clients.client_uuid"),
        }[path[0]]
        named = _one_of(column, values)
        theirs = ours.rpartition(" ")[2]
        sql = f"{ours.partition(' ')[0]} IN (SELECT {theirs} FROM {table} WHERE {named.sql}) OR document IS NOT NULL"
        return Where(sql, named.parameters, exact=False)
    elif path == ("attempts", "host"):
        hosts = _one_of("host", values)
        sql = f"engine_uuid IN (SELECT engine_uuid FROM engines WHERE {hosts.sql})"
        return Where(f"{sql} OR outcome IS NOT NULL OR document IS NOT NULL", hosts.parameters, exact=False)
    else:
        return UNKNOWN
    few = one_of_few(column, wanted)
    inside = " OR ename = x''" if path[0] in ("result_content", "pyerr") else ""
    return Where(f"{few.sql} OR document IS NOT NULL{inside}", few.parameters, exact=False)


def _needs_a_value(test: Test) -> bool:
    """Whether missing values fail the test."""
    if isinstance(test, Eq | Compare):
        return test.value is not None
    if isinstance(test, In):
        return None not in test.values
    return isinstance(test, Regex | Mod | Type | Size)


# ---------------------------------------------------------------------------------------------- order

#: By submission.
ORDER = "submitted, msg_id"


def unhinted(where: Where, tail: str) -> str:
    """The ORDER BY, changed so that SQLite looks up a list of values instead of reading a whole index in order."""
    return tail.replace(" ORDER BY ", " ORDER BY +") if LONG_LIST in where.sql else tail


def order_clause(order: tuple[tuple[Path, bool], ...]) -> str | None:
    """ORDER BY for a sort by columns; None if SQL would sort otherwise."""
    terms = []
    for path, descending in order:
        if len(path) > 1 or path[0] not in COLUMN_TYPES or path[0] == "function":
            return None
        terms.append(f"{path[0]}{' DESC' if descending else ''}")
    return " ORDER BY " + ", ".join([*terms, ORDER])
