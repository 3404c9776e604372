"""The SQLite file itself: whose it is, and which version of the schema it has.

Migrations are the files `sql/NNN_name.sql`, applied in order; `PRAGMA user_version` is the number of the last.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from ..errors import StoreError

#: Marks a file as ours ("ERtd").
APPLICATION_ID = 0x45527464

Migrations = Sequence[tuple[int, str]]


def migrations() -> Migrations:
    """[(number, SQL), …] in order."""
    files = resources.files(__package__) / "sql"
    return sorted(
        (int(file.name.split("_")[0]), file.read_text()) for file in files.iterdir() if file.name.endswith(".sql")
    )


def check(connection: sqlite3.Connection, path: Path, known: Migrations) -> int:
    """The schema's version, 0 for an empty file; StoreError if the file is not one we can use."""
    try:
        [owner] = connection.execute("PRAGMA application_id").fetchone()
        [version] = connection.execute("PRAGMA user_version").fetchone()
        [tables] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"{path} cannot be read as a task database ({error}). Move it away, or name another file, and start again."
        ) from error
    if tables and owner != APPLICATION_ID:
        raise StoreError(f"{path} is an SQLite database, but not one of Engineroom's; name another file.")
    newest = known[-1][0]
    if version > newest:
        raise StoreError(
            f"{path} has schema version {version}; this Engineroom knows versions up to {newest}. "
            "Use a newer Engineroom, or name another file."
        )
    return int(version)


def migrate(connection: sqlite3.Connection, path: Path, known: Migrations | None = None) -> None:
    """Bring the schema up to date; an existing file is copied to `<name>.v<version>.backup` first."""
    known = migrations() if known is None else known
    version = check(connection, path, known)
    missing = [(number, sql) for number, sql in known if number > version]
    if not missing:
        return
    if version:
        _back_up(connection, path.with_name(f"{path.name}.v{version}.backup"))
    for number, sql in missing:
        try:
            connection.executescript(
                f"BEGIN EXCLUSIVE;\n{sql}\nPRAGMA application_id = {APPLICATION_ID};\n"
                f"PRAGMA user_version = {number};\nCOMMIT;"
            )
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.rollback()
            raise StoreError(
                f"{path} could not be migrated to schema version {number} ({error}); it is as it was before."
            ) from error


def _back_up(connection: sqlite3.Connection, path: Path) -> None:
    copy = sqlite3.connect(path)
    try:
        connection.backup(copy)
    finally:
        copy.close()
