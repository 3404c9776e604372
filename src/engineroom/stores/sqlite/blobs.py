"""Large buffers of records: each content is stored once, however many tasks refer to it.

The largest are files beside the database (`payload_files.py`), the others rows of the table `parts`. A buffer that
several tasks of one message share is the same object in all of them, so it is read once. The digest finds a buffer
that is stored already: the SHA-256 of its content; of a file its size and CRC-32, which are cheap to compute, and then
the contents are compared. Triggers delete a buffer together with the last task that uses it (`sql/004_trust.sql`).
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import struct
import weakref
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import msgspec

from ...ids import TaskId
from ...records.entry import Entry
from ...shared_memory.buffer import SharedBuffer, key_of
from ..packing import Shared
from .payload_files import FILE_FROM, PayloadFiles

#: A buffer of at least so many bytes is stored outside the rows. For a smaller one that costs more than it saves.
SHARED_FROM = 64 << 10
#: Bytes of a part. SQLite holds a whole value in memory, and refuses values above 1 GB.
PART_BYTES = 16 << 20

_frames_of, _result_frames_of = attrgetter("frames"), attrgetter("result_frames")

#: (msg_id, bytes) of finished records with large buffers, by submission, except pinned ones.
OLDEST = """
    SELECT tasks.msg_id, found.size FROM
        (SELECT msg_id, sum(size) AS size FROM uses JOIN blobs USING (blob) GROUP BY msg_id) AS found
        CROSS JOIN tasks ON tasks.msg_id = found.msg_id
    WHERE completed IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pins WHERE pins.msg_id = tasks.msg_id)
    ORDER BY submitted, tasks.msg_id LIMIT ?
