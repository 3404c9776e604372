"""MongoDB: the task database on a server that speaks MongoDB's protocol.

Five collections: `tasks` (a document per record), `functions`, `environments`, `chunks` (what is too large for a
document) and `lease` (which controller the database belongs to). What goes into `tasks` refers to chunks that are
there already.

A group is written with two messages at most: inserts of what is new, updates of what was written as pending. Nobody
else writes, so this process knows which those are. Every write may be repeated, and is, when a connection breaks.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ...errors import QueryError, StoreError
from ...ids import ClientId, Digest, TaskId
from ...messages import Environment, Function
from ...records.record import KEYS, Entry, TaskRecord
from ..base import QUERY_SECONDS, Cursor, Page, QueryDict, References, Sort, Usage
from ..query.group import distinct, elements_at, group, parse_percentiles, value_at
from ..query.match import Deadline
from ..query.parse import parse, parse_keys, parse_path, parse_sort, parse_window
from ..sqlite.rows import normal
from . import references
from .documents import (  # fmt: skip
    Document,
    added_document,
    changes_of,
    document_of,
    entry_of,
    outcome_of,
    record_of,
    relayed,
    server_path,
    with_large_apart,
)
from .lease import LEASE_SECONDS, Lease
from .server import brief, codec, connect, hosts_of, masked, no_document

#: Seconds to try again after a broken connection.
PATIENCE_SECONDS = 10.0
#: Bytes of a chunk: a document may have 16 MB.
CHUNK_BYTES = 8 << 20
#: Times to send what breaks the connection.
TRIES = 3
#: Documents in one message of an answer.
BATCH = 1000
#: Updates in one message: a slow server answers before it counts as gone.
UPDATES = 100

_DEFAULT_DATABASE = "engineroom"
_DUPLICATE = 11000
_TIMED_OUT = 50
_BY_SUBMISSION = (("_seconds.submitted", 1), ("_id", 1))
_INDEXES = (
    _BY_SUBMISSION, (("state", 1), *_BY_SUBMISSION), (("engine_id", 1), *_BY_SUBMISSION),
    (("engine_uuid", 1),), (("_seconds.completed", 1),), (("arguments_digest", 1),),
)  # fmt: skip

_T = TypeVar("_T")


class MongoDB:
    """The task database on a MongoDB server.

    Arguments
    ---------
    url : str
        "mongodb://user:password@host/database"; without a database it is "engineroom". Options of pymongo may follow.
    query_seconds : float
        A query that takes longer is an error.
    readonly : bool
        Look at a database that a controller may be using; nothing can be written.

    Raises
    ------
    StoreBusy
        Another controller owns the database.
    StoreError
        There is no server, or it refuses.
    """

    keeps = True
    dropped = 0
    durable = True
    hold_seconds = 0.5  # to complete a document costs the server more than to take in a whole one

    def __init__(
        self,
        url: str,
        *,
        query_seconds: float = QUERY_SECONDS,
        patience: float = PATIENCE_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        readonly: bool = False,
    ) -> None:
        #: without the password
        self.url = masked(url)
        self._readonly, self._query_seconds, self._patience = readonly, query_seconds, patience
        self._client = connect(url)
        self._closed = False
        self._lease: Lease | None = None
        self._guard = threading.Lock()
        #: tasks written without an outcome
        self._pending: set[TaskId] = set()
        try:
            name = self._client.get_default_database(_DEFAULT_DATABASE).name
            self._database = self._client.get_database(name, codec_options=codec())
            self._tasks, self._chunks = self._database.tasks, self._database.chunks
            with self._reported("open the database"):
                self._client.admin.command("ping")
                if not readonly:
                    self._lease = Lease(
                        self._database, self.url, **({"seconds": lease_seconds} if lease_seconds else {})
                    )
                    self._make_indexes()
        except BaseException:
            self.close()
            raise

    # the hot path

    def write(self, entries: Sequence[Entry]) -> None:
        merged = list(_merged(entries).items())
        for start in range(0, len(merged), BATCH):  # so that queries get their turn at the server
            with self._writing("write tasks"):
                self._write(dict(merged[start : start + BATCH]))

    def _write(self, entries: Mapping[TaskId, Entry]) -> None:
        known = self._pending
        new = {id: document_of(entry) for id, entry in entries.items() if id not in known}
        there = self._insert(new)
        changed = {id: document_of(e) for id, e in entries.items() if id in known or id in there}
        if changed:
            self._update(changed, there)
        for id, entry in entries.items():
            if entry.done is not None:
                known.discard(id)
            elif id in new and id not in there:
                known.add(id)

    def add_functions(self, functions: Sequence[Function]) -> None:
        with self._writing("keep functions"):
            for function in functions:
                id = function.digest.hex()
                known = self._again(lambda id=id: self._database.functions.find_one({"_id": id}))  # type: ignore[misc]
                if known is None:
                    self._put_apart(f"function {id}", {"payload": function.payload})
                    document = {"_id": id, "name": function.name, "source": function.source}
                    self._again(
                        lambda id=id, document=document: self._database.functions.replace_one(  # type: ignore[misc]
                            {"_id": id}, document, upsert=True
                        )
                    )

    def get_function(self, digest: Digest) -> Function:
        id = digest.hex()
        with self._reported("read"):
            found = self._apart([f"function {id}"]).get(f"function {id}")
            about = self._again(lambda: self._database.functions.find_one({"_id": id})) or {}
        if not found:
            raise KeyError(digest)
        return Function(digest, found["payload"], about.get("name"), about.get("source") or "")

    def add_environments(self, environments: Sequence[tuple[ClientId, Environment]]) -> None:
        with self._writing("keep environments"):
            for _, environment in environments:
                document = {"_id": environment.digest, "content": environment.content}
                self._again(
                    lambda document=document: self._database.environments.replace_one(  # type: ignore[misc]
                        {"_id": document["_id"]}, document, upsert=True
                    )
                )

    def get_environment(self, digest: str) -> bytes:
        with self._reported("read"):
            found = self._again(lambda: self._database.environments.find_one({"_id": digest}))
        if found is None:
            raise KeyError(digest)
        return bytes(found["content"])

    def unfinished(self) -> Iterator[Entry]:
        query = {"completed": None, "_task": {"$ne": None}}
        for document, apart in self._documents(query, None, _BY_SUBMISSION):
            self._pending.add(document["_id"])
            yield entry_of(document, apart)

    def entries(self, ids: Sequence[TaskId]) -> dict[TaskId, Entry]:
        query = {"_id": {"$in": list(ids)}, "_task": {"$ne": None}}
        found = {d["_id"]: entry_of(d, apart) for d, apart in self._documents(query, None)}
        return {id: found[id] for id in ids if id in found}

    # records, as users know them

    def add_record(self, msg_id: TaskId, record: Mapping[str, Any]) -> None:
        document, apart = added_document(msg_id, normal(record, msg_id))
        with self._writing("add a record"):
            if self._insert({msg_id: (document, apart)}):
                raise StoreError(f"there is a record of task {msg_id} already")

    def get_record(self, msg_id: TaskId) -> TaskRecord:
        for document, apart in self._documents({"_id": msg_id}, None):
            return record_of(document, apart, KEYS)
        raise KeyError(msg_id)

    def update_record(self, msg_id: TaskId, changes: Mapping[str, Any]) -> None:
        changed = normal(changes, msg_id)
        with self._writing("change a record"):
            old = self._again(lambda: self._tasks.find_one({"_id": msg_id}, {"_seconds": 1, "_apart": 1}))
            if old is None:
                raise KeyError(msg_id)
            made, apart, gone = changes_of(changed, old)
            self._put_apart(msg_id, apart)
            self._again(lambda: self._tasks.update_one({"_id": msg_id}, {"$set": made}))
            if gone:
                self._again(lambda: self._chunks.delete_many({"owner": msg_id, "key": {"$in": gone}}))
            if changed.get("completed") is not None:
                self._pending.discard(msg_id)

    def drop_record(self, msg_id: TaskId) -> None:
        with self._writing("drop a record"):
            if not self._drop({"_id": msg_id}):
                raise KeyError(msg_id)

    def drop_matching_records(self, query: QueryDict) -> int:
        parse(query)
        with self._writing("drop records"):
            return self._drop(relayed(query))

    def find_records(
        self,
        query: QueryDict,
        keys: Iterable[str] | str | None = None,
        *,
        sort: Sort | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> list[TaskRecord]:
        parse(query)
        wanted, order = parse_keys(keys), parse_sort(sort)
        limit, skip = parse_window(limit, skip)
        if limit == 0:
            return []
        by: dict[str, int] = {}  # of a key named twice the first decides
        for path, descending in order:
            by.setdefault(server_path(path), -1 if descending else 1)
        for name, direction in _BY_SUBMISSION:
            by.setdefault(name, direction)
        found = self._documents(relayed(query), wanted, tuple(by.items()), limit or 0, skip)
        return [record_of(document, apart, wanted) for document, apart in found]

    def count(self, query: QueryDict) -> int:
        parse(query)
        wanted = relayed(query)
        with self._reported("count"):
            return int(
                self._again(lambda: self._tasks.count_documents(wanted, maxTimeMS=int(self._query_seconds * 1000)))
            )

    def page(
        self, query: QueryDict, keys: Iterable[str] | str | None = None, *, after: Cursor | None = None, limit: int
    ) -> Page:
        parse(query)
        wanted, parts = parse_keys(keys), [relayed(query)]
        if after is not None:
            seconds, last = after
            same = {"_seconds.submitted": seconds, "_id": {"$gt": last}}
            later = {"_seconds.submitted": {"$ne": None} if seconds is None else {"$gt": seconds}}
            parts.append({"$or": [same, later]})
        found = list(self._documents({"$and": parts}, wanted, _BY_SUBMISSION, limit))
        end = found[-1][0] if len(found) == limit else None
        return Page(
            [record_of(document, apart, wanted) for document, apart in found],
            None if end is None else (end["_seconds"]["submitted"], end["_id"]),
        )

    def distinct(self, key: str, query: QueryDict) -> list[Any]:
        parse(query)
        path = parse_path(key)
        records = self._values(query, [path[0]])
        return distinct(value for record in records for value in elements_at(record, path))

    def group_by(
        self, key: str, query: QueryDict, *, values: str | None = None, percentiles: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        parse(query)
        path, measured = parse_path(key), parse_path(values) if values is not None else None
        wanted = parse_percentiles(percentiles)
        records = self._values(query, [path[0], *(measured or ())[:1]])
        pairs = ((value_at(r, path), value_at(r, measured) if measured else None) for r in records)
        return group(pairs, wanted, measured is not None)

    # what is kept

    def pin(self, ids: Sequence[TaskId], pinned: bool) -> int:
        query = {"_id": {"$in": list(ids)}, "pinned": {"$ne": True} if pinned else True}
        with self._writing("pin records"):
            change = {"$set": {"pinned": pinned}}
            return int(self._again(lambda: self._tasks.update_many(query, change)).modified_count)

    def drop_buffers(self, ids: Sequence[TaskId]) -> int:
        finished = {"_id": {"$in": list(ids)}, "completed": {"$ne": None}}
        some = {
            "$or": [{"result_buffers": {"$ne": None}}, {"buffers": {"$ne": None}, "_task.kind": {"$ne": "execute"}}]
        }
        with self._writing("let go of buffers"):
            query = {"$and": [finished, some]}
            keys = {"_task.kind": 1, "_apart": 1}
            dropped = 0
            for document in self._again(lambda: list(self._tasks.find(query, keys))):
                cell = (document["_task"] or {}).get("kind") == "execute"
                gone = ("result_buffers",) if cell else ("buffers", "result_buffers")
                apart = sorted(set(document["_apart"] or ()) - set(gone)) or None
                change = {"$set": {**dict.fromkeys(gone), "_apart": apart}}
                own = {"owner": document["_id"], "key": {"$in": list(gone)}}
                self._again(lambda id=document["_id"], change=change: self._tasks.update_one({"_id": id}, change))  # type: ignore[misc]
                self._again(lambda own=own: self._chunks.delete_many(own))  # type: ignore[misc]
                dropped += 1
            return dropped

    def used_references(self) -> Iterator[References]:
        return references.used(self._database, self._asked)

    def stored_references(self) -> Iterator[References]:
        return references.stored(self._database, self._asked)

    def drop_references(self, unused: References) -> int:
        with self._writing("drop unreferenced functions"):
            return references.drop(self._database, unused, self._again)

    def usage(self) -> Usage:
        with self._reported("count"):
            records = int(self._again(lambda: self._tasks.estimated_document_count()))
            told = self._again(lambda: self._database.command("dbStats"))
        return Usage(records, int(told.get("dataSize") or 0))

    def room(self) -> int | None:
        return None

    def give_back(self, most: int) -> int:
        return 0  # the server's affair

    def get_history(self) -> list[TaskId]:
        return [document["_id"] for document, _ in self._documents({}, [], _BY_SUBMISSION)]

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._lease is not None:
                self._lease.release()
            self._client.close()

    # inside: writing

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        if self._readonly and not self._closed:
            raise StoreError(f"cannot {what}: {self.url} is open for reading only")
        with self._guard, self._reported(what):
            if self._lease is not None and not self._closed:
                self._again(self._lease.check)
            yield

    def _insert(self, documents: Mapping[TaskId, tuple[Document, dict[str, bytes]]]) -> set[TaskId]:
        """Add documents; returns the ids of those that are there already."""
        import pymongo

        if not documents:
            return set()
        for id, (_, apart) in documents.items():
            self._put_apart(id, apart)
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

        if not self._try(insert):  # one of them is too much for the server: which?
            refused += [d for d in made if not self._try(lambda d=d: insert_one(d))]  # type: ignore[misc]
        for document in refused:  # for its size, or what users chose to put into it: that goes beside it
            document, apart = with_large_apart(document, free=True)
            self._put_apart(document["_id"], apart)
            self._again(lambda document=document: insert_one(document))  # type: ignore[misc]
        return there

    def _update(self, documents: Mapping[TaskId, tuple[Document, dict[str, bytes]]], doubtful: set[TaskId]) -> None:
        """Complete tasks that were written as pending; of `doubtful` ones it is first seen whether they were."""
        if doubtful:
            query = {"_id": {"$in": sorted(doubtful)}, "completed": None, "_task": {"$ne": None}}
            open_ = {d["_id"] for d in self._again(lambda: list(self._tasks.find(query, {"_id": 1})))}
            documents = {id: made for id, made in documents.items() if id not in doubtful or id in open_}
        made = list(documents.items())
        matched = sum(self._complete(made[start : start + UPDATES]) for start in range(0, len(made), UPDATES))
        if matched < len(made):
            self._insert(documents)  # somebody has removed them by hand: an outcome is not lost

    def _complete(self, made: Sequence[tuple[TaskId, tuple[Document, dict[str, bytes]]]]) -> int:
        """Complete these; returns how many there are."""
        import pymongo

        changes = [self._change(id, document, apart) for id, (document, apart) in made]
        matched = -1

        def send() -> None:
            nonlocal matched
            with contextlib.suppress(pymongo.errors.BulkWriteError, *no_document()):
                matched = self._tasks.bulk_write(changes, ordered=False).matched_count

        if self._try(send) and matched >= 0:
            return matched
        if len(made) > 1:
            return sum(self._complete([one]) for one in made)
        [(id, (document, apart))] = made
        document, more = with_large_apart(document, free=True)
        changes = [self._change(id, document, {**apart, **more})]
        return int(self._again(lambda: self._tasks.bulk_write(changes)).matched_count)

    def _change(self, id: TaskId, document: Document, apart: Mapping[str, bytes]) -> Any:
        from pymongo import UpdateMany

        outcome = {key: value for key, value in apart.items() if key != "buffers"}
        self._put_apart(id, outcome)
        change: Document = {"$set": outcome_of(document)}
        if outcome:
            change["$addToSet"] = {"_apart": {"$each": sorted(outcome)}}
            self._again(lambda: self._tasks.update_one({"_id": id, "_apart": None}, {"$set": {"_apart": []}}))
        # "Many" of one: after an update of one FerretDB keeps its cursor until the message's last, and locks up.
        return UpdateMany({"_id": id}, change)

    def _drop(self, query: Document) -> int:
        large = [
            d["_id"]
            for d in self._again(
                lambda: list(self._tasks.find({"$and": [query, {"_apart": {"$ne": None}}]}, {"_id": 1}))
            )
        ]
        dropped = int(self._again(lambda: self._tasks.delete_many(query)).deleted_count)
        self.dropped += dropped
        for start in range(0, len(large), BATCH):
            some = large[start : start + BATCH]
            self._again(lambda some=some: self._chunks.delete_many({"owner": {"$in": some}}))  # type: ignore[misc]
        return dropped

    def _put_apart(self, owner: str, values: Mapping[str, bytes]) -> None:
        """Store large values in chunks."""
        for key, value in values.items():
            for number, start in enumerate(range(0, max(len(value), 1), CHUNK_BYTES)):
                id = f"{owner} {key} {number}"
                chunk = {"_id": id, "owner": owner, "key": key, "number": number,
                         "data": value[start : start + CHUNK_BYTES]}  # fmt: skip
                self._again(lambda id=id, chunk=chunk: self._chunks.replace_one({"_id": id}, chunk, upsert=True))  # type: ignore[misc]

    def _make_indexes(self) -> None:
        for keys in _INDEXES:
            self._tasks.create_index(list(keys))
        self._chunks.create_index([("owner", 1)])

    # inside: reading

    def _documents(
        self,
        query: Document,
        keys: Iterable[str] | None,
        sort: Sequence[tuple[str, int]] = (),
        limit: int = 0,
        skip: int = 0,
    ) -> Iterator[tuple[Document, dict[str, bytes]]]:
        """Documents (with what `keys` need; None: with everything), and what of them is kept apart."""
        projection = None if keys is None else {"_id": 1, "_seconds": 1, "_apart": 1, **dict.fromkeys(keys, 1)}
        wanted = set(KEYS if keys is None else keys)
        with self._reported("read"):

            def start() -> tuple[Any, list[Document]]:
                cursor = self._tasks.find(query, projection, skip=skip, limit=limit, batch_size=BATCH)
                if sort:
                    cursor = cursor.sort(list(sort))
                cursor = cursor.max_time_ms(int(self._query_seconds * 1000))
                return cursor, list(itertools.islice(cursor, 1))

            cursor, first = self._again(start)  # later, a broken connection ends the answer: part of it is out
            with contextlib.closing(cursor):
                for document in itertools.chain(first, cursor):
                    yield document, self._apart_of(document, wanted)

    def _apart_of(self, document: Document, wanted: set[str]) -> dict[str, bytes]:
        keys = wanted & set(document.get("_apart") or ())
        return self._apart([document["_id"]], keys).get(document["_id"], {}) if keys else {}

    def _apart(self, owners: Sequence[str], keys: Iterable[str] | None = None) -> dict[str, dict[str, bytes]]:
        query: Document = {"owner": {"$in": list(owners)}}
        if keys is not None:
            query["key"] = {"$in": sorted(keys)}
        parts: dict[str, dict[str, dict[int, bytes]]] = {}
        for chunk in self._again(lambda: list(self._chunks.find(query))):
            parts.setdefault(chunk["owner"], {}).setdefault(chunk["key"], {})[chunk["number"]] = chunk["data"]
        return {
            owner: {key: b"".join(numbered[n] for n in sorted(numbered)) for key, numbered in by_key.items()}
            for owner, by_key in parts.items()
        }

    def _values(self, query: QueryDict, keys: list[str]) -> Iterator[TaskRecord]:
        wanted = parse_keys(keys)
        for document, apart in self._documents(relayed(query), wanted):
            yield record_of(document, apart, wanted)

    # inside: errors

    def _asked(self, ask: Callable[[], _T]) -> _T:
        """What the server answers to a question."""
        with self._reported("read"):
            return self._again(ask)

    def _again(self, ask: Callable[[], _T]) -> _T:
        """Ask the server; ask again for a while if the connection breaks."""
        from pymongo.errors import ConnectionFailure

        deadline, pause = time.monotonic() + self._patience, 0.05
        while True:
            try:
                return ask()
            except ConnectionFailure:
                if self._closed or time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, 1.0)

    def _try(self, ask: Callable[[], object]) -> bool:
        """Ask; False if the connection breaks each time, though the server is there and answers others."""
        from pymongo.errors import ConnectionFailure

        for _ in range(TRIES):
            try:
                ask()
                return True
            except ConnectionFailure:
                self._again(lambda: self._client.admin.command("ping"))
        return False

    @contextlib.contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        """Errors of the server and the connection, as ours."""
        from pymongo import errors

        if self._closed:
            raise StoreError(f"cannot {what}: {self.url} is closed")
        try:
            yield
        except errors.ConnectionFailure as error:
            raise StoreError(
                f"cannot {what}: no MongoDB server answers at {hosts_of(self._client)} ({brief(error)})"
            ) from None
        except errors.ExecutionTimeout as error:
            raise Deadline(self._query_seconds).passed() from error
        except errors.OperationFailure as error:
            if error.code == _TIMED_OUT:
                raise Deadline(self._query_seconds).passed() from error
            if error.code in (18, 8000) or "auth" in str(error).lower():
                raise StoreError(f"{self.url} refuses the user or the password ({brief(error)})") from None
            if what in ("read", "count"):
                raise QueryError(f"the MongoDB server does not answer this query: {brief(error)}") from error
            raise StoreError(f"the MongoDB server could not {what}: {brief(error)}") from error
        except (errors.PyMongoError, OverflowError) as error:
            raise StoreError(f"the MongoDB server could not {what}: {brief(error)}") from error


def _merged(entries: Sequence[Entry]) -> dict[TaskId, Entry]:
    """One entry per task: the first outcome stays, what was submitted first is the request."""
    found: dict[TaskId, Entry] = {}
    for entry in entries:
        old = found.get(entry.spec.id)
        if old is None or old.done is None:
            found[entry.spec.id] = entry
    return found
