"""MongoDB: the task database on a server that speaks MongoDB's protocol.

Six collections: `tasks` (a document per record), `functions`, `environments`, `chunks` (values that are too large for
a document), `lease` (which controller the database belongs to) and `about` (the version of the documents). Chunks are
written before the documents that refer to them.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...errors import StoreDamaged, StoreError
from ...ids import ClientId, Digest, TaskId
from ...messages import Environment, Function
from ...records.entry import Entry, checked
from ...records.fields import BULKY, KEYS
from ...records.record import TaskRecord
from ..base import QUERY_SECONDS, Columns, Cursor, Page, QueryDict, References, Sort, Usage, in_columns
from ..canonical import canonical
from ..query.arguments import parse_keys, parse_page_size, parse_path, parse_percentiles, parse_sort, parse_window
from ..query.deadline import Deadline
from ..query.group import distinct, elements_at, group, value_at
from ..query.nodes import Query
from ..query.parse import parse
from ..unreadable import Unreadable, bytes_of, function_of, make_or_name
from . import references
from .chunks import Chunks
from .connection import PATIENCE_SECONDS, Connection
from .documents import Document, added_document, changes_of, entry_of, record_of
from .lease import LEASE_SECONDS, Lease
from .queries import server_path, server_query
from .version import check_version, note_version
from .writing import BATCH, Writer, merged

log = logging.getLogger(__name__)

_BY_SUBMISSION = (("_seconds.submitted", 1), ("_id", 1))
_INDEXES = (
    _BY_SUBMISSION, (("state", 1), *_BY_SUBMISSION), (("engine_id", 1), *_BY_SUBMISSION),
    (("engine_uuid", 1),), (("_seconds.completed", 1),), (("arguments_digest", 1),),
)  # fmt: skip


class MongoDB:
    """The task database on a MongoDB server.

    Arguments
    ---------
    url : str
        "mongodb://user:password@host/database"; without a database it is "engineroom". Options of pymongo may follow.
    query_seconds : float
        A query that takes longer is an error.
    readonly : bool
        Only read. A controller may be using the database.

    Raises
    ------
    StoreBusy
        Another controller owns the database.
    StoreError
        No server answers, or it refuses the user; or a newer Engineroom made the database.
    """

    keeps = True
    dropped = 0
    durable = True
    hold_seconds = 0.5  # to complete a document costs the server more than to insert a whole one

    def __init__(
        self,
        url: str,
        *,
        query_seconds: float = QUERY_SECONDS,
        patience: float = PATIENCE_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        readonly: bool = False,
    ) -> None:
        self._connection = Connection(url, query_seconds, patience)
        #: without the password
        self.url = self._connection.url
        self._again, self._reported = self._connection.again, self._connection.reported
        self._database: Any = self._connection.database
        self._tasks: Any = self._database.tasks
        self._chunks = Chunks(self._connection)
        self._writer = Writer(self._connection, self._chunks)
        self._readonly = readonly
        self._lease: Lease | None = None
        self._guard = threading.Lock()
        self._unreadable = Unreadable()
        try:
            with self._reported("open the database"):
                self._connection.ping()
                check_version(self._database, self.url)
                if not readonly:
                    self._lease = Lease(self._database, self.url, lease_seconds)
                    note_version(self._database)
                    for keys in _INDEXES:
                        self._tasks.create_index(list(keys))
                    self._chunks.make_index()
        except BaseException:
            self.close()
            raise

    # the hot path

    def write(self, entries: Sequence[Entry]) -> None:
        tasks = list(merged(entries).items())
        for start in range(0, len(tasks), BATCH):
            with self._writing("write tasks"):
                self._writer.write(dict(tasks[start : start + BATCH]))

    def add_functions(self, functions: Sequence[Function]) -> None:
        collection = self._database.functions
        with self._writing("keep functions"):
            for function in functions:
                id = function.digest.hex()
                if self._again(collection.find_one, {"_id": id}) is None:
                    self._chunks.put(f"function {id}", {"payload": function.payload})
                    document = {"_id": id, "name": function.name, "source": function.source}
                    self._again(collection.replace_one, {"_id": id}, document, upsert=True)

    def get_function(self, digest: Digest) -> Function:
        id = digest.hex()
        with self._reported("read"):
            found = self._chunks.get([f"function {id}"]).get(f"function {id}")
            about = self._again(self._database.functions.find_one, {"_id": id}) or {}
        if not found:
            raise KeyError(digest)
        return function_of(digest, found.get("payload"), about.get("name"), about.get("source"))

    def add_environments(self, environments: Sequence[tuple[ClientId, Environment]]) -> None:
        with self._writing("keep environments"):
            for _, environment in environments:
                document = {"_id": environment.digest, "content": environment.content}
                key = {"_id": environment.digest}
                self._again(self._database.environments.replace_one, key, document, upsert=True)

    def get_environment(self, digest: str) -> bytes:
        with self._reported("read"):
            found = self._again(self._database.environments.find_one, {"_id": digest})
        if found is None:
            raise KeyError(digest)
        return bytes_of(found.get("content"), f"environment {digest}")

    def unfinished(self) -> Iterator[Entry]:
        query = {"completed": None, "_task": {"$ne": None}}
        for document, apart in self._documents(query, None, _BY_SUBMISSION):
            self._writer.pending.add(document["_id"])
            try:
                yield _entry(document, apart)
            except StoreDamaged as error:
                log.error("an unfinished task is lost: %s", error)

    def entries(self, ids: Sequence[TaskId]) -> dict[TaskId, Entry]:
        query = {"_id": {"$in": list(ids)}, "_task": {"$ne": None}}
        found = {d["_id"]: _entry(d, apart) for d, apart in self._documents(query, None)}
        return {id: found[id] for id in ids if id in found}

    # records, as users know them

    def add_record(self, msg_id: TaskId, record: Mapping[str, Any]) -> None:
        document, apart = added_document(msg_id, canonical(record, msg_id))
        with self._writing("add a record"):
            if self._writer.insert({msg_id: (document, apart)}):
                raise StoreError(f"there is a record of task {msg_id} already")

    def get_record(self, msg_id: TaskId) -> TaskRecord:
        for document, apart in self._documents({"_id": msg_id}, None):
            return make_or_name(lambda: record_of(document, apart, KEYS), msg_id)  # noqa: B023
        raise KeyError(msg_id)

    def update_record(self, msg_id: TaskId, changes: Mapping[str, Any]) -> None:
        changed = canonical(changes, msg_id)
        with self._writing("change a record"):
            old = self._again(self._tasks.find_one, {"_id": msg_id}, {"_seconds": 1, "_apart": 1})
            if old is None:
                raise KeyError(msg_id)
            made, apart, gone = changes_of(changed, old)
            self._chunks.put(msg_id, apart)
            self._again(self._tasks.update_one, {"_id": msg_id}, {"$set": made})
            if gone:
                self._chunks.drop([msg_id], gone)
            if changed.get("completed") is not None:
                self._writer.pending.discard(msg_id)

    def drop_record(self, msg_id: TaskId) -> None:
        if not self._drop("drop a record", {"_id": msg_id}):
            raise KeyError(msg_id)

    def drop_matching_records(self, query: QueryDict) -> int:
        return self._drop("drop records", server_query(parse(query)))

    def drop_in_pieces(self, query: QueryDict) -> Iterator[int]:
        after: Cursor | None = None
        while True:
            page = self.page(query, "msg_id", after=after, limit=BATCH)
            ids = [record["msg_id"] for record in page.records]
            yield self._drop("drop records", {"_id": {"$in": ids}}) if ids else 0
            after = page.next
            if after is None:
                return

    def _drop(self, what: str, query: Document) -> int:
        with self._writing(what):
            dropped = self._writer.drop(query)
        self.dropped += dropped
        return dropped

    def find_records(
        self,
        query: QueryDict,
        keys: Iterable[str] | str | None = None,
        *,
        sort: Sort | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> list[TaskRecord]:
        parsed, wanted, order = parse(query), parse_keys(keys), parse_sort(sort)
        limit, skip = parse_window(limit, skip)
        if limit == 0:
            return []
        by: dict[str, int] = {}  # of a key named twice the first decides
        for path, descending in order:
            by.setdefault(server_path(path), -1 if descending else 1)
        for name, direction in _BY_SUBMISSION:
            by.setdefault(name, direction)
        found = self._documents(server_query(parsed), wanted, tuple(by.items()), limit or 0, skip)
        return list(self._records(found, wanted))

    def find_columns(
        self,
        query: QueryDict,
        keys: Iterable[str] | str | None = None,
        *,
        sort: Sort | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> Generator[Columns]:
        return in_columns(self.find_records(query, keys, sort=sort, limit=limit, skip=skip))

    def count(self, query: QueryDict) -> int:
        wanted = server_query(parse(query))
        with self._reported("count"):
            return int(self._again(self._tasks.count_documents, wanted, maxTimeMS=self._milliseconds))

    def page(
        self, query: QueryDict, keys: Iterable[str] | str | None = None, *, after: Cursor | None = None, limit: int
    ) -> Page:
        parts, wanted, limit = [server_query(parse(query))], parse_keys(keys), parse_page_size(limit)
        if after is not None:
            seconds, last = after
            same = {"_seconds.submitted": seconds, "_id": {"$gt": last}}
            later = {"_seconds.submitted": {"$ne": None} if seconds is None else {"$gt": seconds}}
            parts.append({"$or": [same, later]})
        found = list(self._documents({"$and": parts}, wanted, _BY_SUBMISSION, limit))
        end = found[-1][0] if len(found) == limit else None
        return Page(
            list(self._records(found, wanted)),
            None if end is None else (_submitted(end), end["_id"]),
        )

    def distinct(self, key: str, query: QueryDict) -> list[Any]:
        parsed, path = parse(query), parse_path(key)
        records = self._values(parsed, [path[0]])
        return distinct(value for record in records for value in elements_at(record, path))

    def group_by(
        self, key: str, query: QueryDict, *, values: str | None = None, percentiles: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        parsed = parse(query)
        path, measured = parse_path(key), parse_path(values) if values is not None else None
        wanted = parse_percentiles(percentiles)
        records = self._values(parsed, [path[0], *(measured or ())[:1]])
        pairs = ((value_at(r, path), value_at(r, measured) if measured else None) for r in records)
        return group(pairs, wanted, measured is not None)

    # what is kept

    def pin(self, ids: Sequence[TaskId], pinned: bool) -> int:
        query = {"_id": {"$in": list(ids)}, "pinned": {"$ne": True} if pinned else True}
        with self._writing("pin records"):
            change = {"$set": {"pinned": pinned}}
            return int(self._again(self._tasks.update_many, query, change).modified_count)

    def drop_buffers(self, ids: Sequence[TaskId]) -> int:
        finished = {"_id": {"$in": list(ids)}, "completed": {"$ne": None}}
        some = {
            "$or": [{"result_buffers": {"$ne": None}}, {"buffers": {"$ne": None}, "_task.kind": {"$ne": "execute"}}]
        }
        with self._writing("drop buffers"):
            query = {"$and": [finished, some]}
            keys = {"_task.kind": 1, "_apart": 1}
            dropped = 0
            for document in self._again(lambda: list(self._tasks.find(query, keys))):
                cell = (document["_task"] or {}).get("kind") == "execute"
                gone = BULKY - {"buffers"} if cell else BULKY
                apart = sorted(set(document["_apart"] or ()) - gone) or None
                change = {"$set": {**dict.fromkeys(gone), "_apart": apart}}
                self._again(self._tasks.update_one, {"_id": document["_id"]}, change)
                self._chunks.drop([document["_id"]], gone)
                dropped += 1
            return dropped

    def large_buffers(self, most: int) -> list[tuple[TaskId, int]]:
        return []  # how much a server may hold is its administrator's matter

    def used_references(self) -> Iterator[References]:
        return references.used(self._database, self._connection.read)

    def stored_references(self) -> Iterator[References]:
        return references.stored(self._database, self._connection.read)

    def drop_references(self, unused: References) -> int:
        with self._writing("drop unreferenced functions"):
            return references.drop(self._database, unused, self._again)

    def usage(self) -> Usage:
        with self._reported("count"):
            told = self._again(self._database.command, "dbStats")
        return Usage(int(told.get("dataSize") or 0))

    def room(self) -> int | None:
        return None

    def give_back(self, most: int) -> int:
        return 0  # the server decides about its files

    def get_history(self) -> list[TaskId]:
        return [document["_id"] for document, _ in self._documents({}, [], _BY_SUBMISSION)]

    def close(self) -> None:
        if not self._connection.closed:
            if self._lease is not None:
                self._lease.release()
            self._connection.close()

    # inside

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        if self._readonly and not self._connection.closed:
            raise StoreError(f"cannot {what}: {self.url} is open for reading only")
        with self._guard, self._reported(what):
            if self._lease is not None:
                self._again(self._lease.check)
            yield

    @property
    def _milliseconds(self) -> int:
        """What the server may take for a question that begins now: a moment more than its asker has."""
        left = Deadline(self._connection.query_seconds).left_elsewhere()
        return int(max(left, 0.0) * 1000) + 50

    def _documents(
        self,
        query: Document,
        keys: Iterable[str] | None,
        sort: Sequence[tuple[str, int]] = (),
        limit: int = 0,
        skip: int = 0,
    ) -> Iterator[tuple[Document, dict[str, bytes]]]:
        """Documents (with what `keys` need; None: with everything), and those of their values that are kept apart."""
        projection = None if keys is None else {"_id": 1, "_seconds": 1, "_apart": 1, **dict.fromkeys(keys, 1)}
        wanted = set(KEYS if keys is None else keys)
        with self._reported("read"):

            def start() -> tuple[Any, list[Document]]:
                cursor = self._tasks.find(query, projection, skip=skip, limit=limit, batch_size=BATCH)
                if sort:
                    cursor = cursor.sort(list(sort))
                cursor = cursor.max_time_ms(self._milliseconds)
                return cursor, list(itertools.islice(cursor, 1))

            cursor, first = self._again(start)  # later it cannot be asked again: part of the answer is out
            with contextlib.closing(cursor):
                for document in itertools.chain(first, cursor):
                    id, apart = document["_id"], wanted.intersection(_names(document.get("_apart")))
                    yield document, self._chunks.get([id], apart).get(id, {}) if apart else {}

    def _values(self, query: Query, keys: list[str]) -> Iterator[TaskRecord]:
        wanted = parse_keys(keys)
        return self._records(self._documents(server_query(query), wanted), wanted)

    def _records(
        self, found: Iterable[tuple[Document, dict[str, bytes]]], keys: Sequence[str]
    ) -> Iterator[TaskRecord]:
        """Some keys of the records in documents, without those that cannot be read."""
        made = self._unreadable.each(found, lambda one: one[0]["_id"], lambda one: record_of(one[0], one[1], keys))
        return (record for _, record in made)


def _entry(document: Document, apart: Mapping[str, bytes]) -> Entry:
    return make_or_name(lambda: checked(entry_of(document, apart)), document["_id"])


def _submitted(document: Document) -> float | None:
    """Seconds, also of a document that has been changed by others."""
    seconds = document.get("_seconds")
    found = seconds.get("submitted") if isinstance(seconds, dict) else None
    return found if isinstance(found, float) else None


def _names(value: Any) -> Iterable[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else ()
