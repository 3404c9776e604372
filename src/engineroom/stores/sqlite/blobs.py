"""Large buffers in the SQLite file: each content is stored once, however many tasks refer to it.

A buffer that several tasks of one message share is the same object in all of them, so its SHA-256 is computed once.
The digest finds a buffer that is stored already. Triggers delete a buffer together with the last task that uses it
(`sql/004_trust.sql`).
"""

from __future__ import annotations

import hashlib
import sqlite3
import weakref
from collections.abc import Sequence
from typing import Any

import msgspec

from ...ids import TaskId
from ...records.entry import Entry
from ..packing import Shared

#: A buffer of at least so many bytes is stored outside the rows. For a smaller one that costs more than it saves.
SHARED_FROM = 64 << 10
#: Bytes of a part. SQLite holds a whole value in memory, and refuses values above 1 GB.
PART_BYTES = 16 << 20

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
    return any(
        memoryview(frame).nbytes >= SHARED_FROM
        for entry in entries
        if entry.frames or entry.result_frames
        for frame in (*entry.frames, *entry.result_frames)
    )


class Sharing:
    """Stores the large buffers of one transaction at a time. The caller calls `done` after it has committed."""

    def __init__(self) -> None:
        #: Python's id of a buffer → (a reference to it, its number)
        self._known: dict[int, tuple[weakref.ref[memoryview], int]] = {}
        self._new: dict[int, tuple[Any, int]] = {}

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
        self._known.clear()  # the number of a deleted buffer may be used again
        self._new = {}
        return self._shared(connection, msg_id, buffers, result)

    def done(self) -> None:
        """The transaction was committed."""
        for key, (buffer, number) in self._new.items():
            if isinstance(buffer, memoryview):
                self._known[key] = weakref.ref(buffer), number
        self._new = {}
        if len(self._known) > 10_000:
            self._known = {key: known for key, known in self._known.items() if known[0]() is not None}

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
        if id(frame) in self._new:
            return self._new[id(frame)][1]
        known = self._known.get(id(frame))
        if known is not None and known[0]() is frame:
            return known[1]
        view = memoryview(frame)
        view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
        digest = hashlib.sha256(view).digest()
        found = connection.execute("SELECT blob FROM blobs WHERE digest = ?", (digest,)).fetchone()
        if found is None:
            number = connection.execute(
                "INSERT INTO blobs (digest, size) VALUES (?, ?)", (digest, view.nbytes)
            ).lastrowid
            for start in range(0, view.nbytes, PART_BYTES):
                part = view[start : start + PART_BYTES]
                connection.execute("INSERT INTO parts (blob, data) VALUES (?, ?)", (number, part))
            found = (number,)
        self._new[id(frame)] = frame, int(found[0])
        return int(found[0])


def load(connection: sqlite3.Connection, number: int) -> bytes | None:
    """A shared buffer; None if it is missing or damaged."""
    row = connection.execute("SELECT size FROM blobs WHERE blob = ?", (number,)).fetchone()
    parts = connection.execute("SELECT data FROM parts WHERE blob = ? ORDER BY part", (number,)).fetchall()
    whole = b"".join([data for (data,) in parts]) if len(parts) != 1 else bytes(parts[0][0])
    return whole if row is not None and len(whole) == row[0] else None
