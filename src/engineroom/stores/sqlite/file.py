"""The file under `SQLiteDB`: who owns it, how it is opened, what of the disk it takes.

A file is opened for writing by one process, which holds the lock beside it. The write-ahead log needs memory that
processes share through a file; where a file system cannot give that, a rollback journal takes its place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import mmap
import os
import re
import socket
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ...errors import StoreBusy, StoreDamaged, StoreError, StoreFull
from .schema import check, migrate, migrations

log = logging.getLogger(__name__)

#: File systems that several machines share, or that answer from another process: SQLite's log does not work there.
_REMOTE = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ncpfs|lustre|gpfs|beegfs|ceph|glusterfs|fuse(\..*)?|virtiofs|ocfs2"
)
#: A file up to this size, or one whose owner died, is looked through before it is used.
CHECKED_BYTES = 32 << 20
#: … and up to this size it is counted what of a damaged one is good: some seconds.
COUNTED_BYTES = 256 << 20
#: Seconds to wait for readers, where they and the writer keep each other out (without the write-ahead log).
BUSY_SECONDS = 10.0
#: Bytes of the write-ahead log that stay allocated once it has been copied into the file.
LOG_BYTES = 64 << 20


@contextlib.contextmanager
def reported(what: str) -> Iterator[None]:
    """Errors of SQLite, as ours."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
        raise _described(error, what) from error


def _described(error: Exception, what: str) -> StoreError:
    text = f"the task database could not {what}: {error}"
    if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
        return StoreFull(f"{text}. Free some space: it goes on by itself.")
    no_text = str(error).startswith("Could not decode to UTF-8")
    if no_text or getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StoreDamaged(
            f"{text}. `engineroom db verify` tells what is lost, `engineroom db repair` saves the rest."
        )
    return StoreError(text)


def own(path: Path) -> tuple[IO[str], bool]:
    """Take the lock beside a database, or raise StoreBusy that names who has it; also whether its last owner died."""
    real = path.resolve()  # a link to a database is the same database
    lock = real.with_name(f"{real.name}.lock")
    file = os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        died = bool(file.read(1))
        file.seek(0)
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
    return file, died


def _owner(text: str) -> str:
    try:
        owner = json.loads(text)
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (ValueError, KeyError, TypeError):  # it is about to write it
        return "one that has just started"


def open_to_write(path: Path, synchronous: str, journal: str, died: bool) -> sqlite3.Connection:
    """The connection to write with; the file is made, checked and migrated first."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from error
    with advised(path):
        complain_if_cut(path)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
    try:
        check(connection, path, migrations())
        connection.execute("PRAGMA page_size = 8192")  # of a new file; a little faster than 4096
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file; of an old one when it is migrated
        migrate(connection, path)
        if died or path.stat().st_size <= CHECKED_BYTES:
            with advised(path):
                complain_if_damaged(connection, path)
        problem = None if journal == "wal" else log_problem(path.parent)
        if journal == "rollback" or problem is not None:
            if problem is not None:
                log.warning("%s: %s; it is written with a rollback journal, which is slower", path, problem)
            connection.execute("PRAGMA journal_mode = TRUNCATE").fetchone()
            synchronous = "FULL" if synchronous == "NORMAL" else synchronous
        else:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}").fetchone()
        connection.execute(f"PRAGMA synchronous = {synchronous}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection to read with."""
    # The last connection that may write removes -wal and -shm as it closes; one that may not leaves them.
    mode = "rw" if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK) else "ro"
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS
    )
    connection.execute("PRAGMA query_only = 1")
    return connection


def complain_if_cut(path: Path) -> None:
    """StoreDamaged if the file is shorter than it says of itself."""
    with path.open("rb") as file:
        head = file.read(100)
    if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
        return  # new, or not SQLite at all: said elsewhere
    pages, page = int.from_bytes(head[28:32], "big"), int.from_bytes(head[16:18], "big")
    page = 65536 if page == 1 else page
    trusted = head[24:28] == head[92:96]  # else the number of pages is an old one
    size, logged = path.stat().st_size, path.with_name(f"{path.name}-wal")
    if trusted and size < pages * page and not (logged.exists() and logged.stat().st_size):
        raise StoreDamaged(f"{path} has been cut: it has {size:,} of {pages * page:,} bytes")


def complain_if_moved(path: Path, inode: int) -> None:
    """Refuse to write into a file that has been deleted, or replaced, under our hands."""
    try:
        now = os.stat(path).st_ino
    except OSError:
        now = -1
    if now != inode:
        raise StoreError(f"{path} is not there any more, or is another file now: put it back, or start anew")


