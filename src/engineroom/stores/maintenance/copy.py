"""Copies records from any source to any target, with their functions, environments, and changes made by users."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec

from ...ids import ClientId, Digest, TaskId
from ...messages import Environment, Function
from ...records.entry import Entry
from ...records.fields import KEYS
from ...records.record import TaskRecord
from ..base import Cursor, TaskStore

#: Records in one step.
STEP = 200


class Item(msgspec.Struct):
    """A record, and the entry that it was made of (None: the record was added as a dict)."""

    record: TaskRecord
    entry: Entry | None


class Source(Protocol):
    """Where records are copied from."""

    def items(self) -> Iterator[list[Item]]:
        """All records in order of submission, some at a time."""

    def functions(self) -> Iterator[Function]:
        """The functions that records refer to."""

    def environments(self) -> Iterator[tuple[ClientId, Environment]]:
        """The environments of clients."""


class Target(Protocol):
    """Where records are copied to."""

    def take(self, items: list[Item]) -> int:
        """Add records, unless the target has one with the same id. Returns how many were new."""

    def take_functions(self, functions: list[Function]) -> None:
        """Add functions."""

    def take_environments(self, environments: list[tuple[ClientId, Environment]]) -> None:
        """Add environments of clients."""


class Copied(msgspec.Struct):
    """What was copied."""

    read: int = 0
    new: int = 0
    functions: int = 0


def copy(source: Source, target: Target, progress: Callable[[Copied], None] | None = None) -> Copied:
    """Copy everything. After an interruption it may be called again.

    Raises
    ------
    StoreError
        One of the two fails.
    """
    done = Copied()
    for function in source.functions():  # first: a record refers to its function
        target.take_functions([function])
        done.functions += 1
    target.take_environments(list(source.environments()))
    for items in source.items():
        done.new += target.take(items)
        done.read += len(items)
        if progress is not None:
            progress(done)
    return done


class StoreSide:
    """A task database as a source or a target."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store

    def items(self) -> Iterator[list[Item]]:
        after: Cursor | None = None
        while True:
            page = self._store.page({}, list(KEYS), after=after, limit=STEP)
            entries = self._store.entries([TaskId(record["msg_id"]) for record in page.records])
            if page.records:
                yield [Item(record, entries.get(record["msg_id"])) for record in page.records]
            after = page.next
            if after is None:
                return

    def functions(self) -> Iterator[Function]:
        for name in self._store.distinct("function", {}):
            try:
                yield self._store.get_function(Digest(bytes.fromhex(name)))
            except (KeyError, TypeError, ValueError):
                continue  # a cell has no function; a record that was added by hand may name none

    def environments(self) -> Iterator[tuple[ClientId, Environment]]:
        for digest in self._store.distinct("environment", {"environment": {"$ne": None}}):
            with contextlib.suppress(KeyError):
                environment = Environment(digest, self._store.get_environment(digest))
                for client in self._store.distinct("client_uuid", {"environment": digest}):
                    yield ClientId(client), environment

    def take(self, items: list[Item]) -> int:
        ids = [TaskId(item.record["msg_id"]) for item in items]
        known = {record["msg_id"] for record in self._store.find_records({"msg_id": {"$in": ids}}, "msg_id")}
        new = [item for item in items if item.record["msg_id"] not in known]
        self._store.write([item.entry for item in new if item.entry is not None])
        for item in new:
            if item.entry is None:
                self._store.add_record(item.record["msg_id"], item.record)
        self._change([item for item in new if item.entry is not None])
        return len(new)

    def _change(self, items: list[Item]) -> None:
        """Make the changes that users have made in records since they were written."""
        query = {"msg_id": {"$in": [item.record["msg_id"] for item in items]}}
        made = {record["msg_id"]: record for record in self._store.find_records(query, list(KEYS))}
        for item in items:
            now = made[item.record["msg_id"]]
            changes: dict[str, Any] = {
                key: value for key, value in item.record.items() if now[key] != value and key != "duration"
            }
            if changes:
                self._store.update_record(item.record["msg_id"], changes)

    def take_functions(self, functions: list[Function]) -> None:
        self._store.add_functions(functions)

    def take_environments(self, environments: list[tuple[ClientId, Environment]]) -> None:
        self._store.add_environments(environments)