"""


def has_large(entries: Sequence[Entry]) -> bool:
    """Whether some buffer is large enough to be shared."""
    if not any(map(_frames_of, entries)) and not any(map(_result_frames_of, entries)):
        return False
    return any(
        memoryview(frame).nbytes >= SHARED_FROM
        for entry in entries
        if entry.frames or entry.result_frames
        for frame in (*entry.frames, *entry.result_frames)
    )


class Sharing:
    """Stores the large buffers of one transaction at a time.

    The caller calls `done` after it has committed, or `failed` if it has not.
    """

    def __init__(self, files: PayloadFiles) -> None:
        self._files = files
        #: key of a buffer → (a reference to one with this key, its number)
        self._known: dict[Any, tuple[weakref.ref[Any], int]] = {}
        self._new: dict[Any, tuple[Any, int]] = {}
        #: the files that this transaction has written
        self._written: list[str] = []

    def share(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> list[Entry]:
        """The entries, with references in the place of large buffers."""
        self._new = {}
        made = []
        for entry in entries:
            if entry.frames or entry.result_frames:
                frames = self._shared(connection, entry.id, entry.frames, False)
                results = self._shared(connection, entry.id, entry.result_frames, True)
                entry = msgspec.structs.replace(entry, frames=frames, result_frames=results)
            made.append(entry)
        return made

    def share_buffers(
        self, connection: sqlite3.Connection, msg_id: TaskId, buffers: Sequence[Any], result: bool
    ) -> Sequence[Any]:
        """The same for the buffers of a record, which replace those that it had."""
        connection.execute("DELETE FROM uses WHERE msg_id = ? AND result = ?", (msg_id, result))
        self._known.clear()  # the last use of a buffer may have been deleted, and the buffer with it
        self._new = {}
        return self._shared(connection, msg_id, buffers, result)

    def done(self) -> None:
        """The transaction was committed."""
        for key, (buffer, number) in self._new.items():
            if isinstance(buffer, memoryview | SharedBuffer):
                self._known[key] = weakref.ref(buffer), number
        self._new, self._written = {}, []
        if len(self._known) > 10_000:
            self._known = {key: known for key, known in self._known.items() if known[0]() is not None}

    def failed(self) -> None:
        """The transaction was not committed."""
        self._files.remove(self._written)
        self._new, self._written = {}, []

    def forget(self) -> None:
        """Records were dropped, perhaps with their buffers: forget which numbers are known."""
        self._known.clear()

    def _shared(
        self, connection: sqlite3.Connection, msg_id: TaskId, frames: Sequence[Any], result: bool
    ) -> Sequence[Any]:
        if not any(memoryview(frame).nbytes >= SHARED_FROM for frame in frames):
            return frames
        made = []
        for frame in frames:
            if memoryview(frame).nbytes < SHARED_FROM:
                made.append(frame)
                continue
            number = self._number(connection, frame)
            connection.execute("INSERT OR IGNORE INTO uses VALUES (?, ?, ?)", (msg_id, number, result))
            made.append(Shared(number))
        return tuple(made)

    def _number(self, connection: sqlite3.Connection, frame: Any) -> int:
        key = key_of(frame)
        if key in self._new:
            return self._new[key][1]
        known = self._known.get(key)
        if known is not None and known[0]() is not None:  # it lives, so the key is still its own
            return known[1]
        number = self._number_of_file if memoryview(frame).nbytes >= FILE_FROM else self._number_of_parts
        self._new[key] = frame, (found := number(connection, frame))
        return found

    def _number_of_file(self, connection: sqlite3.Connection, frame: Any) -> int:
        if (name := self._files.name_of(frame)) is not None:
            loaded = connection.execute("SELECT blob FROM blobs WHERE file = ?", (name,)).fetchone()
            if loaded is not None:
                return int(loaded[0])
        written = self._files.write(frame)
        self._written.append(written.name)
        same = 0  # files of other content with the same size and sum
        while True:
            digest = struct.pack("<QII", written.size, written.sum, same)
            found = connection.execute("SELECT blob, file FROM blobs WHERE digest = ?", (digest,)).fetchone()
            if found is None:
                row = (number := _new_number(), digest, written.size, written.name, written.sum)
                connection.execute("INSERT INTO blobs (blob, digest, size, file, sum) VALUES (?, ?, ?, ?, ?)", row)
                return number
            if self._files.holds(found[1], frame):
                self._written.remove(written.name)
                self._files.remove([written.name])
                return int(found[0])
            same += 1

    def _number_of_parts(self, connection: sqlite3.Connection, frame: Any) -> int:
        view = memoryview(frame)
        view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
        digest = hashlib.sha256(view).digest()
        found = connection.execute("SELECT blob FROM blobs WHERE digest = ?", (digest,)).fetchone()
        if found is None:
            number = _new_number()
            connection.execute("INSERT INTO blobs (blob, digest, size) VALUES (?, ?, ?)", (number, digest, view.nbytes))
            for start in range(0, view.nbytes, PART_BYTES):
                part = view[start : start + PART_BYTES]
                connection.execute("INSERT INTO parts (blob, data) VALUES (?, ?)", (number, part))
            found = (number,)
        return int(found[0])


def _new_number() -> int:
    """A number that no buffer of the database has ever had.

    After a power cut a record may be there again that had been dropped: its number must not be that of a buffer of
    another record.
    """
    return secrets.randbits(62) + 1


def load(connection: sqlite3.Connection, files: PayloadFiles, number: int) -> Any:
    """A shared buffer; None if it is missing or damaged."""
    row = connection.execute("SELECT size, file, sum, digest FROM blobs WHERE blob = ?", (number,)).fetchone()
    if row is None:
        return None
    size, file, sum, digest = row
    if file is not None:
        return files.load(file, size, sum)
    parts = connection.execute("SELECT data FROM parts WHERE blob = ? ORDER BY part", (number,)).fetchall()
    whole = b"".join([data for (data,) in parts]) if len(parts) != 1 else bytes(parts[0][0])
    return whole if len(whole) == size and hashlib.sha256(whole).digest() == digest else None


def remove_dropped(connection: sqlite3.Connection, files: PayloadFiles, *, orphans: bool = False) -> None:
    """Remove the files that no record uses any more; with `orphans` also those that the database does not know."""
    names = {file for (file,) in connection.execute("SELECT file FROM dropped_files")}
    unknown = set()
    if orphans and (there := files.names()):
        unknown = there - {file for (file,) in connection.execute("SELECT file FROM blobs WHERE file IS NOT NULL")}
    files.remove(names | unknown)
    if names:
        connection.executemany("DELETE FROM dropped_files WHERE file = ?", [(name,) for name in names])
