"""Values that are too large for a document, in a collection of their own, cut into chunks.

A chunk names its owner (a task's id, or "function <digest>") and the key whose value it is a part of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .connection import Connection
from .documents import Document

#: Bytes of a chunk: a document may have 16 MB.
CHUNK_BYTES = 8 << 20


class Chunks:
    """The collection of chunks."""

    def __init__(self, connection: Connection) -> None:
        self._collection: Any = connection.database.chunks
        self._again = connection.again

    def make_index(self) -> None:
        self._collection.create_index([("owner", 1)])

    def put(self, owner: str, values: Mapping[str, bytes]) -> None:
        """Store the values of some keys; it may be done again."""
        for key, value in values.items():
            for number, start in enumerate(range(0, max(len(value), 1), CHUNK_BYTES)):
                id = f"{owner} {key} {number}"
                data = value[start : start + CHUNK_BYTES]
                chunk = {"_id": id, "owner": owner, "key": key, "number": number, "data": data}
                self._again(self._collection.replace_one, {"_id": id}, chunk, upsert=True)

    def get(self, owners: Sequence[str], keys: Iterable[str] | None = None) -> dict[str, dict[str, bytes]]:
        """owner → key → value, of some keys or of all."""
        query: Document = {"owner": {"$in": list(owners)}}
        if keys is not None:
            query["key"] = {"$in": sorted(keys)}
        parts: dict[str, dict[str, dict[int, bytes]]] = {}
        for chunk in self._again(lambda: list(self._collection.find(query))):
            parts.setdefault(chunk["owner"], {}).setdefault(chunk["key"], {})[chunk["number"]] = chunk["data"]
        return {
            owner: {key: b"".join(numbered[n] for n in sorted(numbered)) for key, numbered in by_key.items()}
            for owner, by_key in parts.items()
        }

    def drop(self, owners: Sequence[str], keys: Iterable[str] | None = None) -> None:
        """Delete the values of some keys or of all."""
        query: Document = {"owner": {"$in": list(owners)}}
        if keys is not None:
            query["key"] = {"$in": sorted(keys)}
        self._again(self._collection.delete_many, query)