def complain_if_old(connection: sqlite3.Connection, path: Path) -> None:
    """StoreError if a file cannot be read as it is: it is empty, of an earlier version, or of a later one."""
    known = migrations()
    version = check(connection, path, known)
    if version == 0:
        raise StoreError(f"{path} is not a task database yet: it is empty")
    if version < known[-1][0]:
        raise StoreError(
            f"{path} has the older schema version {version}; a controller that opens it brings it up to date, after a "
            "backup"
        )


def complain_if_damaged(connection: sqlite3.Connection, path: Path) -> None:
    """StoreDamaged if the structure of the file is not sound."""
    try:
        found = [text for (text,) in connection.execute("PRAGMA quick_check(100)")]
    except sqlite3.DatabaseError as error:
        found = [str(error)]
    if found != ["ok"]:
        more = "at least " if len(found) >= 100 else ""
        raise StoreDamaged(f"{path} is damaged in {more}{len(found)} places ({found[0]!s:.200})")


@contextlib.contextmanager
def advised(path: Path) -> Iterator[None]:
    """Say of a damaged file, too, how much of it is good, and what to do now."""
    try:
        yield
    except StoreDamaged as error:
        raise StoreDamaged(
            f"{error}. {_what_is_left(path)} `engineroom db repair {path}` writes what is good to a new file, "
            f"`engineroom db verify {path}` names what is not; this one is not touched."
        ) from None


def _what_is_left(path: Path) -> str:
    from .doctor import verify  # it uses what uses this

    if path.stat().st_size > COUNTED_BYTES:
        return "It is too large to count here how many of its records are good."
    try:
        found = verify(path)
    except StoreError:
        return "None of its records can be read."
    return f"{found.good:,} of its records are good, {len(found.damaged):,} are damaged."


# ---------------------------------------------------------------------------------------------- the write-ahead log


def log_problem(folder: Path, mounts: str | None = None) -> str | None:
    """Why the write-ahead log would not work in a folder, or None. `mounts`: text as in /proc/self/mountinfo."""
    kind = file_system(folder, mounts)
    if _REMOTE.fullmatch(kind):
        return f"it is on a file system of the kind {kind}, where SQLite's write-ahead log is not safe"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(mmap.PAGESIZE)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with mmap.mmap(file.fileno(), mmap.PAGESIZE) as one, mmap.mmap(file.fileno(), mmap.PAGESIZE) as other:
                one[:4] = b"shm!"
                if other[:4] != b"shm!" or os.pread(file.fileno(), 4, 0) != b"shm!":
                    return "its file system does not share memory between processes"
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return None  # a full disk is another matter
        return f"its file system cannot lock files or share their memory ({error.strerror})"
    return None


def file_system(folder: Path, mounts: str | None = None) -> str:
    """The kind of file system that a folder is on, as the kernel calls it; "" if it does not say."""
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text()
        except OSError:
            return ""
    where, best, kind = folder.resolve(), -1, ""
    for line in mounts.splitlines():
        mounted, _, rest = line.partition(" - ")
        fields = mounted.split()
        if len(fields) < 5 or not rest:
            continue
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        if (point == where or point in where.parents) and len(point.parts) >= best:  # the last one covers the others
            best, kind = len(point.parts), rest.split()[0]
    return kind


# ---------------------------------------------------------------------------------------------- space


def used_bytes(connection: sqlite3.Connection) -> tuple[int, int]:
    """(bytes in use, bytes that are free inside the file)."""
    [page] = connection.execute("PRAGMA page_size").fetchone()
    [pages] = connection.execute("PRAGMA page_count").fetchone()
    [free] = connection.execute("PRAGMA freelist_count").fetchone()
    return (pages - free) * page, free * page


def free_bytes(path: Path) -> int | None:
    """Bytes that may still be written beside a file; None if that cannot be told."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def give_back(connection: sqlite3.Connection, most: int) -> int:
    """Return up to `most` free bytes of the file to the file system; tells how many are still free inside it."""
    [page] = connection.execute("PRAGMA page_size").fetchone()
    connection.execute(f"PRAGMA incremental_vacuum({max(1, most // page)})").fetchall()
    [left] = connection.execute("PRAGMA freelist_count").fetchone()
    if not left:  # the file itself shrinks when the log is copied into it
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return int(left * page)
