"""The file of an `SQLiteDB`: its lock, how it is opened, the space it uses on disk.

One process at a time opens a file for writing: it holds the lock on `<name>.lock`. SQLite's write-ahead log needs a
file system on which processes can share memory; on others (NFS, Lustre) a rollback journal is used.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import logging
import mmap
import os
import re
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ...errors import StoreBusy, StoreDamaged, StoreError, StoreFull, StoreRefused
from ...system.processes import boot_id
from .payload_files import sync_folder
from .schema import UNREADABLE, backup_of, check, migrate, migrations
from .write_ahead_log import BUSY_SECONDS, LOG_BYTES, log_bytes, shorten_log

log = logging.getLogger(__name__)

#: File systems of several machines, or served by another process: the write-ahead log does not work on them.
_REMOTE = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ncpfs|lustre|gpfs|beegfs|ceph|glusterfs|fuse(\..*)?|virtiofs|ocfs2"
)
#: The structure of a file up to this size, or of one whose last owner was killed, is checked before it is used.
CHECKED_BYTES = 32 << 20


#: What SQLite says of a text that is not UTF-8.
_NO_TEXT = "Could not decode to UTF-8"


@contextlib.contextmanager
def reported(what: str) -> Iterator[None]:
    """Errors of SQLite, as ours."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, OverflowError, *UNREADABLE) as error:
        raise _described(error, what) from error


def _described(error: Exception, what: str) -> StoreError:
    # SQLite has no words when it has no memory: a damaged file may say that a row is gigabytes long.
    text = f"the task database could not {what}: {'out of memory' if isinstance(error, MemoryError) else error}"
    if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
        return StoreFull(f"{text}. Free some space: it goes on by itself.")
    if isinstance(error, OverflowError | sqlite3.DataError | sqlite3.InterfaceError | sqlite3.IntegrityError):
        return StoreRefused(text)
    # An error of SQLite may quote what is no text: Python raises a UnicodeDecodeError in its place.
    is_no_text = _NO_TEXT in text or isinstance(error, UnicodeDecodeError)
    if is_no_text or getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StoreDamaged(
            f"{text}. `engineroom db verify` tells what is lost, `engineroom db repair` saves the rest."
        )
    return StoreError(text)


def is_of_text(error: StoreDamaged) -> bool:
    """Whether an error says that a text is not UTF-8."""
    return _NO_TEXT in str(error)


