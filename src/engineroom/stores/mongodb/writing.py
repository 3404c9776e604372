"""Writing entries and records to a MongoDB server.

A group is written with two messages at most: inserts of new tasks, updates of tasks that were written as pending.
Nobody else writes, so this process knows which those are. Every write may be repeated, and is, when a connection
breaks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from ...ids import TaskId
from ...records.entry import Entry
from .chunks import Chunks
from .connection import Connection
from .documents import Document, document_of, outcome_of, with_large_apart
from .server import no_document

#: Tasks in one message, so that queries get their turn at the server.
BATCH = 1000
#: Updates in one message: a slow server answers before it counts as gone.
UPDATES = 100

_DUPLICATE = 11000

#: A document, and the large values that are kept apart from it.
Made = tuple[Document, dict[str, bytes]]


def merged(entries: Sequence[Entry]) -> dict[TaskId, Entry]:
    """One entry per task: its first outcome stays, and the request is what was submitted first."""
    found: dict[TaskId, Entry] = {}
    for entry in entries:
        old = found.get(entry.spec.id)
        if old is None or old.done is None:
            found[entry.spec.id] = entry
    return found


class Writer:
    """Writes to the collection of tasks; called by one thread at a time."""

    def __init__(self, connection: Connection, chunks: Chunks) -> None:
        self._connection, self._again = connection, connection.again
        self._tasks: Any = connection.database.tasks
        self._chunks = chunks
        #: tasks that were written without an outcome
        self.pending: set[TaskId] = set()

    def write(self, entries: Mapping[TaskId, Entry]) -> None:
        """Add tasks, or complete those that are there."""
        known = self.pending
        new = {id: document_of(entry) for id, entry in entries.items() if id not in known}
        there = self.insert(new)
        changed = {id: document_of(e) for id, e in entries.items() if id in known or id in there}
        if changed:
            self._update(changed, there)
        for id, entry in entries.items():
            if entry.done is not None:
                known.discard(id)
            elif id in new and id not in there:
                known.add(id)

    def insert(self, documents: Mapping[TaskId, Made]) -> set[TaskId]:
        """Add documents; returns the ids of those that are there already."""
        import pymongo

        if not documents:
            return set()
        for id, (_, apart) in documents.items():
            self._chunks.put(id, apart)
        made = [document for document, _ in documents.values()]
        there: set[TaskId] = set()
        refused: list[Document] = []

        def insert() -> None:
            try:
                self._tasks.insert_many(made, ordered=False)
            except pymongo.errors.BulkWriteError as error:
                for problem in error.details["writeErrors"]:
                    if problem["code"] == _DUPLICATE:
                        there.add(made[problem["index"]]["_id"])
                    else:
                        refused.append(made[problem["index"]])
                if not error.details["writeErrors"]:
                    raise
            except no_document():
                refused.extend(made)

        def insert_one(document: Document) -> None:
            try:
                self._tasks.insert_one(document)
            except pymongo.errors.DuplicateKeyError:
                there.add(document["_id"])

        if not self._connection.survives(insert):  # one of the documents is too much for the server: find out which
            refused += [document for document in made if not self._connection.survives(insert_one, document)]
        for document in refused:  # for its size, or for what users chose to put into it: keep that apart
            document, apart = with_large_apart(document, free=True)
            self._chunks.put(document["_id"], apart)
            self._again(insert_one, document)
        return there

    def drop(self, query: Document) -> int:
        """Delete the tasks that match; returns how many."""
        with_chunks = {"$and": [query, {"_apart": {"$ne": None}}]}
        large = [d["_id"] for d in self._again(lambda: list(self._tasks.find(with_chunks, {"_id": 1})))]
        dropped = int(self._again(self._tasks.delete_many, query).deleted_count)
        for start in range(0, len(large), BATCH):
            self._chunks.drop(large[start : start + BATCH])
        return dropped

    def _update(self, documents: Mapping[TaskId, Made], doubtful: set[TaskId]) -> None:
        """Complete tasks that were written as pending; of `doubtful` ones, only those that really are pending."""
        if doubtful:
            query = {"_id": {"$in": sorted(doubtful)}, "completed": None, "_task": {"$ne": None}}
            open_ = {d["_id"] for d in self._again(lambda: list(self._tasks.find(query, {"_id": 1})))}
            documents = {id: made for id, made in documents.items() if id not in doubtful or id in open_}
        made = list(documents.items())
        matched = sum(self._complete(made[start : start + UPDATES]) for start in range(0, len(made), UPDATES))
        if matched < len(made):
            self.insert(documents)  # somebody has deleted some by hand: their outcomes are not lost

    def _complete(self, made: Sequence[tuple[TaskId, Made]]) -> int:
        """Complete these tasks; returns how many of them the server has."""
        import pymongo

        changes = [self._change(id, document, apart) for id, (document, apart) in made]
        matched = -1

        def send() -> None:
            nonlocal matched
            with contextlib.suppress(pymongo.errors.BulkWriteError, *no_document()):
                matched = self._tasks.bulk_write(changes, ordered=False).matched_count

        if self._connection.survives(send) and matched >= 0:
            return matched
        if len(made) > 1:
            return sum(self._complete([one]) for one in made)
        [(id, (document, apart))] = made
        document, more = with_large_apart(document, free=True)
        changes = [self._change(id, document, {**apart, **more})]
        return int(self._again(self._tasks.bulk_write, changes).matched_count)

    def _change(self, id: TaskId, document: Document, apart: Mapping[str, bytes]) -> Any:
        from pymongo import UpdateMany

        outcome = {key: value for key, value in apart.items() if key != "buffers"}
        self._chunks.put(id, outcome)
        change: Document = {"$set": outcome_of(document)}
        if outcome:
            change["$addToSet"] = {"_apart": {"$each": sorted(outcome)}}
            self._again(self._tasks.update_one, {"_id": id, "_apart": None}, {"$set": {"_apart": []}})
        # "Many" of one: after an update of one FerretDB keeps its cursor until the message's last, and locks up.
        return UpdateMany({"_id": id}, change)
