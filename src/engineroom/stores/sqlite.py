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

from ..errors import ConfigError, StoreBusy, StoreError
from ..ids import Digest, TaskId
from ..messages import Function
from ..records import BULKY, Entry, TaskRecord
from . import query as queries
from .base import QueryDict, Sort
from .rows import (
    ANY,
    COLUMN_TYPES,
    DOCUMENT,
    OUTCOME_COLUMNS,
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
from .where import Where, translate

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
    ) -> None:
        if synchronous not in ("NORMAL", "FULL", "OFF"):
            raise ConfigError(f"synchronous must be NORMAL, FULL or OFF, got {synchronous!r}")
        self.path = Path(path).absolute()
        self.url = f"sqlite://{self.path}"
        self._readonly = readonly
        self._local = threading.local()
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
        with self._writing("write tasks", whole=len(statements) > 1) as connection:
            for sql, values in statements:
                connection.execute(sql, values)

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
                connection.execute("INSERT OR IGNORE INTO functions VALUES (?, ?)", (function.digest, function.payload))

    def get_function(self, digest: Digest) -> bytes:
        for (payload,) in self._read("SELECT payload FROM functions WHERE digest = ?", (digest,)):
            return bytes(payload)
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
        parsed = queries.parse(query)
        where = translate(parsed)
        with self._writing("drop records") as connection:
            if where.exact:
                return connection.execute(f"DELETE FROM tasks WHERE {where.sql}", where.parameters).rowcount
            ids = [(record["msg_id"],) for record in self._matching(parsed, where, "", connection=connection)]
            connection.executemany("DELETE FROM tasks WHERE msg_id = ?", ids)
            return len(ids)

    def find_records(
        self,
        query: QueryDict,
        keys: Iterable[str] | str | None = None,
        *,
        sort: Sort | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> list[TaskRecord]:
        parsed, wanted, order = queries.parse(query), queries.parse_keys(keys), queries.parse_sort(sort)
        limit, skip = queries.parse_window(limit, skip)
        where, clause = translate(parsed), _order_clause(order)
        if clause is not None and where.exact:
            window = f"{clause} LIMIT {-1 if limit is None else limit} OFFSET {skip}"
            return [_only(record, wanted) for record in self._matching(parsed, where, window, wanted)]
        end = None if limit is None else skip + limit
        if clause is not None:
            found = self._matching(parsed, where, clause, wanted)
            return [_only(record, wanted) for record in islice(found, skip, end)]
        sorted_by = {path[0] for path, _ in order}
        records = list(self._matching(parsed, where, f" ORDER BY {_ORDER}", {*wanted, *sorted_by}))
        for path, descending in reversed(order):
            records.sort(key=lambda r, p=path, d=descending: queries.sort_key(r, p, d), reverse=descending)  # type: ignore[misc]
        return [_only(record, wanted) for record in records[skip:end]]

    def count(self, query: QueryDict) -> int:
        parsed = queries.parse(query)
        where = translate(parsed)
        if where.exact:
            [(number,)] = self._read(f"SELECT count(*) FROM tasks WHERE {where.sql}", where.parameters)
            return int(number)
        return sum(1 for _ in self._matching(parsed, where, ""))

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

    def _matching(
        self,
        query: queries.Query,
        where: Where,
        tail: str,
        keys: Iterable[str] = (),
        connection: sqlite3.Connection | None = None,
    ) -> Iterator[TaskRecord]:
        """The records that match, as they come; buffers are read only where the keys or the query need them."""
        needed = {*keys, *queries.keys_in(query)} & BULKY
        sql = f"SELECT {selection('buffers' in needed, 'result_buffers' in needed)} FROM tasks WHERE {where.sql}{tail}"
        rows = self._read(sql, where.parameters, connection)
        records = map(record_of, rows)
        yield from records if where.exact else filter(queries.compile(query), records)

    def _read(
        self,
        sql: str,
        values: Sequence[Any] = (),
        connection: sqlite3.Connection | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        with _reported("read"):
            cursor = (connection or self._reader()).execute(sql, values)
            try:
                yield from cursor
            finally:
                cursor.close()

    def _reader(self) -> sqlite3.Connection:
        """This thread's connection to read with."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None or self._closed:
            with self._guard:
                if self._closed:
                    raise StoreError(f"{self.path} is closed")
                mode = "ro" if self._readonly else "rw"
                connection = sqlite3.connect(
                    f"{self.path.as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
                )
                connection.execute("PRAGMA query_only = 1")
                self._readers.append(connection)
            self._local.connection = connection
        return connection

    def _check_readable(self) -> None:
        try:
            if not self.path.exists():
                raise StoreError(f"there is no task database {self.path}")
            with _reported(f"open {self.path}"):
                if check(self._reader(), self.path, migrations()) == 0:
                    raise StoreError(f"{self.path} is not a task database yet: it is empty")
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


def _only(record: TaskRecord, keys: Sequence[str]) -> TaskRecord:
    return TaskRecord({key: record[key] for key in keys})


def _order_clause(order: tuple[tuple[queries.Path, bool], ...]) -> str | None:
    """ORDER BY for a sort by columns; None if SQL would sort otherwise."""
    terms = []
    for path, descending in order:
        if len(path) > 1 or path[0] not in COLUMN_TYPES or path[0] == "function":
            return None
        terms.append(f"{path[0]}{' DESC' if descending else ''}")
    return " ORDER BY " + ", ".join([*terms, _ORDER])