def text_or_bytes(raw: bytes) -> str | bytes:
    """For connections to files in which a text is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


class End(enum.Enum):
    """How the last owner of a file ended."""

    #: it closed the file, and nobody has written to it since
    WELL = "well"
    #: its process was killed; the system has written since what it had written
    KILLED = "killed"
    #: its host may have gone down: what the disk has may be anything
    UNKNOWN = "unknown"


class Note(msgspec.Struct, omit_defaults=True):
    """What the owner of a file writes into the lock."""

    pid: int
    host: str
    since: str
    #: names the time since the host was started
    boot: str = ""
    #: the file was found sound
    is_sound: bool = False
    #: (bytes, time of the last change in ns) of the file, as its owner left it; None: it has not ended, or was killed
    left: tuple[int, int] | None = None


def end_of_owner(noted: bytes, boot: str, found: tuple[int, int]) -> End:
    """How the last owner of a file ended.

    Parameters
    ----------
    noted : bytes
        What is in the lock.
    boot : str
        Names the time since the host was started.
    found : tuple
        (bytes, time of the last change in ns) of the file.
    """
    if not found[0]:
        return End.WELL  # a new file
    note = _decoded(noted)
    if note is None:
        return End.UNKNOWN
    if note.left is not None and (note.boot == boot or note.left == found):
        return End.WELL
    return End.KILLED if note.is_sound and note.boot == boot else End.UNKNOWN


def _lock_of(real: Path) -> Path:
    return real.with_name(f"{real.name}.lock")


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


class Lock:
    """The lock of a file. One process at a time has it.

    Raises
    ------
    StoreBusy
        Another process has it.
    OSError
        There can be no file for it.
    """

    def __init__(self, path: Path) -> None:
        self._real = path.resolve()  # a link to a database is the same database
        lock = _lock_of(self._real)
        self._file = os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._former = self._file.read()
            self._note = Note(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S %z"), boot_id())
            #: how the last owner ended
            self.end = end_of_owner(self._former, self._note.boot, _size_and_time(self._real))
            self._write(msgspec.json.encode(self._note))
        except BlockingIOError:
            with self._file:
                raise StoreBusy(
                    f"{path} belongs to another controller: {_owner(self._file.read())}. Stop it first, or name "
                    "another database."
                ) from None
        except BaseException:
            self._file.close()
            raise

    def found_sound(self) -> None:
        """Note that the file is sound, before records are written."""
        self._note.is_sound = True
        with contextlib.suppress(OSError):  # then the next one to open the file checks all of it
            self._write(msgspec.json.encode(self._note))
            os.fsync(self._file)
            sync_folder(self._real.parent)

    def close(self, well: bool) -> None:
        """Give it back. `well`: all that was written is in the file."""
        with self._file, contextlib.suppress(OSError):  # as above
            if not self._note.is_sound:
                self._write(self._former)  # the next one to open the file checks it as this one did
            elif well:
                self._note.left = _size_and_time(self._real)
                self._write(msgspec.json.encode(self._note))

    def _write(self, text: bytes) -> None:
        os.pwrite(self._file.fileno(), text, 0)
        self._file.truncate(len(text))


def _owner(noted: bytes) -> str:
    note = _decoded(noted)
    if note is None:  # the owner has not written it yet
        return "one that has just started"
    return f"process {note.pid} on {note.host}, since {note.since}"


def _decoded(noted: bytes) -> Note | None:
    try:
        return msgspec.json.decode(noted, type=Note)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def has_lost_its_host(path: Path) -> bool:
    """Whether this host was started again while a process had a file open to write, and none has checked it since."""
    try:
        note = _decoded(_lock_of(path.resolve()).read_bytes())
    except OSError:
        return False
    return note is not None and note.left is None and note.host == socket.gethostname() and note.boot != boot_id()


def make(path: Path) -> None:
    """Make an empty file, readable to its owner alone, if there is none."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600))
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from error


def open_to_write(path: Path) -> sqlite3.Connection:
    """The connection to write with; the schema of the file is brought up to date first."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
    try:
        check(connection, path, migrations())
        connection.execute("PRAGMA page_size = 8192")  # of a new file; a little faster than 4096
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file; of an old one when it is migrated
        # We copy the log into the file (`write_ahead_log.py`): SQLite would not say whether that works.
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchone()
        # Some builds overwrite what is deleted with zeros: that takes as much room in the log as it frees.
        connection.execute("PRAGMA secure_delete = OFF").fetchone()
        migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def set_journal(connection: sqlite3.Connection, path: Path, synchronous: str, journal: str) -> None:
    """Choose how changes get into the file, and what a commit waits for (`SQLiteDB` explains the words)."""
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


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection to read with."""
    # The last connection that may write removes -wal and -shm as it closes; one that may not leaves them.
    is_writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    connection = _connect(path, "mode=rw" if is_writable else "mode=ro")
    if not is_writable:
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            # On a read-only mount the files beside it, which the write-ahead log needs, cannot be made.
            connection.close()
            connection = _connect(path, "immutable=1")
            logged = path.with_name(f"{path.name}-wal")
            if logged.exists() and logged.stat().st_size:
                log.warning("%s cannot be read, so what was written last may be missing", logged)
    connection.execute("PRAGMA query_only = 1")
    return connection


def _connect(path: Path, how: str) -> sqlite3.Connection:
    url = f"{path.as_uri()}?{how}"
    return sqlite3.connect(url, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)


