"""SQLiteDB: the task database in one file, kept between sessions.

One writer: the thread that calls `write`, `update_record`, …. Any number of readers, each thread with a
connection of its own; in WAL mode neither waits for the other.

A batch is written with few, large statements. `executemany` would give up and take back the interpreter's lock
for every row, and each time wait for a busy main thread; one statement with a thousand rows of values runs
without the lock, and is prepared once.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from ..errors import ConfigError, QueryError, StoreBusy, StoreError
from ..ids import ClientId, Digest, EngineUuid, TaskId
from ..messages import Environment, Function
from ..records import TIMES, Entry, TaskRecord
from .base import QUERY_SECONDS, Cursor, Page, QueryDict, Sort
from .grouping import distinct, elements_at, group, parse_percentiles, value_at
from .matching import Deadline, compile, compile_regex
from .ordering import sort_key
from .query import Path as KeyPath
from .query import Query, Regex, keys_in, parse, parse_keys, parse_path, parse_sort, parse_window
from .rows import (
    ANY,
    COLUMN_TYPES,
    DOCUMENT,
    OUTCOME_COLUMNS,
    Reader,
    Shape,
    columns_of,
    entry_of,
    merged,
    normal,
    parameters,
    record_of,
    selection,
    to_freeze,
)  # fmt: skip
from .schema import check, migrate, migrations
from .where import LONG_LIST, Where, translate

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


_ORDER = "submitted, msg_id"

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

    Raises
    ------
    StoreBusy
        Another controller owns the file.
    StoreError
        It is not a task database, or a newer Engineroom made it.
    """

    keeps = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["NORMAL", "FULL", "OFF"] = "NORMAL",
        readonly: bool = False,
        query_seconds: float = QUERY_SECONDS,
    ) -> None:
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
        if readonly:
            self._check_readable()
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = _own(self.path)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise StoreError(f"cannot open {self.path}: {error.strerror}") from error
        try:
            with _reported(f"open {self.path}"):
                self._writer = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
                self._writer.execute("PRAGMA page_size = 8192")  # of a new file; a little faster than 4096
                migrate(self._writer, self.path)
                self._writer.execute("PRAGMA journal_mode = WAL").fetchone()
                self._writer.execute(f"PRAGMA synchronous = {synchronous}")
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
        if not entries:
            return
        statements = [
            (_insert(shape, size), values)
            for shape, flat in parameters(entries)
            for size, values in self._chunks(flat, len(shape.bound))
        ]
        known = self._hosts
        hosts = {e.engine_uuid: e.host for e in entries if e.host and e.engine_uuid and e.engine_uuid not in known}
        with self._writing("write tasks", whole=len(statements) > 1 or bool(hosts)) as connection:
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
        sql = (
            f"SELECT {selection(True, True)} FROM tasks WHERE completed IS NULL AND kind IS NOT NULL ORDER BY {_ORDER}"
        )
        return map(entry_of, self._read(sql))

    def entries(self, ids: Sequence[TaskId]) -> dict[TaskId, Entry]:
        found: dict[TaskId, Entry] = {}
        for start in range(0, len(ids), 500):
            some = list(ids[start : start + 500])
            sql = (
                f"SELECT {selection(True, True)} FROM tasks"
                f" WHERE msg_id IN ({', '.join('?' * len(some))}) AND kind IS NOT NULL"
            )
            found |= {entry.id: entry for entry in map(entry_of, self._read(sql, some))}
        return {id_: found[id_] for id_ in ids if id_ in found}

    # records, as users know them

    def add_record(self, msg_id: TaskId, record: Mapping[str, Any]) -> None:
        columns, inside = columns_of({**normal(record, msg_id), "msg_id": msg_id})
        columns["document"] = merged(None, inside)
        with self._writing("add a record") as connection:
            done = connection.execute(
                f"INSERT INTO tasks ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
                " ON CONFLICT (msg_id) DO NOTHING",
                list(columns.values()),
            )
            if not done.rowcount:
                raise StoreError(f"there is a record of task {msg_id} already")

    def get_record(self, msg_id: TaskId) -> TaskRecord:
        for row in self._read(f"SELECT {selection(True, True)} FROM tasks WHERE msg_id = ?", (msg_id,)):
            return record_of(row)
        raise KeyError(msg_id)

    def update_record(self, msg_id: TaskId, changes: Mapping[str, Any]) -> None:
        columns, inside = columns_of(normal(changes, msg_id))
        with self._writing("change a record") as connection:
            row = connection.execute(
                f"SELECT {selection(False, False)} FROM tasks WHERE msg_id = ?", (msg_id,)
            ).fetchone()
            if row is None:
                raise KeyError(msg_id)
            inside = {**to_freeze(columns, row), **inside}
            if inside:
                columns["document"] = merged(row[DOCUMENT], inside)
            if columns:
                connection.execute(
                    f"UPDATE tasks SET {', '.join(f'{name} = ?' for name in columns)} WHERE msg_id = ?",
                    [*columns.values(), msg_id],
                )

    def drop_record(self, msg_id: TaskId) -> None:
        with self._writing("drop a record") as connection:
            if not connection.execute("DELETE FROM tasks WHERE msg_id = ?", (msg_id,)).rowcount:
                raise KeyError(msg_id)

    def drop_matching_records(self, query: QueryDict) -> int:
        parsed = parse(query)
        where, deadline = translate(parsed), Deadline(self._query_seconds)
        with self._writing("drop records") as connection, self._in_time(deadline):
            self._local.deadline = deadline
            if where.exact:
                return connection.execute(f"DELETE FROM tasks WHERE {where.sql}", where.parameters).rowcount
            doomed = [(seq,) for seq, _ in self._scan(parsed, where, "", (), deadline, connection)]
            connection.executemany("DELETE FROM tasks WHERE seq = ?", doomed)
            return len(doomed)

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
        where, clause, deadline = translate(parsed), _order_clause(order), Deadline(self._query_seconds)
        if clause is not None and where.exact:
            return list(
                self._select(where, f"{clause} LIMIT {-1 if limit is None else limit} OFFSET {skip}", wanted, deadline)
            )
        end = None if limit is None else skip + limit
        with self._snapshot():
            if clause is not None:
                found = self._scan(parsed, where, clause, (), deadline)
                return self._fetch([seq for seq, _ in islice(found, skip, end)], wanted, deadline)
            times = [path[0] for path, _ in order if path[0] in TIMES and len(path) == 1]
            keys_ = {path[0] for path, _ in order}
            rows = list(self._scan(parsed, where, f" ORDER BY {_ORDER}", keys_, deadline, first=("seq", *times)))
            for path, descending in reversed(order):
                if len(path) == 1 and path[0] in times:  # a column holds more digits than a datetime
                    place = 1 + times.index(path[0])
                    rows.sort(key=lambda row, n=place: (row[n] is not None, row[n] or 0.0), reverse=descending)  # type: ignore[misc]
                else:
                    rows.sort(key=lambda row, p=path, d=descending: sort_key(row[-1], p, d), reverse=descending)  # type: ignore[misc]
            return self._fetch([row[0] for row in rows[skip:end]], wanted, deadline)

    def count(self, query: QueryDict) -> int:
        parsed = parse(query)
        where, deadline = translate(parsed), Deadline(self._query_seconds)
        if where.exact:
            [(number,)] = self._read(f"SELECT count(*) FROM tasks WHERE {where.sql}", where.parameters, deadline)
            return int(number)
        return sum(1 for _ in self._scan(parsed, where, "", (), deadline))

    def page(
        self, query: QueryDict, keys: Iterable[str] | str | None = None, *, after: Cursor | None = None, limit: int
    ) -> Page:
        parsed, wanted, deadline = parse(query), parse_keys(keys), Deadline(self._query_seconds)
        where = translate(parsed)
        if after is not None:
            seconds, last = after
            if seconds is None:
                later = Where("(submitted IS NULL AND msg_id > ?) OR submitted IS NOT NULL", (last,))
            else:
                later = Where("(submitted, msg_id) > (?, ?)", (seconds, last))
            where = Where(f"({where.sql}) AND ({later.sql})", (*where.parameters, *later.parameters), where.exact)
        with self._snapshot():
            found = self._scan(parsed, where, f" ORDER BY {_ORDER}", (), deadline)
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
            where, deadline = translate(parsed), Deadline(self._query_seconds)
            if where.exact:
                sql = f"SELECT DISTINCT {path[0]} FROM tasks WHERE {where.sql}"
                return distinct(value for (value,) in self._read(sql, where.parameters, deadline))
        return distinct(value for record in self._values(query, {path[0]}) for value in elements_at(record, path))

    def group_by(
        self, key: str, query: QueryDict, *, values: str | None = None, percentiles: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        path, wanted = parse_path(key), parse_percentiles(percentiles)
        measured = None if values is None else parse_path(values)
        parsed = parse(query)
        where = translate(parsed)
        if where.exact and all(len(p) == 1 and p[0] in _GROUPED_BY_SQL for p in (path, measured or path)):
            sql = f"SELECT {path[0]}, {measured[0] if measured else 'NULL'} FROM tasks WHERE {where.sql}"
            rows = self._read(sql, where.parameters, Deadline(self._query_seconds))
            return group(((name, value) for name, value in rows), wanted, measured is not None)
        records = self._values(query, {path[0], *(measured or ())[:1]})
        pairs = ((value_at(r, path), value_at(r, measured) if measured else None) for r in records)
        return group(pairs, wanted, measured is not None)

    def get_history(self) -> list[TaskId]:
        return [msg_id for (msg_id,) in self._read(f"SELECT msg_id FROM tasks ORDER BY {_ORDER}")]

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
                self._lock_file.truncate(0)
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
        read, start = Reader(sorted(needed), first), len(first)
        rows = self._read(
            f"SELECT {read.columns} FROM tasks WHERE {where.sql}{tail}", where.parameters, deadline, connection
        )
        matches = None if where.exact else compile(query, deadline)
        for row in rows:
            record = read(row)
            if matches is None or matches(record):
                yield (*row[:start], record)

    def _select(self, where: Where, tail: str, keys: Sequence[str], deadline: Deadline) -> Iterator[TaskRecord]:
        """Some keys of the rows that meet a condition."""
        read = Reader(keys)
        sql = f"SELECT {read.columns} FROM tasks WHERE {where.sql}{_unhinted(where, tail)}"
        return map(read, self._read(sql, where.parameters, deadline))

    def _fetch(self, places: Sequence[int], keys: Sequence[str], deadline: Deadline) -> list[TaskRecord]:
        """Some keys of the rows at these places, in this order."""
        read = Reader(keys)
        found: dict[int, TaskRecord] = {}
        for start in range(0, len(places), 500):
            some = places[start : start + 500]
            sql = f"SELECT {read.columns} FROM tasks WHERE seq IN ({', '.join('?' * len(some))})"
            found |= {row[0]: read(row) for row in self._read(sql, some, deadline)}
        return [found[seq] for seq in places]

    def _values(self, query: QueryDict, keys: Iterable[str]) -> Iterator[TaskRecord]:
        """Some keys of the records that match, in any order."""
        parsed = parse(query)
        return (record for _, record in self._scan(parsed, translate(parsed), "", keys, Deadline(self._query_seconds)))

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Whatever is read within is as it was at one moment."""
        connection = self._reader()
        with _reported("read"):
            connection.execute("BEGIN")
        try:
            yield
        finally:
            with _reported("read"):
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
            with _reported("read"):
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
                # The last connection that may write removes -wal and -shm as it closes; one that may not leaves them.
                mode = "rw" if os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK) else "ro"
                connection = sqlite3.connect(
                    f"{self.path.as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
                )
                connection.execute("PRAGMA query_only = 1")
                self._prepare(connection)
                self._readers.append(connection)
            self._local.connection = connection
        return connection

    def _check_readable(self) -> None:
        try:
            if not self.path.exists():
                raise StoreError(f"there is no task database {self.path}")
            with _reported(f"open {self.path}"):
                known = migrations()
                version = check(self._reader(), self.path, known)
                if version == 0:
                    raise StoreError(f"{self.path} is not a task database yet: it is empty")
                if version < known[-1][0]:
                    raise StoreError(
                        f"{self.path} has the older schema version {version}; a controller that opens it brings it up "
                        "to date, after a backup"
                    )
        except BaseException:
            self.close()
            raise

    def _check_file(self) -> None:
        """Refuse to write into a file that has been deleted, or replaced, under our hands."""
        try:
            inode = os.stat(self.path).st_ino
        except OSError:
            inode = -1
        if inode != self._inode:
            raise StoreError(f"{self.path} is not there any more, or is another file now: put it back, or start anew")

    @contextlib.contextmanager
    def _writing(self, what: str, whole: bool = True) -> Iterator[sqlite3.Connection]:
        """The connection to write with, in a transaction (`whole`): all of it happens, or nothing."""
        with self._guard, _reported(what):
            connection = self._writer
            if connection is None:
                raise StoreError(
                    f"cannot {what}: {self.path} is "
                    + ("open for reading only" if self._readonly and not self._closed else "closed")
                )
            self._check_file()
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


@contextlib.contextmanager
def _reported(what: str) -> Iterator[None]:
    """Errors of SQLite, as ours."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
        raise StoreError(f"the task database could not {what}: {error}") from error


def _own(path: Path) -> IO[str]:
    """Take the lock beside a database, or raise StoreBusy that names who has it."""
    lock = path.with_name(f"{path.name}.lock")
    file = os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, file)
        file.flush()
    except BlockingIOError:
        with file:
            raise StoreBusy(
                f"{path} belongs to another controller: {_owner(file.read())}. Stop it first, or name another database."
            ) from None
    except BaseException:
        file.close()
        raise
    return file


def _owner(text: str) -> str:
    try:
        owner = json.loads(text)
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (ValueError, KeyError, TypeError):  # it is about to write it
        return "one that has just started"


def _unhinted(where: Where, tail: str) -> str:
    """An ORDER BY that does not talk SQLite into reading all of an index: it cannot tell how short a long list is."""
    return tail.replace(" ORDER BY ", " ORDER BY +") if LONG_LIST in where.sql else tail


def _order_clause(order: tuple[tuple[KeyPath, bool], ...]) -> str | None:
    """ORDER BY for a sort by columns; None if SQL would sort otherwise."""
    terms = []
    for path, descending in order:
        if len(path) > 1 or path[0] not in COLUMN_TYPES or path[0] == "function":
            return None
        terms.append(f"{path[0]}{' DESC' if descending else ''}")
    return " ORDER BY " + ", ".join([*terms, _ORDER])
