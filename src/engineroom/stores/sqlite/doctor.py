"""Looks through an SQLite task database, and saves what can be read of a damaged one.

`verify` reads every record and compares it with its checksum; `repair` writes those that are as they were written to a
new file. Neither touches the file it reads. Where a part of the file cannot be read, the records in it are looked for
one by one, and named by what the indexes still know of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ...errors import StoreDamaged, StoreError
from ...ids import TaskId
from .file import complain_if_cut
from .packing import SUMMED_OUTCOME, SUMMED_REQUEST, outcome_sum, request_sum, unpack
from .rows import entry_of
from .schema import APPLICATION_ID, migrations
from .store import SQLiteDB

#: Rows read at a time.
PAGE = 500
#: Problems of the file's structure that are told.
PROBLEMS = 100

#: No row is smaller, with its places in the indexes.
_LEAST_BYTES = 100

_Row = dict[str, Any]

_decode = msgspec.msgpack.Decoder().decode


class Findings(msgspec.Struct):
    """What was found in a database."""

    path: str
    #: the version of the schema
    version: int = 0
    #: bytes of the file
    size: int = 0
    #: what is wrong with the structure of the file
    structure: list[str] = []
    #: records that are as they were written …
    good: int = 0
    #: … of which so many were written before there were checksums
    unchecked: int = 0
    #: those that are not; None stands for one whose id cannot be read any more
    damaged: list[TaskId | None] = []
    #: those that have lost large buffers
    lightened: list[TaskId] = []
    functions: int = 0
    damaged_functions: int = 0

    @property
    def sound(self) -> bool:
        """Whether all is well."""
        return not (self.structure or self.damaged or self.lightened or self.damaged_functions)

    def summary(self) -> str:
        """In a line: "3 records damaged, 997 good"."""
        parts = [f"{len(self.damaged)} records damaged, {self.good} good"]
        if self.lightened:
            parts.append(f"{len(self.lightened)} of these without their large buffers")
        if self.damaged_functions:
            parts.append(f"{self.damaged_functions} of {self.functions} functions damaged")
        if self.structure:
            parts.append(f"at least {len(self.structure)} flaws in the structure of the file")
        return "; ".join(parts)


def verify(path: Path) -> Findings:
    """Read all of a database, also while a controller uses it.

    Raises
    ------
    StoreError
        There is no such file, it is another program's, or it has a newer schema.
    StoreDamaged
        Nothing of it can be read.
    """
    with contextlib.closing(_Patient(path)) as file:
        for _ in file.records():
            pass
        return file.findings


def repair(path: Path, target: Path) -> Findings:
    """Write what is good in a database to a new file; returns what was found. The old one is not touched.

    Raises
    ------
    StoreError
        As `verify`; or there is a target already, or it cannot be written.
    """
    if target.exists():
        raise StoreError(f"there is a file {target} already; name another")
    with contextlib.closing(_Patient(path)) as file:
        SQLiteDB(target).close()
        copy = sqlite3.connect(target, isolation_level=None)
        try:
            copy.execute("BEGIN")
            for table, row in file.beside():
                _insert(copy, table, row)
            for row in file.records():
                if not _insert(copy, "tasks", row):  # it was found twice
                    file.findings.good -= 1
            for table in ("uses", "pins"):
                copy.execute(f"DELETE FROM {table} WHERE msg_id NOT IN (SELECT msg_id FROM tasks)")
            copy.execute("DELETE FROM blobs WHERE blob NOT IN (SELECT blob FROM uses)")
            copy.execute("DELETE FROM parts WHERE blob NOT IN (SELECT blob FROM blobs)")
            copy.execute("COMMIT")
        except BaseException as error:
            copy.close()
            for name in (target, target.with_name(f"{target.name}.lock")):
                name.unlink(missing_ok=True)
            if isinstance(error, sqlite3.Error):
                raise StoreError(f"{target} could not be written: {error}") from error
            raise
        copy.close()
        target.with_name(f"{target.name}.lock").unlink(missing_ok=True)
        return file.findings


def _insert(connection: sqlite3.Connection, table: str, row: _Row) -> int:
    sql = f"INSERT OR IGNORE INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
    return connection.execute(sql, list(row.values())).rowcount


def _columns(connection: sqlite3.Connection) -> dict[str, str]:
    """The columns of the tasks table that are stored, and what they hold."""
    try:
        return {row[1]: row[2] for row in connection.execute("PRAGMA table_info(tasks)")}
    except (sqlite3.DatabaseError, UnicodeError):
        return {}


#: What SQLite makes of what columns hold; a function that somebody has added may be any text.
_TYPES: dict[str, tuple[type, ...]] = {"TEXT": (str,), "BLOB": (bytes,), "REAL": (float,), "INTEGER": (int,)}


class _Patient:
    """A file that may be damaged anywhere; gathers findings while it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.exists():
            raise StoreError(f"there is no task database {path}")
        self.findings = Findings(str(path), size=path.stat().st_size)
        try:
            complain_if_cut(path)
        except StoreDamaged as error:
            self.findings.structure.append(str(error))
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        try:
            self._connection.execute("PRAGMA writable_schema = 1")  # else SQLite reads nothing of a file that was cut
            self._connection.execute("PRAGMA cell_size_check = 1")
            self._look()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def _look(self) -> None:
        """Whose file it is, what it has, and what is wrong with its structure."""
        try:
            [owner] = self._connection.execute("PRAGMA application_id").fetchone()
            [self.findings.version] = self._connection.execute("PRAGMA user_version").fetchone()
            tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_schema")}
        except sqlite3.DatabaseError as error:
            raise StoreDamaged(f"nothing of {self._path} can be read: {error}") from error
        if not self.findings.size:
            raise StoreError(f"{self._path} is not a task database yet: it is empty")
        if owner != APPLICATION_ID and not ("tasks" in tables and "functions" in tables):
            raise StoreError(f"{self._path} is an SQLite database, but not one of Engineroom's")
        newest = migrations()[-1][0]
        if self.findings.version > newest:
            raise StoreError(
                f"{self._path} has schema version {self.findings.version}; "
                f"this Engineroom knows versions up to {newest}"
            )
        self._names = _columns(self._connection)
        with contextlib.closing(sqlite3.connect(":memory:")) as model:
            for number, sql in migrations():
                if number <= self.findings.version:
                    model.executescript(sql)
            if self._names != _columns(model):
                raise StoreDamaged(f"nothing of {self._path} can be read: the description of its tables is damaged")
        self._types = {name: _TYPES[kind] for name, kind in self._names.items()} | {"function": (bytes, str)}
        self._is_old = "request_sum" not in self._names
        self._index: dict[int, TaskId | None] | None = None
        try:
            found = self._connection.execute(f"PRAGMA integrity_check({PROBLEMS})").fetchall()
        except sqlite3.DatabaseError as error:
            found = [(str(error),)]
        self.findings.structure += [text for (text,) in found if text != "ok"]
        #: the large buffers that are whole; None: the file is of before there were any
        self._blobs = None if self._is_old else set(self._whole_blobs())

    # ------------------------------------------------------------------------------------------ beside the records

    def beside(self) -> Iterator[tuple[str, _Row]]:
        """(table, row) of all that is not a record, but for what is damaged."""
        older = self.findings.version < 3
        names: tuple[str, ...] = ("digest", "payload") if older else ("digest", "name", "source", "payload")
        for row in self._rows("functions", names):
            self.findings.functions += 1
            if hashlib.blake2b(row["payload"], digest_size=16).digest() == row["digest"]:
                yield "functions", row
            else:
                self.findings.damaged_functions += 1
        if self.findings.version >= 2:
            for row in self._rows("engines", ("engine_uuid", "host")):
                yield "engines", row
        if not older:
            for row in self._rows("environments", ("digest", "content")):
                yield "environments", row
            for row in self._rows("clients", ("client_uuid", "environment")):
                yield "clients", row
        if self._blobs is None:
            return
        for row in self._rows("pins", ("msg_id",)):
            yield "pins", row
        for table, names in ("blobs", ("blob", "digest", "size")), ("uses", ("msg_id", "blob", "result")):
            for row in self._rows(table, names):
                if row["blob"] in self._blobs:
                    yield table, row
        for blob in sorted(self._blobs):  # found as they were checked: a scan of the table may stop at a flaw
            for part, data in self._parts(blob):
                yield "parts", {"part": part, "blob": blob, "data": data}

    def _rows(self, table: str, names: Sequence[str]) -> Iterator[_Row]:
        """As many rows of a table as can be read, from its beginning and from its end; some perhaps twice."""
        for direction in ("ASC", "DESC"):
            try:
                sql = f"SELECT {', '.join(names)} FROM {table} ORDER BY {names[0]} {direction}"
                for row in self._connection.execute(sql):
                    yield dict(zip(names, row, strict=True))
                return
            except sqlite3.DatabaseError as error:
                self._note(f"table {table}: {error}")

    def _note(self, problem: str) -> None:
        if len(self.findings.structure) < PROBLEMS and problem not in self.findings.structure:
            self.findings.structure.append(problem)

    def _parts(self, blob: int) -> Iterator[tuple[int, bytes]]:
        yield from self._connection.execute("SELECT part, data FROM parts WHERE blob = ? ORDER BY part", (blob,))

    def _whole_blobs(self) -> Iterator[int]:
        for row in self._rows("blobs", ("blob", "digest", "size")):
            digest, size = hashlib.sha256(), 0
            try:
                for _, data in self._parts(row["blob"]):
                    digest.update(data)
                    size += len(data)
            except sqlite3.DatabaseError:
                size = -1
            if size == row["size"] and digest.digest() == row["digest"]:
                yield row["blob"]

    # ------------------------------------------------------------------------------------------ records

    def records(self) -> Iterator[_Row]:
        """The good ones, as rows; the others go into the findings."""
        if not self.findings.functions:
            for _ in self.beside():  # for the findings
                pass
        seen: set[int] = set()
        for seq, raw in self._all():
            if self.findings.structure:  # a page may be found twice
                if seq in seen:
                    continue
                seen.add(seq)
            if raw is None:
                self.findings.damaged.append(self._known.get(seq))
                continue
            row = dict(zip(self._names, raw, strict=True))
            if self._is_good(row):
                self.findings.good += 1
                yield row
            else:
                self.findings.damaged.append(self._known.get(seq))

    def _all(self) -> Iterator[tuple[int, Sequence[Any] | None]]:
        """(number, row) of every record by its number; None for one that cannot be read."""
        last, names, broken = -1, ", ".join(self._names), False
        while True:
            try:
                rows = self._connection.execute(
                    f"SELECT seq, {names} FROM tasks WHERE seq > ? ORDER BY seq LIMIT {PAGE}", (last,)
                ).fetchall()
            except sqlite3.DatabaseError as error:
                self._note(f"table tasks: {error}")
                broken = True
                break
            for seq, *row in rows:
                yield seq, row
            if len(rows) < PAGE:
                break
            last = rows[-1][0]
        seqs = [seq for seq in self._known if seq > last] if broken else self._missing(last)
        for seq in sorted(seqs):
            yield seq, self._one(seq, names) if broken else None

    def _one(self, seq: int, names: str) -> Sequence[Any] | None:
        try:
            row: Sequence[Any] | None = self._connection.execute(
                f"SELECT {names} FROM tasks WHERE seq = ?", (seq,)
            ).fetchone()
            return row
        except sqlite3.DatabaseError:
            return None

    def _missing(self, last: int) -> list[int]:
        """Records that only the indexes still know, where the structure has flaws."""
        if not self.findings.structure:
            return []
        there = {seq for (seq,) in self._connection.execute("SELECT seq FROM tasks NOT INDEXED")}
        return [seq for seq in self._known if seq not in there]

    @property
    def _known(self) -> dict[int, TaskId | None]:
        """Number → msg_id of all records, as far as the indexes, or the table itself, can be read."""
        if self._index is None:
            found: dict[int, TaskId | None] = {}
            for index in ("INDEXED BY sqlite_autoindex_tasks_1", "INDEXED BY tasks_by_submission"):
                for direction in ("ASC", "DESC"):
                    order = "msg_id" if "auto" in index else "submitted"
                    try:
                        for seq, id in self._connection.execute(
                            f"SELECT seq, msg_id FROM tasks {index} ORDER BY {order} {direction}"
                        ):
                            found.setdefault(seq, id)
                        break
                    except sqlite3.DatabaseError:
                        continue
            self._index = found | self._probed(found)
        return self._index

    def _probed(self, found: dict[int, TaskId | None]) -> dict[int, TaskId | None]:
        """Numbers that no index knows: those between known ones, where the table can still be searched."""
        try:
            [most] = self._connection.execute("SELECT max(seq) FROM tasks").fetchone()
        except sqlite3.DatabaseError:
            most = max(max(found, default=0), self.findings.size // _LEAST_BYTES)
        gaps = [seq for seq in range(1, (most or 0) + 1) if seq not in found]
        there: dict[int, TaskId | None] = {}
        for seq in gaps:
            with contextlib.suppress(sqlite3.DatabaseError):
                if self._connection.execute("SELECT 1 FROM tasks WHERE seq = ?", (seq,)).fetchone():
                    there[seq] = None
        return there

    def _is_good(self, row: _Row) -> bool:
        """Whether a row is as it was written. Large buffers that are not are taken out of it."""
        try:
            for name, value in row.items():
                if value is not None and not isinstance(value, self._types[name]):
                    return False
            if not self._agrees(row, "request_sum", SUMMED_REQUEST, request_sum):
                return False
            if not self._agrees(row, "outcome_sum", SUMMED_OUTCOME, outcome_sum):
                return False
            if row.get("request_sum") is None:
                self._read(row)
                self.findings.unchecked += 1
            for value in row.values():
                if isinstance(value, str):
                    value.encode()  # what is not UTF-8 is not what was written
        except Exception:  # a damaged row may hold anything, of any type
            return False
        lost = [
            name
            for name in ("frames", "result_frames")
            if self._blobs is not None and row[name] and not self._blobs.issuperset(_numbers(row[name]))
        ]
        if lost:
            self.findings.lightened.append(row["msg_id"])
            for name in lost:
                row[name] = row["payload" if name == "frames" else "result_payload"] = None
            row["request_sum"] = request_sum(*[row[name] for name in SUMMED_REQUEST])
            row["outcome_sum"] = outcome_sum(*[row[name] for name in SUMMED_OUTCOME])
        return True

    def _agrees(self, row: _Row, column: str, names: Sequence[str], sum_up: Callable[..., int]) -> bool:
        return row.get(column) is None or sum_up(*[row[name] for name in names]) == row[column]

    def _read(self, row: _Row) -> None:
        """Without a checksum, what can be decoded counts as good, unless something is missing that was always there."""
        if any("\0" in (row[name] or "") for name in ("msg_id", "kind", "state", "client_uuid")):
            raise ValueError
        if row["document"] is not None:
            _decode(row["document"])
        elif not _is_whole(row):
            raise ValueError
        if row["kind"] is not None:
            entry_of([row.get(name) for name in _COLUMNS], lambda number: b"")


def _is_whole(row: _Row) -> bool:
    """Whether a task that nobody has changed by hand has what every one has."""
    if row["kind"] is None or row["submitted"] is None or _lacks(row, "payload", "frames"):
        return False
    if row["attempt"] is None:
        return row["completed"] is None
    return row["completed"] is not None and not _lacks(row, "result_payload", "result_frames")


def _lacks(row: _Row, *names: str) -> bool:
    return all(row[name] is None for name in names)


def _numbers(packed: bytes) -> list[int]:
    """The shared buffers that a blob of buffers names."""
    found: list[int] = []

    def note(number: int) -> bytes:
        found.append(number)
        return b""

    unpack(packed, note)
    return found


#: The columns that `entry_of` takes, in their order; what is made of other tables is None.
_COLUMNS = (
    "msg_id", "kind", "state", "label", "submitted", "started", "completed", "received", "duration", "client_uuid",
    "engine_uuid", "engine_id", "queue", "target", "function", "resubmitted", "code_digest", "arguments_digest",
    "cached_from", "attempt", "peak_memory", "options", "outcome", "document", "stdout", "stderr", "host",
    "function_name", "environment", "pinned", "payload", "frames", "result_payload", "result_frames",
)  # fmt: skip
