"""Finds out what is good in a damaged SQLite task database, and saves it.

`verify` reads every record and compares it with its checksum; `repair` writes the good ones to a new file. Neither
changes the file it reads (`damaged.py`).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ...errors import StoreDamaged, StoreError
from .damaged import DamagedFile, Findings, Progress, Row, numbers_of_buffers
from .file import CHECKED_BYTES, make, open_to_write, refuse_damaged, set_journal
from .payload_files import PayloadFiles
from .schema import UNREADABLE
from .write_ahead_log import copy_log

log = logging.getLogger(__name__)

#: Up to this size, each record of a file is read when it is opened, if need be: that takes some seconds.
COUNTED_BYTES = 256 << 20


def verify(path: Path, progress: Progress = lambda what, done, total: None) -> Findings:
    """Read all of a database, also while a controller uses it.

    `progress` is told what is being read, how much of it has been, and how much there is (0: unknown).

    Raises
    ------
    StoreError
        There is no such file, it is another program's, or it has a newer schema.
    StoreDamaged
        Nothing of it can be read.
    """
    with contextlib.closing(DamagedFile(path, progress)) as file:
        for _ in file.records():
            pass
        return file.findings


def repair(path: Path, target: Path, progress: Progress = lambda what, done, total: None) -> Findings:
    """Write what is good in a database to a new file; returns what was found. The old one is not touched.

    Raises
    ------
    StoreError
        As `verify`; or there is a target already, or it cannot be written.
    """
    if target.exists():
        raise StoreError(f"there is a file {target} already; name another")
    with contextlib.closing(DamagedFile(path, progress)) as file:
        files: list[str] = []
        try:
            with contextlib.closing(_new(target)) as copy:
                _save(file, copy, target, files)
        except BaseException as error:
            with contextlib.suppress(OSError):  # the disk that fails may keep them
                target.unlink(missing_ok=True)
                PayloadFiles(target).remove(files)
            if isinstance(error, (sqlite3.Error, OSError, *UNREADABLE)):
                raise StoreError(f"{target} could not be written: {error}") from error
            raise
        return file.findings


def _save(file: DamagedFile, copy: sqlite3.Connection, target: Path, files: list[str]) -> None:
    """Write what is good to a new database. `files` gets the names of the files of large buffers."""
    copy.execute("BEGIN")
    for table, row in file.others():
        _insert(copy, table, row)
        if table == "blobs" and row.get("file") is not None:
            files.append(row["file"])
    for row in file.records():
        if not _insert(copy, "tasks", row):  # it was found twice
            file.findings.good -= 1
            continue
        for name in ("frames", "result_frames"):
            for number in numbers_of_buffers(row.get(name)):
                _insert(copy, "uses", {"msg_id": row["msg_id"], "blob": number, "result": name == "result_frames"})
    copy.execute("DELETE FROM pins WHERE msg_id NOT IN (SELECT msg_id FROM tasks)")
    copy.execute("DELETE FROM blobs WHERE blob NOT IN (SELECT blob FROM uses)")
    copy.execute("DELETE FROM parts WHERE blob NOT IN (SELECT blob FROM blobs)")
    file.files.copy_to(PayloadFiles(target), files)
    copy.execute("COMMIT")
    copy_log(copy)  # as it is closed, SQLite does so, and does not say whether it works


@contextlib.contextmanager
def advised(path: Path) -> Iterator[None]:
    """Add to the error about a damaged file how much of it is good, and what to do."""
    try:
        yield
    except StoreDamaged as error:
        raise StoreDamaged(f"{error}. {_what_is_left(path)} {_advice(path)}") from None


def refuse_unsound(connection: sqlite3.Connection, path: Path) -> None:
    """Check a file whose host may have gone down while it was written.

    Some disks say that they have synced what they have not. After a power cut some pages of the file are then older
    than others: an index does not fit its table, or half a record is an old one. The records of a large file are not
    read here, as that would take minutes: each is checked when somebody reads it.

    Raises
    ------
    StoreDamaged
        The structure of the file has flaws, or records are not as they were written.
    """
    size = path.stat().st_size
    level = logging.WARNING if size > CHECKED_BYTES else logging.INFO  # it takes its time
    log.log(level, "%s is checked: its host went down while it was written, or it is a copy", path)
    with advised(path):
        if size > COUNTED_BYTES:
            refuse_damaged(connection, path, with_indexes=True)
            return
        found = verify(path)
    if found.structure or found.damaged:
        flaw = f" ({found.structure[0]:.200})" if found.structure else ""
        raise StoreDamaged(
            f"{path} is not as it was written{flaw}: a power cut does that if a disk has not what it says it has. "
            f"{_counted(found)} {_advice(path)}"
        )
    if not found.sound:
        log.error("of %s some large buffers or functions are lost: %s", path, found.summary())


def _what_is_left(path: Path) -> str:
    if path.stat().st_size > COUNTED_BYTES:
        return "It is too large to count here how many of its records are good."
    try:
        return _counted(verify(path))
    except StoreError:
        return "None of its records can be read."


def _counted(found: Findings) -> str:
    return f"{found.good:,} of its records are good, {len(found.damaged):,} are damaged."


def _advice(path: Path) -> str:
    return (
        f"`engineroom db repair {path}` writes what is good to a new file, `engineroom db verify {path}` names what is "
        "not; this one is not touched."
    )


def _new(path: Path) -> sqlite3.Connection:
    """An empty database in a new file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from error
    make(path)
    connection = open_to_write(path)
    try:
        set_journal(connection, path, "NORMAL", "auto")
    except BaseException:
        connection.close()
        raise
    return connection


def _insert(connection: sqlite3.Connection, table: str, row: Row) -> int:
    sql = f"INSERT OR IGNORE INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
    return connection.execute(sql, list(row.values())).rowcount
