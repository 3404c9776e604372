"""SQLiteDB: the task database in one file, kept between sessions.

One writer: the thread that calls `write`, `update_record`, …. Any number of readers, each thread with a
connection of its own; in WAL mode neither waits for the other.

A batch is written with few, large statements. `executemany` would give up and take back the interpreter's lock
for every row, and each time wait for a busy main thread; one statement with a thousand rows of values runs
without the lock, and is prepared once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from ...errors import ConfigError, QueryError, StoreDamaged, StoreError
from ...ids import ClientId, Digest, EngineUuid, TaskId
from ...messages import Environment, Function
from ...records.record import TIMES, Entry, TaskRecord
from ..base import QUERY_SECONDS, Cursor, Page, QueryDict, References, Sort, Usage
from ..query.group import distinct, elements_at, group, parse_percentiles, value_at
from ..query.match import Deadline, compile, compile_regex
from ..query.order import sort_rows
from ..query.parse import Query, Regex, keys_in, parse, parse_keys, parse_path, parse_sort, parse_window
from . import edits, references
from .blobs import Sharing, has_large, load
from .file import (  # fmt: skip
    advised,
    complain_if_cut,
    complain_if_moved,
    complain_if_old,
    free_bytes,
    give_back,
    open_to_read,
    open_to_write,
    own,
    reported,
    used_bytes,
)
from .rows import (  # fmt: skip
    ANY,
    COLUMN_TYPES,
    OUTCOME_COLUMNS,
    WHOLE,
    Reader,
    Shape,
    checked,
    entry_of,
    normal,
    parameters,
    record_of,
)
from .where import ORDER, Where, indexed, narrowed, order_clause, translate, unhinted

log = logging.getLogger(__name__)

#: Rows per statement, each prepared once. The last rows of a batch are padded to the next size with rows of zeros,
#: which the statement leaves out: that costs less than another statement.
_SIZES = tuple(1 << n for n in range(11))


@cache
def _insert(shape: Shape, rows: int) -> str:
    """The statement that writes so many rows of a shape. The first outcome of a task stays."""
    names = [f"column{number} AS {name}" for number, name in enumerate(shape.bound, 1)]
    row = f"({', '.join('?' * len(shape.bound))})"
    changes = ", ".join(f"{column} = excluded.{column}" for column in OUTCOME_COLUMNS)
    return (
        f"INSERT INTO tasks ({', '.join([*shape.bound, *dict(shape.derived)])})"
        f" SELECT {', '.join(['*', *dict(shape.derived).values()])}"
        f" FROM (SELECT {', '.join(names)} FROM (VALUES {', '.join([row] * rows)}))"
        f" WHERE msg_id <> 0 ON CONFLICT (msg_id) DO UPDATE SET {changes}"
        " WHERE tasks.completed IS NULL AND tasks.kind IS NOT NULL"
    )


#: Columns whose values stand in records as they are.
_GROUPED_BY_SQL = COLUMN_TYPES.keys() - TIMES - {"function"}


class SQLiteDB:
    """The task database in an SQLite file.

    Arguments
    ---------
    path : str or path
        The file; made (readable to its owner alone) if missing.
    synchronous : "NORMAL", "FULL" or "OFF"
        What a commit waits for. With NORMAL a killed process loses nothing, a power cut perhaps the last moments;
        FULL waits for the disk at each commit.
    readonly : bool
        Look at a file that a controller may be using; nothing can be written.
    query_seconds : float
        A query that takes longer is an error.
    journal : "auto", "wal" or "rollback"
        How changes get into the file: with a write-ahead log, or a rollback journal where the file system has not what
        a log needs ("auto" finds out).

    Raises
    ------
    StoreBusy
        Another controller owns the file.
    StoreDamaged
        It is not a task database, or has been cut or overwritten.
    StoreError
        Another program's database, or a newer Engineroom made it.
    """

    keeps = True
    dropped = 0
    durable = True
    hold_seconds = 0.2  # a pending row that is completed is written twice

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["NORMAL", "FULL", "OFF"] = "NORMAL",
        readonly: bool = False,
        query_seconds: float = QUERY_SECONDS,
        journal: Literal["auto", "wal", "rollback"] = "auto",
    ) -> None:
        if journal not in ("auto", "wal", "rollback"):
            raise ConfigError(f"journal must be auto, wal or rollback, got {journal!r}")
        if synchronous not in ("NORMAL", "FULL", "OFF"):
            raise ConfigError(f"synchronous must be NORMAL, FULL or OFF, got {synchronous!r}")
        self.path = Path(path).absolute()
        self.url = f"sqlite://{self.path}"
        self._readonly, self._query_seconds = readonly, query_seconds
        self._local = threading.local()
        self._hosts: dict[EngineUuid, str] = {}  # of engines, as far as they are in the table
        self._readers: list[sqlite3.Connection] = []
        self._guard = threading.Lock()  # of the two below, and of `_readers`
        self._writer: sqlite3.Connection | None = None
        self._closed = False
        self._lock_file: IO[str] | None = None
        self._sharing = Sharing()
        if readonly:
            self._check_readable()
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file, died = own(self.path)
        except OSError as error:
            raise StoreError(f"cannot open {self.path}: {error.strerror}") from error
        try:
            with reported(f"open {self.path}"):
                self._writer = open_to_write(self.path, synchronous, journal, died)
                self._prepare(self._writer)
                self._inode = os.stat(self.path).st_ino
        except BaseException:
            self.close()
            raise
        limit = self._writer.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        self._sizes = [size for size in _SIZES if size * len(ANY.bound) <= limit]

    @classmethod
    def open_readonly(cls, path: str | os.PathLike[str]) -> SQLiteDB:
        """A store to read from only, also while a controller writes."""
        return cls(path, readonly=True)

    # the hot path

    def write(self, entries: Sequence[Entry]) -> None:
        if has_large(entries):
            with self._writing("write tasks") as connection:
                self._insert(connection, self._sharing.share(connection, entries))
            self._sharing.done()
        elif entries:
            self._insert(None, entries)

    def _insert(self, connection: sqlite3.Connection | None, entries: Sequence[Entry]) -> None:
        """Write entries without large buffers, in a transaction of their own unless there is one."""
        statements = [
            (_insert(shape, size), values)
            for shape, flat in parameters(entries)
            for size, values in self._chunks(flat, len(shape.bound))
        ]
        known = self._hosts
        hosts = {e.engine_uuid: e.host for e in entries if e.host and e.engine_uuid and e.engine_uuid not in known}
        with (
            contextlib.nullcontext(connection)
            if connection is not None
            else self._writing("write tasks", whole=len(statements) > 1 or bool(hosts))
        ) as connection:
            for sql, values in statements:
                connection.execute(sql, values)
            connection.executemany("INSERT OR IGNORE INTO engines VALUES (?, ?)", list(hosts.items()))
        known.update(hosts)

    def _chunks(self, flat: list[Any], width: int) -> Iterator[tuple[int, list[Any]]]:
        """Rows cut, and padded, to sizes that have a statement."""
        largest = self._sizes[-1]
        for start in range(0, len(flat), largest * width):
            values = flat[start : start + largest * width] if len(flat) > largest * width else flat
            rows = len(values) // width
            size = next(size for size in self._sizes if rows <= size)
            yield size, values + [0] * ((size - rows) * width) if size > rows else values

    def add_functions(self, functions: Sequence[Function]) -> None:
        with self._writing("keep functions") as connection:
            for function in functions:
                row = (function.digest, function.name, function.source, function.payload)
                connection.execute("INSERT OR IGNORE INTO functions VALUES (?, ?, ?, ?)", row)

    def get_function(self, digest: Digest) -> Function:
        for name, source, payload in self._read(
            "SELECT name, source, payload FROM functions WHERE digest = ?", (digest,)
        ):
            return Function(digest, bytes(payload), name, source)
        raise KeyError(digest)

    def add_environments(self, environments: Sequence[tuple[ClientId, Environment]]) -> None:
        with self._writing("keep environments") as connection:
            for client, environment in environments:
                row = (environment.digest, environment.content)
                connection.execute("INSERT OR IGNORE INTO environments VALUES (?, ?)", row)
                connection.execute("INSERT OR IGNORE INTO clients VALUES (?, ?)", (client, environment.digest))

    def get_environment(self, digest: str) -> bytes:
        for (content,) in self._read("SELECT content FROM environments WHERE digest = ?", (digest,)):
            return bytes(content)
        raise KeyError(digest)

    def unfinished(self) -> Iterator[Entry]:
        sql = f"SELECT {WHOLE} FROM tasks WHERE completed IS NULL AND kind IS NOT NULL ORDER BY {ORDER}"
        for row in self._read(sql):
            try:
                yield entry_of(checked(row), self._load)
            except StoreDamaged as error:
                log.error("an unfinished task is lost: %s", error)

    def entries(self, ids: Sequence[TaskId]) -> dict[TaskId, Entry]:
        found: dict[TaskId, Entry] = {}
        for start in range(0, len(ids), 500):
            some = list(ids[start : start + 500])
            sql = f"SELECT {WHOLE} FROM tasks WHERE msg_id IN ({', '.join('?' * len(some))}) AND kind IS NOT NULL"
            with self._snapshot():
                found |= {e.id: e for e in (entry_of(checked(row), self._load) for row in self._read(sql, some))}
        return {id_: found[id_] for id_ in ids if id_ in found}

    # records, as users know them

    def add_record(self, msg_id: TaskId, record: Mapping[str, Any]) -> None:
        whole = normal(record, msg_id)
        with self._writing("add a record") as connection:
            if not edits.add(connection, self._sharing, msg_id, whole):
                raise StoreError(f"there is a record of task {msg_id} already")

    def get_record(self, msg_id: TaskId) -> TaskRecord:
        with self._snapshot():
            for row in self._read(f"SELECT {WHOLE} FROM tasks WHERE msg_id = ?", (msg_id,)):
                return record_of(checked(row), self._load)
        raise KeyError(msg_id)

    def update_record(self, msg_id: TaskId, changes: Mapping[str, Any]) -> None:
        changed = normal(changes, msg_id)
        with self._writing("change a record") as connection:
            if not edits.change(connection, self._sharing, msg_id, changed):
                raise KeyError(msg_id)

    def drop_record(self, msg_id: TaskId) -> None:
        with self._writing("drop a record") as connection:
            if not connection.execute("DELETE FROM tasks WHERE msg_id = ?", (msg_id,)).rowcount:
                raise KeyError(msg_id)
            self._sharing.forget()
        self.dropped += 1

    def drop_matching_records(self, query: QueryDict) -> int:
        parsed = parse(query)
        where, deadline = translate(parsed), Deadline(self._query_seconds)
        with self._writing("drop records") as connection, self._in_time(deadline):
            self._local.deadline = deadline
            self._sharing.forget()
            if where.exact:
                dropped = connection.execute(f"DELETE FROM tasks WHERE {where.sql}", where.parameters).rowcount
            else:
                doomed = [(seq,) for seq, _ in self._scan(parsed, where, "", (), deadline, connection)]
                dropped = connection.executemany("DELETE FROM tasks WHERE seq = ?", doomed).rowcount
        self.dropped += dropped
        return dropped

    # what is kept

    def pin(self, ids: Sequence[TaskId], pinned: bool) -> int:
        with self._writing("pin records") as connection:
            return edits.pin(connection, ids, pinned)

    def drop_buffers(self, ids: Sequence[TaskId]) -> int:
        with self._writing("let go of buffers") as connection:
            self._sharing.forget()
            return edits.drop_buffers(connection, ids)

    def used_references(self) -> Iterator[References]:
        self._hosts.clear()  # engines that come into it from now on stay
        return references.used(self._read)

    def stored_references(self) -> Iterator[References]:
        return references.stored(self._read)

    def drop_references(self, unused: References) -> int:
        with self._writing("drop unreferenced functions") as connection:
            return references.drop(connection, unused, self._hosts)

    def usage(self) -> Usage:
        with reported("look at its file"):
            used, free = used_bytes(self._reader())
        [(records,)] = self._read("SELECT count(*) FROM tasks")
        return Usage(records, used, free, free_bytes(self.path))

    def room(self) -> int | None:
        return free_bytes(self.path)

    def give_back(self, most: int) -> int:
        with self._writing("shrink", whole=False) as connection:
            return give_back(connection, most)

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
        where, clause, deadline = narrowed(parsed, self._read), order_clause(order), Deadline(self._query_seconds)
        if order and order[0][0] == ("completed",):
            where = indexed(where)
        if clause is not None and where.exact:
            window = f" LIMIT {-1 if limit is None else limit} OFFSET {skip}"
            with self._snapshot():  # also of the buffers that it shares with others
                return list(self._select(where, clause + window, wanted, deadline))
        end = None if limit is None else skip + limit
        with self._snapshot():
            if clause is not None:
                found = self._scan(parsed, where, clause, (), deadline)
                return self._fetch([seq for seq, _ in islice(found, skip, end)], wanted, deadline)
            times = [path[0] for path, _ in order if path[0] in TIMES and len(path) == 1]
            keys_ = {path[0] for path, _ in order}
            rows = list(self._scan(parsed, where, f" ORDER BY {ORDER}", keys_, deadline, first=("seq", *times)))
            sort_rows(rows, order, times)
            return self._fetch([row[0] for row in rows[skip:end]], wanted, deadline)

    def count(self, query: QueryDict) -> int:
        parsed = parse(query)
        where, deadline = indexed(translate(parsed)), Deadline(self._query_seconds)
        if where.exact:
            [(number,)] = self._read(f"SELECT count(*) FROM tasks WHERE {where.sql}", where.parameters, deadline)
            return int(number)
        return sum(1 for _ in self._scan(parsed, where, "", (), deadline))

    def page(
        self, query: QueryDict, keys: Iterable[str] | str | None = None, *, after: Cursor | None = None, limit: int
    ) -> Page:
        parsed, wanted, deadline = parse(query), parse_keys(keys), Deadline(self._query_seconds)
        where = narrowed(parsed, self._read)
        if after is not None:
            seconds, last = after
            if seconds is None:
                later = Where("(submitted IS NULL AND msg_id > ?) OR submitted IS NOT NULL", (last,))
            else:
                later = Where("(submitted, msg_id) > (?, ?)", (seconds, last))
            both = (*where.parameters, *later.parameters)
            where = where._replace(sql=f"({where.sql}) AND ({later.sql})", parameters=both)
        with self._snapshot():
            found = self._scan(parsed, where, f" ORDER BY {ORDER}", (), deadline)
            places = [seq for seq, _ in islice(found, limit)]
            records = self._fetch(places, wanted, deadline)
            if len(records) < limit:
                return Page(records, None)
            [(seconds, last)] = self._read("SELECT submitted, msg_id FROM tasks WHERE seq = ?", (places[-1],))
            return Page(records, (seconds, last))

    def distinct(self, key: str, query: QueryDict) -> list[Any]:
        path = parse_path(key)
        if len(path) == 1 and path[0] in _GROUPED_BY_SQL:
            parsed = parse(query)
            where, deadline = narrowed(parsed, self._read), Deadline(self._query_seconds)
            if where.exact:
                sql = f"SELECT DISTINCT {path[0]} FROM {where.table} WHERE {where.sql}"
                return distinct(value for (value,) in self._read(sql, where.parameters, deadline))
        return distinct(value for record in self._values(query, {path[0]}) for value in elements_at(record, path))

    def group_by(
        self, key: str, query: QueryDict, *, values: str | None = None, percentiles: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        path, wanted = parse_path(key), parse_percentiles(percentiles)
        measured = None if values is None else parse_path(values)
        parsed = parse(query)
        where = narrowed(parsed, self._read)
        if where.exact and all(len(p) == 1 and p[0] in _GROUPED_BY_SQL for p in (path, measured or path)):
            sql = f"SELECT {path[0]}, {measured[0] if measured else 'NULL'} FROM {where.table} WHERE {where.sql}"
            rows = self._read(sql, where.parameters, Deadline(self._query_seconds))
            return group(((name, value) for name, value in rows), wanted, measured is not None)
        records = self._values(query, {path[0], *(measured or ())[:1]})
        pairs = ((value_at(r, path), value_at(r, measured) if measured else None) for r in records)
        return group(pairs, wanted, measured is not None)

    def get_history(self) -> list[TaskId]:
        return [msg_id for (msg_id,) in self._read(f"SELECT msg_id FROM tasks ORDER BY {ORDER}")]

    def close(self) -> None:
        with self._guard:
            self._closed = True
            for connection in self._readers:
                connection.close()
            self._readers.clear()
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            if self._lock_file is not None:
                self._lock_file.truncate(0)  # … and with that, it says that all is well
                self._lock_file.close()
                self._lock_file = None

    # inside

    def _scan(
        self,
        query: Query,
        where: Where,
        tail: str,
        keys: Iterable[str],
        deadline: Deadline,
        connection: sqlite3.Connection | None = None,
        first: Sequence[str] = ("seq",),
    ) -> Iterator[tuple[Any, ...]]:
        """(seq, …, some keys) of the records that match; no more is read of a row than the question needs."""
        needed = {*keys} if where.exact else {*keys, *keys_in(query)}
        read, start = Reader(sorted(needed), first, self._load), len(first)
        rows = self._read(
            f"SELECT {read.columns} FROM {where.table} WHERE {where.sql}{tail}", where.parameters, deadline, connection
        )
        matches = None if where.exact else compile(query, deadline)
        for row in rows:
            record = read(row)
            if matches is None or matches(record):
                yield (*row[:start], record)

    def _load(self, number: int) -> bytes | None:
        """A buffer that records share."""
        return load(self._reader(), number)

    def _select(self, where: Where, tail: str, keys: Sequence[str], deadline: Deadline) -> Iterator[TaskRecord]:
        """Some keys of the rows that meet a condition."""
        read = Reader(keys, load=self._load)
        sql = f"SELECT {read.columns} FROM {where.table} WHERE {where.sql}{unhinted(where, tail)}"
        return map(read, self._read(sql, where.parameters, deadline))

    def _fetch(self, places: Sequence[int], keys: Sequence[str], deadline: Deadline) -> list[TaskRecord]:
        """Some keys of the rows at these places, in this order."""
        read = Reader(keys, load=self._load)
        found: dict[int, TaskRecord] = {}
        for start in range(0, len(places), 500):
            some = places[start : start + 500]
            sql = f"SELECT {read.columns} FROM tasks WHERE seq IN ({', '.join('?' * len(some))})"
            found |= {row[0]: read(row) for row in self._read(sql, some, deadline)}
        return [found[seq] for seq in places]

    def _values(self, query: QueryDict, keys: Iterable[str]) -> Iterator[TaskRecord]:
        """Some keys of the records that match, in any order."""
        parsed = parse(query)
        where, deadline = narrowed(parsed, self._read), Deadline(self._query_seconds)
        return (record for _, record in self._scan(parsed, where, "", keys, deadline))

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Whatever is read within is as it was at one moment."""
        connection = self._reader()
        if connection.in_transaction:
            yield
            return
        with reported("read"):
            connection.execute("BEGIN")
        try:
            yield
        finally:
            with reported("read"):
                connection.execute("COMMIT")

    def _read(
        self,
        sql: str,
        values: Sequence[Any] = (),
        deadline: Deadline | None = None,
        connection: sqlite3.Connection | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        connection = connection or self._reader()
        self._local.deadline = deadline
        with self._in_time(deadline):
            cursor = connection.execute(sql, values)
            try:
                while rows := cursor.fetchmany(500):
                    yield from rows
                    if deadline is not None and deadline.left() < 0:
                        raise deadline.passed()
            finally:
                cursor.close()

    @contextlib.contextmanager
    def _in_time(self, deadline: Deadline | None) -> Iterator[None]:
        """Errors of SQLite as ours; what stopped a statement from within is the better one."""
        self._local.stopped = None
        try:
            with reported("read"):
                yield
        except StoreError:
            if self._local.stopped is not None:
                raise self._local.stopped from None
            raise

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(self._is_late, 50_000)
        connection.create_function("text_matches", 3, self._text_matches, deterministic=True)

    def _is_late(self) -> bool:
        """Whether the statement that runs in this thread has used up its time; SQLite asks now and then."""
        deadline: Deadline | None = getattr(self._local, "deadline", None)
        if deadline is None or deadline.left() >= 0:
            return False
        self._local.stopped = deadline.passed()
        return True

    def _text_matches(self, pattern: str, flags: int, value: Any) -> bool:
        """$regex, for SQL."""
        known: tuple[str, int, Any, Any] | None = getattr(self._local, "pattern", None)
        deadline = self._local.deadline
        if known is None or known[0] != pattern or known[1] != flags or known[2] is not deadline:
            known = pattern, flags, deadline, compile_regex(Regex(pattern, flags), deadline)
            self._local.pattern = known
        try:
            return bool(known[3](value))
        except QueryError as error:
            self._local.stopped = error
            raise

    def _reader(self) -> sqlite3.Connection:
        """This thread's connection to read with."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None or self._closed:
            with self._guard:
                if self._closed:
                    raise StoreError(f"{self.path} is closed")
                connection = open_to_read(self.path)
                self._prepare(connection)
                self._readers.append(connection)
            self._local.connection = connection
        return connection

    def _check_readable(self) -> None:
        try:
            if not self.path.exists():
                raise StoreError(f"there is no task database {self.path}")
            with advised(self.path):
                complain_if_cut(self.path)
            with reported(f"open {self.path}"):
                complain_if_old(self._reader(), self.path)
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def _writing(self, what: str, whole: bool = True) -> Iterator[sqlite3.Connection]:
        """The connection to write with, in a transaction (`whole`): all of it happens, or nothing."""
        with self._guard, reported(what):
            connection = self._writer
            if connection is None:
                raise StoreError(
                    f"cannot {what}: {self.path} is "
                    + ("open for reading only" if self._readonly and not self._closed else "closed")
                )
            complain_if_moved(self.path, self._inode)
            self._local.deadline = None
            if not whole:  # a single statement is a transaction by itself
                yield connection
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
