"""Walks over references on a MongoDB server: those that tasks use, and those that the other collections hold.

Each piece is one short question on an indexed key, however large the database is, so that other work comes in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ...records.entry import as_digest
from ..base import References

#: Documents in one piece: some milliseconds.
PIECE = 5000


def used(database: Any, ask: Callable[..., Any]) -> Iterator[References]:
    """What tasks' documents refer to, in the order of their ids."""
    for page in _pages(database.tasks, "_id", {}, ("function", "environment"), ask):
        yield References(
            frozenset([digest for document in page if (digest := as_digest(document.get("function")))]),
            environments=frozenset([name for document in page if (name := document.get("environment"))]),
        )


def stored(database: Any, ask: Callable[..., Any]) -> Iterator[References]:
    """What the other collections hold.

    Functions are found by their chunks, which are written first and dropped last.
    """
    for page in _pages(database.chunks, "owner", {"$gte": "function ", "$lt": "function!"}, (), ask):
        names = [document["owner"].removeprefix("function ") for document in page]
        yield References(frozenset([digest for name in names if (digest := as_digest(name))]))
    for page in _pages(database.environments, "_id", {}, (), ask):
        yield References(environments=frozenset([document["_id"] for document in page]))


def drop(database: Any, unused: References, ask: Callable[..., Any]) -> int:
    """Delete documents of the other collections; returns how many functions were deleted.

    A function goes before its chunks: without them, the same function could not be added again.
    """
    names = [digest.hex() for digest in unused.functions]
    dropped = ask(database.functions.delete_many, {"_id": {"$in": names}}).deleted_count
    ask(database.chunks.delete_many, {"owner": {"$in": [f"function {name}" for name in names]}})
    ask(database.environments.delete_many, {"_id": {"$in": sorted(unused.environments)}})
    return int(dropped)


def _pages(
    collection: Any, key: str, limits: dict[str, Any], keys: tuple[str, ...], ask: Callable[..., Any]
) -> Iterator[list[dict[str, Any]]]:
    """Some keys of documents, in the order of an indexed key."""
    projection, query = dict.fromkeys((key, *keys), 1), {key: limits} if limits else {}
    while page := ask(lambda query=query: list(collection.find(query, projection).sort(key, 1).limit(PIECE))):
        yield page
        query = {key: {**limits, "$gt": page[-1][key]}}
