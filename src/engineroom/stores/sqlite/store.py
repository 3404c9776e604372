"""SQLiteDB: the task database in one file, kept between sessions.

One thread writes: the one that calls `write`, `update_record`, …. Any number of threads read, each with a connection
of its own. The parts: `connections.py`, `rows/` (entries → rows → records; changes to rows), `search.py` (queries),
`blobs.py` (large buffers), `payload_files.py` (the largest of them), `references.py` (functions and the like).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from ...errors import ConfigError, StoreDamaged, StoreError, StoreFull
from ...ids import ClientId, Digest, EngineUuid, TaskId
from ...messages import Environment, Function
from ...records.database_urls import url_of
from ...records.entry import Entry
from ...records.entry import checked as checked_entry
from ...records.record import TaskRecord
from ..base import QUERY_SECONDS, Columns, Cursor, Page, QueryDict, References, Sort, Usage
from ..canonical import canonical
from ..query.arguments import parse_keys, parse_page_size, parse_path, parse_percentiles, parse_sort, parse_window
from ..query.parse import parse
from ..unreadable import bytes_of, function_of, make_or_name
from . import blobs, references
from .blobs import Sharing, has_large
from .connections import Connections
from .doctor import advised, refuse_unsound
from .dropping import Dropping
from .file import (
    CHECKED_BYTES,
    End,
    Lock,
    free_bytes,
    give_back,
    has_lost_its_host,
    make,
    open_to_write,
    refuse_cut,
    refuse_damaged,
    refuse_old,
    reported,
    set_journal,
    used_bytes,
)
from .payload_files import PayloadFiles, sync_folder
from .rows import edits
from .rows.columns import WHOLE
from .rows.reading import checked, entry_of, record_of
from .rows.writing import statements
from .search import Search
from .where import ORDER, translate
from .write_ahead_log import shorten_log

log = logging.getLogger(__name__)

_engine_of = attrgetter("engine_uuid")


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
        Only read. A controller may be using the file.
    query_seconds : float
        A query that takes longer is an error.
    journal : "auto", "wal" or "rollback"
        How changes get into the file. "auto": with a write-ahead log, or with a rollback journal on file systems where
        the log does not work (NFS, Lustre).

    Raises
    ------
    StoreBusy
        Another controller owns the file.
    StoreDamaged
        The file is damaged: it has been cut or overwritten, or is no SQLite file.
    StoreError
        It is another program's database, or a newer Engineroom made it.
    """

    keeps = True
    dropped = 0
    durable = True
    hold_seconds = 0.2  # a row that is written as pending has to be written twice

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
        self.url = url_of(self.path)
        self._connections = Connections(self.path)
        self._read, self._writing = self._connections.read, self._connections.writing
        self._files = PayloadFiles(self.path, syncs=synchronous == "FULL")
        self._search = Search(self._connections, self._files, query_seconds)
        self._hosts: dict[EngineUuid, str] = {}  # of engines, as far as they are in the table
        self._sharing = Sharing(self._files)
        try:
            if readonly:
                self._open_to_read()
            else:
                self._open_to_write(synchronous, journal)
        except BaseException:
            self.close()
            raise

    def _open_to_read(self) -> None:
        if not self.path.exists():
            raise StoreError(f"there is no task database {self.path}")
        with advised(self.path):
            refuse_cut(self.path)
        with reported(f"open {self.path}"):
            refuse_old(self._connections.reader(), self.path)
        if has_lost_its_host(self.path):
            log.warning(
                "this host was started again while %s was written, and no controller has checked it since: "
                "`engineroom db verify %s` does", self.path, self.path,
            )  # fmt: skip

    def _open_to_write(self, synchronous: str, journal: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = Lock(self.path)
        except OSError as error:
            raise StoreError(f"cannot open {self.path}: {error.strerror}") from error
        self._connections.own(lock)
        with reported(f"open {self.path}"):
            make(self.path)
            with advised(self.path):
                refuse_cut(self.path)

            def open_writer(again: bool) -> sqlite3.Connection:
                writer = open_to_write(self.path)
                try:
                    if lock.end is End.UNKNOWN and not again:
                        refuse_unsound(writer, self.path)
                    elif lock.end is End.KILLED or again or self.path.stat().st_size <= CHECKED_BYTES:
                        with advised(self.path):
                            refuse_damaged(writer, self.path)
                    set_journal(writer, self.path, synchronous, journal)
                    if synchronous == "FULL":
                        writer.execute("PRAGMA user_version").fetchone()  # which makes the log, if there is none
                        self._sync_folder()
                except BaseException:
                    writer.close()
                    raise
                return writer

            self._connections.write_with(open_writer)
            lock.found_sound()
        self._remove_dropped(orphans=True)

    def _sync_folder(self) -> None:
        """Have the names of the file and of its log on the disk. SQLite does not say whether that works."""
        try:
            sync_folder(self.path.parent)
        except OSError as error:
            raise StoreError(f"the disk of {self.path} fails to sync its folder: {error.strerror}") from error

    @classmethod
    def open_readonly(cls, path: str | os.PathLike[str]) -> SQLiteDB:
        """A store to read from only, also while a controller writes."""
        return cls(path, readonly=True)

    # the hot path

    def write(self, entries: Sequence[Entry]) -> None:
        if has_large(entries):
            with self._sharing_buffers("write tasks") as connection:
                self._insert(connection, self._sharing.share(connection, entries))
        elif entries:
            self._insert(None, entries)

    @contextlib.contextmanager
    def _sharing_buffers(self, what: str) -> Iterator[sqlite3.Connection]:
        """`_writing`, for changes that may store large buffers."""
        try:
            with self._writing(what) as connection:
                yield connection
        except BaseException:
            self._sharing.failed()
            raise
        self._sharing.done()

    def _remove_dropped(self, *, orphans: bool = False) -> None:
        """Remove the files of large buffers that no record uses any more."""
        with self._writing("remove files", whole=False) as connection:
            blobs.remove_dropped(connection, self._files, orphans=orphans)

    def _insert(self, connection: sqlite3.Connection | None, entries: Sequence[Entry]) -> None:
        """Write entries without large buffers, in a transaction of their own unless there is one."""
        batch = statements(entries, self._connections.most_parameters)
        known, hosts = self._hosts, {}
        new = set(map(_engine_of, entries)) - known.keys()
        if new - {None}:
            hosts = {e.engine_uuid: e.host for e in entries if e.host and e.engine_uuid and e.engine_uuid in new}
        with (
            contextlib.nullcontext(connection)
            if connection is not None
            else self._writing("write tasks", whole=len(batch) > 1 or bool(hosts))
        ) as connection:
            for sql, values in batch:
                connection.execute(sql, values)
            connection.executemany("INSERT OR IGNORE INTO engines VALUES (?, ?)", list(hosts.items()))
        known.update(hosts)

    def add_functions(self, functions: Sequence[Function]) -> None:
        with self._writing("keep functions") as connection:
            for function in functions:
                row = (function.digest, function.name, function.source, function.payload)
                connection.execute("INSERT OR IGNORE INTO functions VALUES (?, ?, ?, ?)", row)

    def get_function(self, digest: Digest) -> Function:
        for name, source, payload in self._read(
            "SELECT name, source, payload FROM functions WHERE digest = ?", (digest,)
        ):
            return function_of(digest, payload, name, source)
        raise KeyError(digest)

    def add_environments(self, environments: Sequence[tuple[ClientId, Environment]]) -> None:
        with self._writing("keep environments") as connection:
            for client, environment in environments:
                row = (environment.digest, environment.content)
                connection.execute("INSERT OR IGNORE INTO environments VALUES (?, ?)", row)
                connection.execute("INSERT OR IGNORE INTO clients VALUES (?, ?)", (client, environment.digest))

    def get_environment(self, digest: str) -> bytes:
        for (content,) in self._read("SELECT content FROM environments WHERE digest = ?", (digest,)):
            return bytes_of(content, f"environment {digest}")
        raise KeyError(digest)

    def unfinished(self) -> Iterator[Entry]:
        sql = f"SELECT {WHOLE} FROM tasks WHERE completed IS NULL AND kind IS NOT NULL ORDER BY {ORDER}"
        for row in self._read(sql):
            try:
                yield self._entry(row)
            except StoreDamaged as error:
                log.error("an unfinished task is lost: %s", error)

    def entries(self, ids: Sequence[TaskId]) -> dict[TaskId, Entry]:
        found: dict[TaskId, Entry] = {}
        for start in range(0, len(ids), 500):
            some = list(ids[start : start + 500])
            sql = f"SELECT {WHOLE} FROM tasks WHERE msg_id IN ({', '.join('?' * len(some))}) AND kind IS NOT NULL"
            with self._connections.snapshot():
                found |= {entry.id: entry for entry in map(self._entry, self._read(sql, some))}
        return {id_: found[id_] for id_ in ids if id_ in found}

    def _entry(self, row: Sequence[Any]) -> Entry:
        return make_or_name(lambda: checked_entry(entry_of(checked(row), self._search.load)), row[0])

    # records, as users know them

    def add_record(self, msg_id: TaskId, record: Mapping[str, Any]) -> None:
        whole = canonical(record, msg_id)
        with self._sharing_buffers("add a record") as connection:
            if not edits.add(connection, self._sharing, msg_id, whole):
                raise StoreError(f"there is a record of task {msg_id} already")

    def get_record(self, msg_id: TaskId) -> TaskRecord:
        with self._connections.snapshot():
            for row in self._read(f"SELECT {WHOLE} FROM tasks WHERE msg_id = ?", (msg_id,)):
                return make_or_name(lambda row=row: record_of(checked(row), self._search.load), msg_id)  # type: ignore[misc]
        raise KeyError(msg_id)

    def update_record(self, msg_id: TaskId, changes: Mapping[str, Any]) -> None:
        changed = canonical(changes, msg_id)
        with self._sharing_buffers("change a record") as connection:
            if not edits.change(connection, self._sharing, msg_id, changed):
                raise KeyError(msg_id)
        self._remove_dropped()

    def drop_record(self, msg_id: TaskId) -> None:
        with self._writing("drop a record") as connection:
            if not connection.execute("DELETE FROM tasks WHERE msg_id = ?", (msg_id,)).rowcount:
                raise KeyError(msg_id)
            self._sharing.forget()
        self._remove_dropped()
        self.dropped += 1

    def drop_in_pieces(self, query: QueryDict) -> Iterator[int]:
        for dropped in Dropping(self._connections, self._search, parse(query)).pieces():
            self._sharing.forget()
            self._remove_dropped()
            self.dropped += dropped
            yield dropped

    def drop_matching_records(self, query: QueryDict) -> int:
        parsed = parse(query)
        where, deadline = translate(parsed), self._search.deadline()
        with self._writing("drop records") as connection, self._connections.in_time(deadline):
            self._sharing.forget()
            if where.exact:
                dropped = connection.execute(f"DELETE FROM tasks WHERE {where.sql}", where.parameters).rowcount
            else:
                rows = [(seq,) for seq in self._search.matching(parsed, where, deadline, connection)]
                dropped = connection.executemany("DELETE FROM tasks WHERE seq = ?", rows).rowcount
        self._remove_dropped()
        self.dropped += dropped
        return dropped

    # what is kept

    def pin(self, ids: Sequence[TaskId], pinned: bool) -> int:
        with self._writing("pin records") as connection:
            return edits.pin(connection, ids, pinned)

    def drop_buffers(self, ids: Sequence[TaskId]) -> int:
        with self._writing("drop buffers") as connection:
            self._sharing.forget()
            dropped = edits.drop_buffers(connection, ids)
        self._remove_dropped()
        return dropped

    def large_buffers(self, most: int) -> list[tuple[TaskId, int]]:
        return list(self._read(blobs.OLDEST, (most,)))

    def used_references(self) -> Iterator[References]:
        self._hosts.clear()  # from now on it gathers the engines that must not be dropped
        return references.used(self._read)

    def stored_references(self) -> Iterator[References]:
        return references.stored(self._read)

    def drop_references(self, unused: References) -> int:
        with self._writing("drop unreferenced functions") as connection:
            return references.drop(connection, unused, self._hosts)

    def usage(self) -> Usage:
        with reported("look at its file"):
            used, free = used_bytes(self._connections.reader())
        [(large, beside)] = self._read(
            "SELECT coalesce(sum(size), 0), coalesce(sum(size) FILTER (WHERE file IS NOT NULL), 0) FROM blobs"
        )
        return Usage(used + beside, free, free_bytes(self.path), large)

    def room(self) -> int | None:
        return free_bytes(self.path)

    def give_back(self, most: int) -> int:
        with self._writing("shrink", whole=False) as connection:
            return give_back(connection, self.path, most)

    def rewrite(self, tick: Callable[[], None]) -> bool:
        """Write the whole file anew, so that no page of it is half empty; `tick` is called now and then meanwhile.

        False: the disk has no room for it (three times the bytes in use), and the file is as it was.
        """
        with reported("look at its file"):
            used, _ = used_bytes(self._connections.reader())
        room = self.room()
        if room is not None and room < 3 * used:
            return False
        try:
            with self._writing("rewrite its file", whole=False) as connection:
                with self._connections.telling(connection, tick):
                    connection.execute("VACUUM")
                shorten_log(connection, self.path, 0)
        except StoreFull:  # where SQLite makes its temporary files
            return False
        return True

    def find_records(
        self,
        query: QueryDict,
        keys: Iterable[str] | str | None = None,
        *,
        sort: Sort | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> list[TaskRecord]:
        return self._search.find(parse(query), parse_keys(keys), parse_sort(sort), parse_window(limit, skip))

    def find_columns(
        self,
        query: QueryDict,
        keys: Iterable[str] | str | None = None,
        *,
        sort: Sort | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> Generator[Columns]:
        return self._search.find_columns(parse(query), parse_keys(keys), parse_sort(sort), parse_window(limit, skip))

    def count(self, query: QueryDict) -> int:
        return self._search.count(parse(query))

    def page(
        self, query: QueryDict, keys: Iterable[str] | str | None = None, *, after: Cursor | None = None, limit: int
    ) -> Page:
        return self._search.page(parse(query), parse_keys(keys), after, parse_page_size(limit))

    def distinct(self, key: str, query: QueryDict) -> list[Any]:
        return self._search.distinct(parse_path(key), parse(query))

    def group_by(
        self, key: str, query: QueryDict, *, values: str | None = None, percentiles: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        path, wanted = parse_path(key), parse_percentiles(percentiles)
        return self._search.group_by(path, parse(query), parse_path(values) if values is not None else None, wanted)

    def get_history(self) -> list[TaskId]:
        return self._search.history()

    def close(self) -> None:
        self._connections.close()
