"""From queries to SQL: which rows can match.

`translate` answers with a condition that is true of every row that matches. Where it is true of no other row it
says `exact`, and SQL may count, sort and cut by itself; otherwise each row is asked again by the predicate.

Conditions are written so that NULL (SQL's "unknown") stands for false; `_negation` makes it crisp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from ...records.record import ABORTED, COMPLETED, FAILED, TIMES, is_hex
from ..query.parse import AllOf as AllTests
from ..query.parse import (  # fmt: skip
    And,
    Compare,
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
    conjuncts,
)
from ..query.values import DATE, NULL, NUMBER, STRING, rank, seconds_of
from .rows import COLUMN_TYPES, PINNED

_MOST_PARAMETERS = 500  #: of one condition


class Where(NamedTuple):
    """An SQL condition with its parameters."""

    sql: str
    parameters: tuple[Any, ...] = ()
    exact: bool = True
    #: what it is asked of: the rows, and by which index if that is sure to be a good one
    table: str = "tasks"


ALWAYS, NEVER, UNKNOWN = Where("1"), Where("0"), Where("1", exact=False)

#: One of the values in a parameter.
LONG_LIST = "IN (SELECT value FROM json_each(?))"

#: A number of rows that are read and sorted in no time.
FEW = 5000

_SIGNS = {"$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}


def translate(query: Query) -> Where:
    """The condition on rows of `tasks` that a query stands for."""
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


def narrowed(query: Query, read: Callable[[str, Sequence[Any]], Iterable[Any]]) -> Where:
    """The same; by the index on their ends if few tasks ended at the time in question: SQLite cannot tell."""
    where = translate(query)
    parts = [
        translate(part)
        for part in conjuncts(query)
        if isinstance(part, Field) and part.path == ("completed",) and isinstance(part.test, Compare | Eq)
    ]
    ended = indexed(_join("AND", [part for part in parts if _HELD in part.sql]))
    if ended.sql == "1":
        return where
    found = list(read(f"SELECT 1 FROM tasks WHERE {ended.sql} LIMIT {FEW + 1}", ended.parameters))
    return indexed(where)._replace(table="tasks INDEXED BY tasks_by_end") if len(found) <= FEW else where


#: Keeps SQLite from the index on the ends of tasks, which helps only if they are few, or sorted by it.
_HELD = "+completed"


def indexed(where: Where) -> Where:
    """A condition that may be looked up by the ends of tasks."""
    return where._replace(sql=where.sql.replace(_HELD, "completed"))


def _join(word: str, parts: Sequence[Where]) -> Where:
    exact = all(part.exact for part in parts)
    if word == "AND":
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
    if not part.exact:  # the complement of too much would be too little
        return UNKNOWN
    return Where(f"NOT coalesce(({part.sql}), 0)", part.parameters)


def _field(path: Path, test: Test) -> Where:
    if isinstance(test, Not):
        return _negation(_field(path, test.test))
    if isinstance(test, AllTests):
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
        return Where(f"text_matches(?, ?, {key})", (test.pattern, test.flags))
    return UNKNOWN


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


def _one_of(column: str, wanted: Sequence[Any]) -> Where:
    """One of many values; a long list is a single parameter, and the index is used all the same."""
    if len(wanted) <= _MOST_PARAMETERS:
        return Where(f"{column} IN ({', '.join('?' * len(wanted))})", tuple(wanted))
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


def _held(key: str) -> str:
    return _HELD if key == "completed" else key


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
    return Where(f"{key} {sign} ?", (value,))


# ---------------------------------------------------------------------------------------------- derived keys

_STATE_OF = {"ok": COMPLETED, "error": FAILED, "aborted": ABORTED}


def _derived(path: Path, test: Test) -> Where:
    """Conditions on what is derived from columns: never exact, for a document may say otherwise."""
    if path[0] == "metadata" and len(path) > 1 and _needs_a_value(test):
        return Where("options IS NOT NULL OR document IS NOT NULL", exact=False)
    values = (test.value,) if isinstance(test, Eq) else test.values if isinstance(test, In) else ()
    if not values or (isinstance(test, In) and test.patterns) or len(values) > _MOST_PARAMETERS:
        return UNKNOWN
    if not all(isinstance(value, str) for value in values):
        return UNKNOWN
    if path == ("result_content", "ename"):
        column, wanted = "ename", list(values)
    elif path == ("result_content", "status"):
        column, wanted = "state", [_STATE_OF[value] for value in values if value in _STATE_OF]
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
    marks = ", ".join("?" * len(wanted))
    inside = " OR ename = x''" if path[0] == "result_content" else ""
    return Where(f"{column} IN ({marks}) OR document IS NOT NULL{inside}", tuple(wanted), exact=False)


def _needs_a_value(test: Test) -> bool:
    """Whether nothing absent passes."""
    if isinstance(test, Eq | Compare):
        return test.value is not None
    if isinstance(test, In):
        return None not in test.values
    return isinstance(test, Regex | Mod | Type | Size)


# ---------------------------------------------------------------------------------------------- order

#: By submission.
ORDER = "submitted, msg_id"


def unhinted(where: Where, tail: str) -> str:
    """An ORDER BY that does not talk SQLite into reading all of an index: it cannot tell how short a long list is."""
    return tail.replace(" ORDER BY ", " ORDER BY +") if LONG_LIST in where.sql else tail


def order_clause(order: tuple[tuple[Path, bool], ...]) -> str | None:
    """ORDER BY for a sort by columns; None if SQL would sort otherwise."""
    terms = []
    for path, descending in order:
        if len(path) > 1 or path[0] not in COLUMN_TYPES or path[0] == "function":
            return None
        terms.append(f"{path[0]}{' DESC' if descending else ''}")
    return " ORDER BY " + ", ".join([*terms, ORDER])
