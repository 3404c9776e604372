"""Walks over references in an SQLite file: those that rows of tasks use, and those that the other tables hold.

Each piece is one short statement on an indexed key, however large the file is, so that other work comes in between.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Container, Iterator
from typing import Any

from ...errors import StoreDamaged
from ...ids import Digest, EngineUuid
from ..base import References

#: Rows of tasks in one piece: some milliseconds.
PIECE = 5000
#: The greatest number that a row can have.
_LAST = 2**63 - 1
#: Keys of another table in one piece.
KEYS_PIECE = 1000

#: table → its key, in the order of the fields of `References`
_TABLES = {"functions": "digest", "clients": "client_uuid", "environments": "digest", "engines": "engine_uuid"}


def used(read: Callable[..., Iterator[tuple[Any, ...]]]) -> Iterator[References]:
    """What the rows of tasks refer to, in the order of their numbers.

    Raises
    ------
    StoreDamaged
        Not all rows can be read: nothing can be said to be unused.
    """
    last = -1
    while True:
        [(first,)] = read("SELECT min(seq) FROM tasks WHERE seq > ?", (last,))
        if first is None:
            return
        if not isinstance(first, int) or first <= last:
            raise StoreDamaged("the numbers of the rows in the table of tasks are not in order")
        last = min(first + PIECE - 1, _LAST)
        rows = read(
            "SELECT *, (SELECT environment FROM clients WHERE clients.client_uuid = found.client_uuid) FROM"
            " (SELECT DISTINCT function, client_uuid, engine_uuid FROM tasks WHERE seq BETWEEN ? AND ?) AS found",
            (first, last),
        )
        if found := list(rows):  # they may have been dropped since
            functions, clients, engines, environments = zip(*found, strict=True)
            yield _references(functions, clients, environments, engines)


def stored(read: Callable[..., Iterator[tuple[Any, ...]]]) -> Iterator[References]:
    """What the other tables hold, in the order of their keys."""
    for table, key in _TABLES.items():
        sql, after = f"SELECT {key} FROM {table}{{}} ORDER BY {key} LIMIT {KEYS_PIECE}", ""
        values: tuple[Any, ...] = ()
        while found := [value for (value,) in read(sql.format(after), values)]:
            yield _references(**{table: found})
            after, values = f" WHERE {key} > ?", (found[-1],)


def drop(connection: sqlite3.Connection, unused: References, in_use: Container[EngineUuid]) -> int:
    """Delete rows of the other tables, except engines in `in_use`; returns how many functions were deleted."""
    engines = unused.engines.difference([uuid for uuid in unused.engines if uuid in in_use])
    dropped = [
        connection.executemany(f"DELETE FROM {table} WHERE {key} = ?", [(value,) for value in values]).rowcount
        for (table, key), values in zip(
            _TABLES.items(), (unused.functions, unused.clients, unused.environments, engines), strict=True
        )
    ]
    return dropped[0]


def _references(functions: Any = (), clients: Any = (), environments: Any = (), engines: Any = ()) -> References:
    # in a record that was added by hand, the function may be any text
    functions = [Digest(value) for value in functions if isinstance(value, bytes)]
    return References(frozenset(functions), *[frozenset(some) - {None} for some in (clients, environments, engines)])
