"""The connections to an SQLite file: one to write with, and one for each thread that reads.

In WAL mode readers and the writer do not wait for each other. Errors of SQLite become ours here, a statement is
stopped once its time is up, and everything is closed together.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import QueryError, StoreDamaged, StoreError
from ..query.deadline import Deadline
from ..query.match import compile_regex
from ..query.nodes import Regex
from .file import Lock, inode_of, is_of_text, open_to_read, refuse_moved, reported, text_or_bytes
from .write_ahead_log import COPIED_PAGES, copy_log, has_pages, is_sync_error, log_of, sync_log_again

log = logging.getLogger(__name__)

#: After so many steps of its machine SQLite asks whether a statement is late.
STEPS = 50_000


class Connections:
    """All connections of one store to its file. `own` makes it the writer; without that it can only read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._guard = threading.Lock()  # of everything below, and of `_readers`
        self._writer: sqlite3.Connection | None = None
        self._inode = -1
        #: that of the write-ahead log, since it was written to first; -1: there is none
        self._log_inode = -1
        #: how many parameters a statement may have
        self.most_parameters = 999
        self._lock: Lock | None = None
        #: opens the connection to write with anew
        self._open: Callable[[bool], sqlite3.Connection] | None = None
        #: whether a sync has failed since the file was opened to write
        self._is_in_doubt = False
        #: whether it was said that the write-ahead log cannot be copied
        self._has_told = False
        self._page_size = 0
        self._closed = False

    def own(self, lock: Lock) -> None:
        """Take over the lock on the file."""
        self._lock = lock

    def write_with(self, open: Callable[[bool], sqlite3.Connection], again: bool = False) -> None:
        """Open the connection to write with. `open(again)` is called again, with True, when a sync has failed."""
        self._open, self._writer = open, open(again)
        self._prepare(self._writer)
        self.most_parameters = self._writer.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        self._inode, self._log_inode = inode_of(self.path), -1
        [self._page_size] = self._writer.execute("PRAGMA page_size").fetchone()

    def _open_again(self) -> None:
        """A sync has failed: write again what may not be on the disk, and open the file as if it were another's."""
        assert self._open is not None
        self._refuse_moved()
        try:
            sync_log_again(self.path)
        except OSError as error:
            raise StoreError(f"the disk of {self.path} fails to sync what is written: {error.strerror}") from error
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self.write_with(self._open, again=True)
        assert self._writer is not None
        copy_log(self._writer)  # the file itself must take it, too
        self._is_in_doubt = False
        log.warning("%s was opened again and verified, because a sync had failed", self.path)

    def close(self) -> None:
        with self._guard:
            self._closed = True
            for connection in self._readers:
                connection.close()
            self._readers.clear()
            is_copied = self._writer is not None and self._lock is not None and self._copy_log(self._writer)
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            if self._lock is not None:
                self._lock.close(is_copied)
                self._lock = None

    # ------------------------------------------------------------------------------------------ writing

    @contextlib.contextmanager
    def writing(self, what: str, whole: bool = True) -> Iterator[sqlite3.Connection]:
        """The connection to write with, in a transaction: all of it happens, or nothing.

        `whole=False`: without a transaction, for a single statement, which is one by itself.
        """
        with self._guard, reported(what):
            if self._is_in_doubt and not self._closed:
                self._open_again()
            connection = self._writer
            if connection is None:
                state = "closed" if self._closed or self._lock is not None else "open for reading only"
                raise StoreError(f"cannot {what}: {self.path} is {state}")
            self._refuse_moved()
            self._local.deadline = None
            try:
                if not whole:
                    yield connection
                else:
                    connection.execute("BEGIN IMMEDIATE")
                    yield connection
                    connection.execute("COMMIT")
            except BaseException as error:
                self._is_in_doubt |= is_sync_error(error)
                if whole and connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            if self._log_inode < 0:
                self._log_inode = inode_of(log_of(self.path))
            if has_pages(self.path, self._page_size, COPIED_PAGES):
                self._copy_log(connection)

    def _refuse_moved(self) -> None:
        """StoreError if the file or its log has been deleted or replaced.

        What is in a log that was deleted would be lost with the process, which has it open: it goes into the file.
        """
        refuse_moved(self.path, self._inode)
        if self._log_inode >= 0 and inode_of(log_of(self.path)) != self._log_inode:
            is_copied = self._writer is not None and self._copy_log(self._writer)
            what = "it has been copied into the file" if is_copied else "what it had cannot be copied into the file"
            raise StoreError(f"{log_of(self.path)} has been deleted or replaced ({what}): restart the controller")

    def _copy_log(self, connection: sqlite3.Connection) -> bool:
        """Copy the write-ahead log into the file. What was committed is in the log, and stays there if this fails.

        SQLite does it as the last connection closes, but does not say whether that works.
        """
        try:
            copy_log(connection)
        except sqlite3.Error as error:
            self._is_in_doubt |= is_sync_error(error)
            if not self._has_told:
                log.error("the log of %s cannot be copied into the file, and is kept: %s", self.path, error)
            self._has_told = True
        else:
            self._has_told = False
        return not (self._has_told or self._is_in_doubt)

    # ------------------------------------------------------------------------------------------ reading

    def reader(self) -> sqlite3.Connection:
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

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything that this thread reads within is as it was at one moment."""
        connection = self.reader()
        if connection.in_transaction:
            yield
            return
        with reported("read"):
            connection.execute("BEGIN")
        try:
            yield
        finally:
            if not self._closed:
                with reported("read"):
                    connection.execute("COMMIT")

    def read(
        self,
        sql: str,
        values: Sequence[Any] = (),
        deadline: Deadline | None = None,
        connection: sqlite3.Connection | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of an answer. A text in them that is not UTF-8 comes as bytes."""
        connection, given = connection or self.reader(), 0
        while True:
            try:
                for rows in self._pages(connection, sql, values, deadline, given):
                    given += len(rows)
                    yield from rows
                return
            except StoreDamaged as error:  # one value must not hide all rows
                if connection.text_factory is not str or not is_of_text(error):
                    raise
                connection.text_factory = text_or_bytes

    def _pages(
        self,
        connection: sqlite3.Connection,
        sql: str,
        values: Sequence[Any],
        deadline: Deadline | None,
        skip: int,
    ) -> Iterator[list[tuple[Any, ...]]]:
        with self.in_time(deadline):
            cursor = connection.execute(sql, values)
            try:
                if skip:
                    cursor.fetchmany(skip)
                while rows := cursor.fetchmany(500):
                    yield rows
                    if deadline is not None and deadline.left() < 0:
                        raise deadline.passed()
            finally:
                with contextlib.suppress(sqlite3.ProgrammingError):  # the store was closed meanwhile
                    cursor.close()

    @contextlib.contextmanager
    def in_time(self, deadline: Deadline | None) -> Iterator[None]:
        """Statements within must end before the deadline.

        What stopped a statement from within (its time was up, a pattern took too long) is raised instead of SQLite's
        error about it.
        """
        self._local.deadline, self._local.stopped = deadline, None
        try:
            with reported("read"):
                yield
        except StoreError:
            if self._local.stopped is not None:
                raise self._local.stopped from None
            raise

    @contextlib.contextmanager
    def telling(self, connection: sqlite3.Connection, tick: Callable[[], None]) -> Iterator[None]:
        """While statements run within, call `tick` now and then; they have no deadline."""
        connection.set_progress_handler(tick, 1_000_000)
        try:
            yield
        finally:
            connection.set_progress_handler(self._is_late, STEPS)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(self._is_late, STEPS)
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
