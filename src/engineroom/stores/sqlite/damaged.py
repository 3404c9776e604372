"""Reads an SQLite task database that may be damaged anywhere, without changing it.

Every record is compared with its checksum. Where a part of the file cannot be read, the records in it are looked for
one by one, and named by what the indexes still know about them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from ...errors import StoreDamaged, StoreError
from ...ids import TaskId
from ..packing import decode, unpack
from .file import refuse_cut
from .payload_files import PayloadFiles
from .rows.checksums import SUMMED_OUTCOME, SUMMED_REQUEST, outcome_sum, request_sum
from .rows.columns import ROW
from .rows.reading import entry_of
from .schema import APPLICATION_ID, UNREADABLE, migrations, newer_error

#: Rows read at a time.
PAGE = 500
#: Problems of the file's structure that are reported at most.
PROBLEMS = 100

#: Bytes of the smallest row, with its entries in the indexes.
_LEAST_BYTES = 100

#: Numbers of records that are looked for one by one at most: in all, and for each row for which the file has room.
MOST_PROBED, MOST_PROBED_PER_ROW = 1_000_000, 100

#: So many rows that were read before show that reading would not end.
MOST_REPEATED = 10_000

#: A large buffer has fewer parts.
MOST_PARTS = 1 << 20

#: How often the progress is told while the structure is checked: steps of SQLite's machine.
STEPS = 1_000_000

Row = dict[str, Any]
#: Told what is being read, how much of it has been, and how much there is (0: unknown).
Progress = Callable[[str, int, int], None]


class Findings(msgspec.Struct):
    """What was found in a database."""

    path: str
    #: the version of the schema
    version: int = 0
    #: bytes of the file
    size: int = 0
    #: what is wrong with the structure of the file
    structure: list[str] = []
    #: records that are good: as they were written …
    good: int = 0
    #: … of which so many were written before there were checksums
    unchecked: int = 0
    #: the ids of damaged records; None: the id cannot be read
    damaged: list[TaskId | None] = []
    #: good records that have lost large buffers
    lightened: list[TaskId] = []
    functions: int = 0
    damaged_functions: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not (self.structure or self.damaged or self.lightened or self.damaged_functions)

    def summary(self) -> str:
        """A line of text: "3 records damaged, 997 good"."""
        parts = [f"{len(self.damaged)} records damaged, {self.good} good"]
        if self.lightened:
            parts.append(f"{len(self.lightened)} of these without their large buffers")
        if self.damaged_functions:
            parts.append(f"{self.damaged_functions} of {self.functions} functions damaged")
        if self.structure:
            parts.append(f"at least {len(self.structure)} flaws in the structure of the file")
        return "; ".join(parts)


def _columns(connection: sqlite3.Connection) -> dict[str, str]:
    """The columns of the tasks table that are stored, and what they hold."""
    try:
        return {row[1]: row[2] for row in connection.execute("PRAGMA table_info(tasks)")}
    except UNREADABLE:
        return {}


@functools.cache
def _columns_of_version(version: int) -> dict[str, str]:
    """The same of an empty file of a version of the schema."""
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        for number, sql in migrations():
            if number <= version:
                model.executescript(sql)
        return _columns(model)


#: Types of columns → of their values. (A user may have set `function` to any text.)
_TYPES: dict[str, tuple[type, ...]] = {"TEXT": (str,), "BLOB": (bytes,), "REAL": (float,), "INTEGER": (int,)}


class DamagedFile:
    """A file that may be damaged anywhere. What is found goes into `findings` while the file is read."""

    def __init__(self, path: Path, progress: Progress = lambda what, done, total: None) -> None:
        self._progress = progress
        self._path = path
        if not path.exists():
            raise StoreError(f"there is no task database {path}")
        self.findings = Findings(str(path), size=path.stat().st_size)
        try:
            refuse_cut(path)
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
        """Check that the file is a task database, and find flaws in its structure."""
        try:
            [owner] = self._connection.execute("PRAGMA application_id").fetchone()
            [self.findings.version] = self._connection.execute("PRAGMA user_version").fetchone()
            tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_schema")}
        except UNREADABLE as error:
            raise StoreDamaged(f"nothing of {self._path} can be read: {error}") from error
        if not self.findings.size:
            raise StoreError(f"{self._path} is not a task database yet: it is empty")
        if owner != APPLICATION_ID and not ("tasks" in tables and "functions" in tables):
            raise StoreError(f"{self._path} is an SQLite database, but not one of Engineroom's")
        newest = migrations()[-1][0]
        if self.findings.version > newest:
            raise newer_error(self._path, self.findings.version, newest)
        self._names = _columns(self._connection)
        if self._names != _columns_of_version(self.findings.version):
            raise StoreDamaged(f"nothing of {self._path} can be read: the description of its tables is damaged")
        self._types = {name: _TYPES[kind] for name, kind in self._names.items()} | {"function": (bytes, str)}
        self._is_old = "request_sum" not in self._names
        self._index: dict[int, TaskId | None] | None = None
        self._progress("structure", 0, 0)
        self._connection.set_progress_handler(lambda: self._progress("structure", 0, 0), STEPS)
        try:
            found = self._connection.execute(f"PRAGMA integrity_check({PROBLEMS})").fetchall()
        except UNREADABLE as error:
            found = [(str(error),)]
        finally:
            self._connection.set_progress_handler(None, 0)
        self.findings.structure += [text for (text,) in found if text != "ok"]
        #: numbers of the large buffers that are whole; None: the schema is older than large buffers
        self._blobs = None if self._is_old else set(self._whole_blobs())

    @property
    def files(self) -> PayloadFiles:
        """The large buffers beside the file."""
        return PayloadFiles(self._path)

    @property
    def _columns_of_blobs(self) -> tuple[str, ...]:
        return ("blob", "digest", "size", *(("file", "sum") if self.findings.version >= 7 else ()))

    # ------------------------------------------------------------------------------------------ other tables

    def others(self) -> Iterator[tuple[str, Row]]:
        """(table, row) of the other tables, without what is damaged."""
        older = self.findings.version < 3
        names: tuple[str, ...] = ("digest", "payload") if older else ("digest", "name", "source", "payload")
        for row in self._rows("functions", names):
            self.findings.functions += 1
            code = row["payload"]
            if isinstance(code, bytes) and hashlib.blake2b(code, digest_size=16).digest() == row["digest"]:
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
        for row in self._rows("blobs", self._columns_of_blobs):
            if row["blob"] in self._blobs:
                yield "blobs", row
        for blob in sorted(self._blobs):  # found as they were checked: a scan of the table may stop at a flaw
            for part, data in self._parts(blob):
                if isinstance(data, bytes):  # those of a buffer in a file are of no use, whatever they are
                    yield "parts", {"part": part, "blob": blob, "data": data}

    def _rows(self, table: str, names: Sequence[str]) -> Iterator[Row]:
        """As many rows of a table as can be read, from its beginning and from its end; some perhaps twice."""
        for direction in ("ASC", "DESC"):
            try:
                sql = f"SELECT {', '.join(names)} FROM {table} ORDER BY {names[0]} {direction}"
                for row in self._once(table, self._connection.execute(sql)):
                    yield dict(zip(names, [self._as_text(table, value) for value in row], strict=True))
                return
            except UNREADABLE as error:
                self._note(f"table {table}: {error}")

    def _once(self, what: str, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """The rows, each once.

        After an error in another statement SQLite may look for its place again, by the number of a row: where rows are
        not in order it goes round for ever.
        """
        if not self.findings.structure:  # they are in order
            yield from rows
            return
        seen, repeated = set[Any](), 0
        for row in rows:
            if row[0] not in seen:
                seen.add(row[0])
                yield row
                continue
            repeated += 1
            if repeated > MOST_REPEATED:
                self._note(f"{what}: its rows are not in order")
                return

    def _as_text(self, table: str, value: Any) -> Any:
        """A value of a table of names. Text that is not UTF-8 is made readable: no database takes it as it is."""
        if not isinstance(value, str) or value.isascii():
            return value
        raw = value.encode("utf-8", "surrogateescape")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self._note(f"table {table}: a text is not UTF-8")
            return raw.decode(errors="replace")

    def _note(self, problem: str) -> None:
        if len(self.findings.structure) < PROBLEMS and problem not in self.findings.structure:
            self.findings.structure.append(problem)

    def _parts(self, blob: int) -> Iterator[tuple[int, Any]]:
        """The parts of a large buffer in the table `parts`, in order. What cannot be read is None."""
        try:
            found = self._connection.execute("SELECT part FROM parts WHERE blob = ? ORDER BY part", (blob,))
            numbers = [part for (part,) in islice(found, MOST_PARTS)]
        except UNREADABLE as error:
            self._note(f"index of parts: {error}")
            numbers = self._parts_without_index.get(blob, [])
        for part in numbers:
            try:
                row = self._connection.execute("SELECT data FROM parts WHERE part = ?", (part,)).fetchone()
            except UNREADABLE:
                row = None
            yield part, row and row[0]

    @functools.cached_property
    def _parts_without_index(self) -> dict[Any, list[int]]:
        """Large buffer → its parts, from the table alone."""
        found: dict[Any, list[int]] = {}
        with contextlib.suppress(*UNREADABLE):
            rows = self._connection.execute("SELECT part, blob FROM parts NOT INDEXED")
            for part, blob in self._once("table parts", rows):
                found.setdefault(blob, []).append(part)
        return {blob: sorted(parts) for blob, parts in found.items()}

    def _whole_blobs(self) -> Iterator[int]:
        files = self.files
        numbers: dict[Any, int] = {}
        for row in self._rows("blobs", self._columns_of_blobs):
            # An old page may have a buffer that was dropped, and stored again later under another number.
            if numbers.setdefault(row["digest"], row["blob"]) != row["blob"]:
                continue
            if row.get("file") is not None:
                if self._is_whole_file(files, row):
                    yield row["blob"]
                continue
            digest, size = hashlib.sha256(), 0
            most = row["size"] if isinstance(row["size"], int) else 0
            for _, data in self._parts(row["blob"]):
                # a damaged row may hold anything, and may come again and again
                if not isinstance(data, bytes) or not 0 < len(data) <= most - size:
                    size = -1
                    break
                digest.update(data)
                size += len(data)
            if size == row["size"] and digest.digest() == row["digest"]:
                yield row["blob"]

    def _is_whole_file(self, files: PayloadFiles, row: Row) -> bool:
        name, size, sum = row["file"], row["size"], row["sum"]
        if not (isinstance(name, str) and name.isalnum() and isinstance(size, int) and isinstance(sum, int)):
            return False  # a damaged row may hold anything
        return files.is_whole(name, size, sum, lambda: self._progress("large buffers", 0, 0))

    # ------------------------------------------------------------------------------------------ records

    def records(self) -> Iterator[Row]:
        """The good records, as rows; the damaged ones are added to the findings."""
        if not self.findings.functions:
            for _ in self.others():  # counts functions in the findings
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
        """(number, row) of every record, in order of the numbers; None for a row that cannot be read."""
        last, names, broken, number, total = -1, ", ".join(self._names), False, 0, self._count()
        while True:
            try:
                rows = self._connection.execute(
                    f"SELECT seq, {names} FROM tasks WHERE seq > ? ORDER BY seq LIMIT {PAGE}", (last,)
                ).fetchall()
            except UNREADABLE as error:
                self._note(f"table tasks: {error}")
                broken = True
                break
            number += len(rows)
            self._progress("records", number, max(number, total))
            for seq, *row in rows:
                yield seq, row
            if len(rows) < PAGE:
                break
            if rows[-1][0] <= last:
                self._note("table tasks: its rows are not in order")
                broken = True
                break
            last = rows[-1][0]
        seqs = [seq for seq in self._known if seq > last] if broken else self._missing(last)
        for seq in sorted(seqs):
            yield seq, self._one(seq, names) if broken else None

    def _count(self) -> int:
        """How many records there are; 0 if that cannot be read, or counting may not end."""
        if self.findings.structure:
            return 0
        try:
            return int(self._connection.execute("SELECT count(*) FROM tasks").fetchone()[0])
        except UNREADABLE:
            return 0

    def _one(self, seq: int, names: str) -> Sequence[Any] | None:
        try:
            row: Sequence[Any] | None = self._connection.execute(
                f"SELECT {names} FROM tasks WHERE seq = ?", (seq,)
            ).fetchone()
            return row
        except UNREADABLE:
            return None

    def _missing(self, last: int) -> list[int]:
        """Numbers that the indexes have and the table has not; none if the structure has no flaws."""
        if not self.findings.structure:
            return []
        there: set[int] = set()
        try:
            rows = self._connection.execute("SELECT seq FROM tasks NOT INDEXED")
            there.update(seq for (seq,) in self._once("table tasks", rows))
        except UNREADABLE as error:
            self._note(f"table tasks: {error}")
        return [seq for seq in self._known if seq not in there]

    @property
    def _known(self) -> dict[int, TaskId | None]:
        """Number → msg_id of all records, as far as the indexes or the table can be read."""
        if self._index is None:
            found: dict[int, TaskId | None] = {}
            for index in ("INDEXED BY sqlite_autoindex_tasks_1", "INDEXED BY tasks_by_submission"):
                for direction in ("ASC", "DESC"):
                    order = "msg_id" if "auto" in index else "submitted"
                    try:
                        rows = self._connection.execute(
                            f"SELECT seq, msg_id FROM tasks {index} ORDER BY {order} {direction}"
                        )
                        for seq, id in self._once("an index of tasks", rows):
                            found.setdefault(seq, id)
                        break
                    except UNREADABLE:
                        continue
            self._index = found | self._probed(found)
        return self._index

    def _probed(self, found: dict[int, TaskId | None]) -> dict[int, TaskId | None]:
        """Numbers that no index has: looked for one by one in the gaps between known numbers, the newest first."""
        room = self.findings.size // _LEAST_BYTES  # for so many rows
        likely = max(max(found, default=0), room)
        try:
            [most] = self._connection.execute("SELECT max(seq) FROM tasks").fetchone()
        except UNREADABLE:
            most = likely
        # A damaged row may have any number, up to 2**63.
        gaps = (seq for seq in range(min(most or 0, likely), 0, -1) if seq not in found)
        there: dict[int, TaskId | None] = {}
        for seq in islice(gaps, min(MOST_PROBED, room * MOST_PROBED_PER_ROW)):
            with contextlib.suppress(*UNREADABLE):
                if self._connection.execute("SELECT 1 FROM tasks WHERE seq = ?", (seq,)).fetchone():
                    there[seq] = None
        return there

    def _is_good(self, row: Row) -> bool:
        """Whether a row is as it was written. Damaged large buffers are taken out of it."""
        try:
            for name, value in row.items():
                if value is not None and not isinstance(value, self._types[name]):
                    return False
            if not self._agrees(row, "request_sum", SUMMED_REQUEST, request_sum):
                return False
            if not self._agrees(row, "outcome_sum", SUMMED_OUTCOME, outcome_sum):
                return False
            if row.get("request_sum") is not None and row["completed"] is None and row["document"] is None:
                row["attempt"] = None  # one bit makes a number of it: without an end there is no outcome
            if row.get("request_sum") is not None and row["completed"] is not None:
                if row["outcome_sum"] is None:
                    return False  # every outcome is written with its checksum …
                if row["attempt"] is None and row["kind"] is not None and row["document"] is None:
                    return False  # … and, unless a user has changed the record, with its attempt
            if row.get("request_sum") is None:
                self._read(row)
                self.findings.unchecked += 1
            for value in row.values():
                if isinstance(value, str):
                    value.encode()  # text that is not UTF-8 is damaged
        except Exception:  # a damaged row may hold anything, of any type
            return False
        lost = [
            name
            for name in ("frames", "result_frames")
            if self._blobs is not None and not self._blobs.issuperset(numbers_of_buffers(row[name]))
        ]
        if lost:
            self.findings.lightened.append(row["msg_id"])
            for name in lost:
                row[name] = row["payload" if name == "frames" else "result_payload"] = None
            row["request_sum"] = request_sum(*[row.get(name) for name in SUMMED_REQUEST])  # type: ignore[arg-type]
            row["outcome_sum"] = outcome_sum(*[row[name] for name in SUMMED_OUTCOME])
        return True

    def _agrees(self, row: Row, column: str, names: Sequence[str], sum_up: Callable[..., int]) -> bool:
        return row.get(column) is None or sum_up(*[row.get(name) for name in names]) == row[column]

    def _read(self, row: Row) -> None:
        """A row without checksums is good if it can be decoded and nothing is missing; else this raises something."""
        if any("\0" in (row[name] or "") for name in ("msg_id", "kind", "state", "client_uuid")):
            raise ValueError
        if row["document"] is not None:
            decode(row["document"])
        elif not _is_whole(row):
            raise ValueError
        if row["kind"] is not None:
            entry_of([row.get(name) for name in ROW], lambda number: b"")


def _is_whole(row: Row) -> bool:
    """Whether a row that no user has changed has all values that every task has."""
    if row["kind"] is None or row["submitted"] is None or _lacks(row, "payload", "frames"):
        return False
    if row["attempt"] is None:
        return row["completed"] is None
    return row["completed"] is not None and not _lacks(row, "result_payload", "result_frames")


def _lacks(row: Row, *names: str) -> bool:
    return all(row[name] is None for name in names)


def numbers_of_buffers(packed: bytes | None) -> list[int]:
    """The numbers of the large buffers among those of a request or a result."""
    found: list[int] = []

    def note(number: int) -> bytes:
        found.append(number)
        return b""

    unpack(packed, note)
    return found