def refuse_cut(path: Path) -> None:
    """StoreDamaged if the file is shorter than its own header says, StoreError if it is a pipe or another thing."""
    if not path.is_file():
        raise StoreError(f"{path} is not a file")
    with path.open("rb") as file:
        head = file.read(100)
    if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
        return  # new, or no SQLite file, which `schema.check` reports
    pages, page = int.from_bytes(head[28:32], "big"), int.from_bytes(head[16:18], "big")
    page = 65536 if page == 1 else page
    trusted = head[24:28] == head[92:96]  # else the number of pages is an old one
    size = path.stat().st_size
    # With a log, or the journal of a commit that was cut short, SQLite first puts the file right.
    beside = (path.with_name(path.name + ending) for ending in ("-wal", "-journal"))
    if trusted and size < pages * page and not any(one.exists() and one.stat().st_size for one in beside):
        raise StoreDamaged(f"{path} has been cut: it has {size:,} of {pages * page:,} bytes")


def inode_of(path: Path) -> int:
    """What tells a file from one that took its place; -1: there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return -1


def refuse_moved(path: Path, inode: int) -> None:
    """StoreError if the file has been deleted or replaced since it was opened."""
    if inode_of(path) != inode:
        raise StoreError(f"{path} is not there any more, or has been replaced: put it back, or restart the controller")


def refuse_old(connection: sqlite3.Connection, path: Path) -> None:
    """StoreError if a file cannot be read as it is: it is empty, or has another version of the schema."""
    known = migrations()
    version, newest = check(connection, path, known), known[-1][0]
    if version == 0:
        raise StoreError(f"{path} is not a task database yet: it is empty")
    if version < newest:
        raise StoreError(
            f"{path} has the older schema version {version}, and reading does not change a file. "
            f"`engineroom db migrate {path}` copies it to {backup_of(path, version).name}, and brings it to version "
            f"{newest}; a controller that opens it does the same"
        )


def refuse_damaged(connection: sqlite3.Connection, path: Path, *, with_indexes: bool = False) -> None:
    """StoreDamaged if SQLite finds flaws in the structure of the file, or, if wanted, in what its indexes say."""
    try:
        kind = "integrity_check" if with_indexes else "quick_check"
        found = [text for (text,) in connection.execute(f"PRAGMA {kind}(100)")]
    except UNREADABLE as error:
        found = [str(error) or "out of memory"]
    if found != ["ok"]:
        more = "at least " if len(found) >= 100 else ""
        raise StoreDamaged(f"{path} is damaged in {more}{len(found)} places ({found[0]!s:.200})")


# ---------------------------------------------------------------------------------------------- the write-ahead log


def log_problem(folder: Path, mounts: str | None = None) -> str | None:
    """Why the write-ahead log would not work in a folder, or None. `mounts`: text as in /proc/self/mountinfo."""
    kind = file_system(folder, mounts)
    if _REMOTE.fullmatch(kind):
        return f"it is on a file system of the kind {kind}, where SQLite's write-ahead log is not safe"
    try:
        import tempfile

        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(mmap.PAGESIZE)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with mmap.mmap(file.fileno(), mmap.PAGESIZE) as one, mmap.mmap(file.fileno(), mmap.PAGESIZE) as other:
                one[:4] = b"shm!"
                if other[:4] != b"shm!" or os.pread(file.fileno(), 4, 0) != b"shm!":
                    return "its file system does not share memory between processes"
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return None  # a full disk says nothing about the kind of file system
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
        # equal depth: the last mount on a folder hides the others
        if (point == where or point in where.parents) and len(point.parts) >= best:
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
    """Bytes that are free on the disk of a file; None if the system does not say."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def give_back(connection: sqlite3.Connection, path: Path, most: int) -> int:
    """Return up to `most` free bytes of the file to the file system; returns how many are still to be returned."""
    [page] = connection.execute("PRAGMA page_size").fetchone()
    if shorten_log(connection, path):
        connection.execute(f"PRAGMA incremental_vacuum({max(1, most // page)})").fetchall()
    [left] = connection.execute("PRAGMA freelist_count").fetchone()
    if not left and not shorten_log(connection, path, 0):  # the file shrinks only when the log is copied into it
        return log_bytes(path)
    return int(left * page)
