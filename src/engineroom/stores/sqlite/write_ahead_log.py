"""The write-ahead log of an SQLite file: when it is copied into the file, and what follows from a sync that failed.

A commit goes into the log. SQLite would copy the log into the file by itself now and then, as a part of a commit, but
it does not say whether that works. So the store does it, with `copy_log`.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

#: Seconds to wait for a lock. Only without the write-ahead log do readers and the writer lock each other out.
BUSY_SECONDS = 10.0
#: Bytes of the write-ahead log that stay allocated once it has been copied into the file.
LOG_BYTES = 64 << 20
#: The log is copied into the file once it has so many pages, 15 MB. SQLite would do so after 1,000, but each copy waits
#: for the disk. With more than this, `shorten_log` would come first while records are dropped.
COPIED_PAGES = 1800

#: Bytes before the first page of the log, and before each page. The place and size of the salt in both.
_HEADER, _FRAME = 32, 24
_SALT_OF_LOG, _SALT_OF_PAGE, _SALT = 16, 8, 8


def has_pages(path: Path, page_size: int, count: int) -> bool:
    """Whether the log of a file has so many pages.

    Once all of it is copied, SQLite writes it from its start again, with another salt: pages behind the last one that
    was written since are still there, with the old salt. (https://sqlite.org/walformat.html)
    """
    last = _HEADER + (count - 1) * (_FRAME + page_size)
    try:
        descriptor = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        salt = os.pread(descriptor, _SALT, last + _SALT_OF_PAGE)  # b"": the log is shorter
        return len(salt) == _SALT and salt == os.pread(descriptor, _SALT, _SALT_OF_LOG)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def copy_log(connection: sqlite3.Connection) -> None:
    """Copy the log into the file, as far as no reader needs what is there. sqlite3.Error: the disk fails.

    What could not be synced stays in the log, and is copied again the next time.
    """
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def log_of(path: Path) -> Path:
    """The write-ahead log of a file."""
    return path.with_name(f"{path.name}-wal")


def log_bytes(path: Path) -> int:
    """The size of the write-ahead log of a file."""
    try:
        return log_of(path).stat().st_size
    except OSError:
        return 0


def is_sync_error(error: BaseException) -> bool:
    """Whether the disk failed to take what was written before: nobody knows what of it is there."""
    return getattr(error, "sqlite_errorname", "") in ("SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC")


def sync_log_again(path: Path) -> None:
    """Write the write-ahead log once more as it is, and sync it. OSError: the disk still fails.

    After a sync has failed, the kernel forgets which pages it had to write: another sync alone would succeed without
    writing them. SQLite has its locks on other files, so the log may be opened and closed here.
    """
    logged = log_of(path)
    try:
        descriptor = os.open(logged, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        place = 0
        while piece := os.pread(descriptor, 1 << 20, place):
            place += os.pwrite(descriptor, piece, place)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shorten_log(connection: sqlite3.Connection, path: Path, most: int = LOG_BYTES) -> bool:
    """Copy the write-ahead log into the file and empty it if it has a quarter of `most` bytes; wait for no reader.

    False: the log has more than `most` bytes, and a reader needs it.
    """
    size = log_bytes(path)
    if size <= most // 4:
        return True
    connection.execute("PRAGMA busy_timeout = 0").fetchone()
    try:
        [busy, _, _] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}").fetchone()
    return not busy or size <= most
