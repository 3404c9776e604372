"""The schema of the SQLite file: whether a file is a task database, its version, migrations, backups.

Migrations are the files `sql/NNN_name.sql`, applied in order; `PRAGMA user_version` is the number of the last.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from ..._version import __version__
from ...errors import StoreDamaged, StoreError
from .payload_files import PayloadFiles

log = logging.getLogger(__name__)

#: Marks a file as ours ("ERtd").
APPLICATION_ID = 0x45527464

#: What comes of a part of a file that SQLite cannot read. A damaged row may claim more bytes than there is memory. An
#: error of SQLite may quote what is no text: Python raises a UnicodeDecodeError in its place.
UNREADABLE = (sqlite3.DatabaseError, MemoryError, UnicodeDecodeError)

Migrations = Sequence[tuple[int, str]]


@functools.cache
def migrations() -> Migrations:
    """((number, SQL), …) in order."""
    files = Path(__file__).parent / "sql"
    return tuple(sorted((int(file.name.split("_")[0]), file.read_text()) for file in files.glob("*.sql")))


def check(connection: sqlite3.Connection, path: Path, known: Migrations) -> int:
    """The version of the schema, 0 for an empty file; StoreError if it is no task database, or too new."""
    try:
        [owner] = connection.execute("PRAGMA application_id").fetchone()
        [version] = connection.execute("PRAGMA user_version").fetchone()
        [tables] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except UNREADABLE as error:
        how = (
            "`engineroom db verify` tells what is lost, `engineroom db repair` saves the rest"
            if getattr(error, "sqlite_errorname", "SQLITE_CORRUPT").startswith("SQLITE_CORRUPT")
            else "Move it away, or name another file, and start again"
        )
        raise StoreDamaged(f"{path} cannot be read as a task database ({error}). {how}.") from error
    if tables and owner != APPLICATION_ID:
        raise StoreError(f"{path} is an SQLite database, but not one of Engineroom's; name another file.")
    newest = known[-1][0]
    if version > newest:
        raise newer_error(path, version, newest)
    return int(version)


def newer_error(path: Path, version: int, newest: int) -> StoreError:
    """The exception for a file that a newer Engineroom made."""
    return StoreError(
        f"{path} has schema version {version}: a newer Engineroom made it. This one ({__version__}) knows versions up "
        f"to {newest}. Upgrade it (pip install --upgrade engineroom), or name another file."
    )


def migrate(connection: sqlite3.Connection, path: Path, known: Migrations | None = None) -> None:
    """Bring the schema up to date. An existing file is copied to `<name>.v<version>.backup` first.

    All steps are one transaction: a process that is killed leaves the file as it was, or up to date. A file that a
    version before 4 made is then rewritten once, so that it can shrink.
    """
    known = migrations() if known is None else known
    version = check(connection, path, known)
    missing = [(number, sql) for number, sql in known if number > version]
    if not missing:
        return
    newest = missing[-1][0]
    if version:
        back_up(connection, path, backup_of(path, version))
    steps = "\n".join(sql for _, sql in missing)
    try:
        connection.executescript(
            f"BEGIN EXCLUSIVE;\n{steps}\nPRAGMA application_id = {APPLICATION_ID};\n"
            f"PRAGMA user_version = {newest};\nCOMMIT;"
        )
    except (sqlite3.Error, *UNREADABLE) as error:
        if connection.in_transaction:
            connection.rollback()
        raise StoreError(
            f"{path} could not be migrated from schema version {version} to {newest} ({error}); it is as it was before."
        ) from error
    if version and not connection.execute("PRAGMA auto_vacuum").fetchone()[0]:
        _let_it_shrink(connection, path)


def backup_of(path: Path, version: int) -> Path:
    """Where a database of this version of the schema is copied to before it is migrated."""
    return path.with_name(f"{path.name}.v{version}.backup")


def _let_it_shrink(connection: sqlite3.Connection, path: Path) -> None:
    """Make free pages returnable to the file system. For that, SQLite writes the whole file once more."""
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")
    except sqlite3.OperationalError as error:  # no room for it, most likely
        log.warning("%s could not be rewritten (%s), so it will not shrink", path, error)


def back_up_file(path: Path, target: Path) -> None:
    """`back_up` of a file that may be in use."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        back_up(connection, path, target)
    finally:
        connection.close()


def back_up(connection: sqlite3.Connection, source: Path, path: Path) -> None:
    """Copy a database, as it is at this moment, to a new file, which appears whole or not at all.

    The files of its large buffers come first, into the folder beside the new file: as links where that is possible.
    """
    made = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(made, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
        copy = sqlite3.connect(made)
        try:
            connection.backup(copy)
            PayloadFiles(source).copy_to(PayloadFiles(path), _payload_files(copy))
            copy.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, that may be kept on any medium
        finally:
            copy.close()
        made.replace(path)
    except (sqlite3.Error, OSError, *UNREADABLE) as error:
        with contextlib.suppress(OSError):
            made.unlink(missing_ok=True)
        raise StoreError(f"no backup could be written to {path} ({error}); {source} is as it was before") from error


def _payload_files(connection: sqlite3.Connection) -> list[str]:
    """The names of the files of large buffers."""
    columns = {row[1] for row in connection.execute("PRAGMA table_info(blobs)")}
    if "file" not in columns:  # of an earlier version
        return []
    return [name for (name,) in connection.execute("SELECT file FROM blobs WHERE file IS NOT NULL")]
