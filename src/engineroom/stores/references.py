"""What is kept beside the records: walks over it, and over what records refer to, in an SQLite file and on a server.

Each piece is a short question by a key that has an index, however large the database: other work comes in between.
`retention.find_unused` compares the two.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Container, Iterator
from typing import Any

from ..ids import Digest, EngineUuid
from .base import Beside
from .sqlite.rows import as_digest

#: Records, or functions and the like, in one piece: some milliseconds.
PIECE, FEW = 5000, 1000

#: table → its key, in the order of the fields of `Beside`
_TABLES = {"functions": "digest", "clients": "client_uuid", "environments": "digest", "engines": "engine_uuid"}


# ---------------------------------------------------------------------------------------------- in an SQLite file


def in_rows(read: Callable[..., Iterator[tuple[Any, ...]]]) -> Iterator[Beside]:
    """What the rows of tasks refer to, by their numbers."""
    last = -1
    while True:
        [(first,)] = read("SELECT min(seq) FROM tasks WHERE seq > ?", (last,))
        if first is None:
            return
        last = first + PIECE - 1
        rows = read(
            "SELECT *, (SELECT environment FROM clients WHERE clients.client_uuid = found.client_uuid) FROM"
            " (SELECT DISTINCT function, client_uuid, engine_uuid FROM tasks WHERE seq BETWEEN ? AND ?) AS found",
            (first, last),
        )
        functions, clients, engines, environments = zip(*rows, strict=True)
        yield _beside(functions, clients, environments, engines)


def in_tables(read: Callable[..., Iterator[tuple[Any, ...]]]) -> Iterator[Beside]:
    """What the other tables have, by their keys."""
    for table, key in _TABLES.items():
        after: str = ""
        values: tuple[Any, ...] = ()
        while found := [v for (v,) in read(f"SELECT {key} FROM {table}{after} ORDER BY {key} LIMIT {FEW}", values)]:
            yield _beside(**{table: found})
            after, values = f" WHERE {key} > ?", (found[-1],)


def drop_rows(connection: sqlite3.Connection, unused: Beside, in_use: Container[EngineUuid]) -> int:
    """Forget these; returns how many functions that were."""
    engines = unused.engines.difference([uuid for uuid in unused.engines if uuid in in_use])
    dropped = [
        connection.executemany(f"DELETE FROM {table} WHERE {key} = ?", [(value,) for value in values]).rowcount
        for (table, key), values in zip(
            _TABLES.items(), (unused.functions, unused.clients, unused.environments, engines), strict=True
        )
    ]
    return dropped[0]


def _beside(functions: Any = (), clients: Any = (), environments: Any = (), engines: Any = ()) -> Beside:
    functions = [Digest(value) for value in functions if isinstance(value, bytes)]  # by hand it may be any text
    return Beside(frozenset(functions), *[frozenset(some) - {None} for some in (clients, environments, engines)])


# ---------------------------------------------------------------------------------------------- on a server


def in_documents(database: Any, ask: Callable[[Callable[[], Any]], Any]) -> Iterator[Beside]:
    """What the documents of tasks refer to, by their ids."""
    for page in _pages(database.tasks, "_id", {}, ("function", "environment"), ask):
        yield Beside(
            frozenset([digest for document in page if (digest := as_digest(document.get("function")))]),
            environments=frozenset([name for document in page if (name := document.get("environment"))]),
        )


def in_collections(database: Any, ask: Callable[[Callable[[], Any]], Any]) -> Iterator[Beside]:
    """What the other collections have; of functions the chunks, which are written first and dropped last."""
    for page in _pages(database.chunks, "owner", {"$gte": "function ", "$lt": "function!"}, (), ask):
        names = [document["owner"].removeprefix("function ") for document in page]
        yield Beside(frozenset([digest for name in names if (digest := as_digest(name))]))
    for page in _pages(database.environments, "_id", {}, (), ask):
        yield Beside(environments=frozenset([document["_id"] for document in page]))


def drop_documents(database: Any, unused: Beside, ask: Callable[[Callable[[], Any]], Any]) -> int:
    """Forget these; returns how many functions that were. A function whose chunks are there may be added again."""
    names = [digest.hex() for digest in unused.functions]
    dropped = ask(lambda: database.functions.delete_many({"_id": {"$in": names}})).deleted_count
    ask(lambda: database.chunks.delete_many({"owner": {"$in": [f"function {name}" for name in names]}}))
    ask(lambda: database.environments.delete_many({"_id": {"$in": sorted(unused.environments)}}))
    return int(dropped)


def _pages(
    collection: Any, key: str, limits: dict[str, Any], keys: tuple[str, ...], ask: Callable[[Callable[[], Any]], Any]
) -> Iterator[list[dict[str, Any]]]:
    """Some keys of documents, by a key that has an index."""
    projection, query = dict.fromkeys((key, *keys), 1), {key: limits} if limits else {}
    while page := ask(lambda query=query: list(collection.find(query, projection).sort(key, 1).limit(PIECE))):  # type: ignore[misc]
        yield page
        query = {key: {**limits, "$gt": page[-1][key]}}
