"""Changes to single rows: records that users add, change or pin, and records that lose their buffers.

Each function works within the transaction of its caller, and brings the checksums up to date.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ....ids import TaskId
from ....records.entry import is_hex
from ....records.fields import FIELDS, TIMES
from ...packing import decode, encode, pack
from ...query.values import in_utc
from ..blobs import Sharing
from .checksums import SUMMED_OUTCOME, SUMMED_REQUEST, outcome_sum, request_sum
from .columns import COLUMN_TYPES, PLACE, selection
from .reading import record_of

_BUFFERS = (("buffers", "frames", False), ("result_buffers", "result_frames", True))


# ---------------------------------------------------------------------------------------------- records as columns


def _columns_of(changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A canonical record as (columns, keys without a column); `pinned` is in neither."""
    columns: dict[str, Any] = {}
    inside: dict[str, Any] = {}
    for key, value in changes.items():
        if key in TIMES:
            columns[key] = None if value is None else in_utc(value).timestamp()
        elif key == "function":
            columns[key] = bytes.fromhex(value) if value and is_hex(value) else value
        elif key in COLUMN_TYPES:
            columns[key] = value
        elif key == "pinned":
            continue
        elif key == "buffers":
            columns |= {"payload": None, "frames": None if value is None else pack(value)}
        elif key == "result_buffers":
            columns |= {"result_payload": None, "result_frames": None if value is None else pack(value)}
        else:
            inside[key] = value
    return columns, inside


#: Columns from which other keys of a task's record are derived.
_SOURCES = frozenset({"state", "started", "completed", "client_uuid", "engine_uuid", "engine_id", "payload",
                      "function"})  # fmt: skip
_DERIVED = [field.name for field in FIELDS if field.place == "derived"]
_DERIVED_WHEN_PENDING = [field.name for field in FIELDS if field.place == "derived" and not field.outcome]


def _to_freeze(columns: Iterable[str], row: Sequence[Any]) -> dict[str, Any]:
    """Values of derived keys to be stored before a user changes these columns: the change must not alter them."""
    kind, attempt = row[PLACE["kind"]], row[PLACE["attempt"]]
    if kind is None or not _SOURCES & set(columns):
        return {}
    record = record_of(row)
    return {key: record[key] for key in (_DERIVED_WHEN_PENDING if attempt is None else _DERIVED)}


def _merged(inside: bytes | None, changes: Mapping[str, Any]) -> bytes:
    """The column `document` with some keys changed."""
    return encode({**(decode(inside) if inside else {}), **changes})


# ---------------------------------------------------------------------------------------------- changes


def add(connection: sqlite3.Connection, sharing: Sharing, msg_id: TaskId, record: Mapping[str, Any]) -> bool:
    """Add a row made of a canonical record; False if the id is taken."""
    columns, inside = _columns_of({**record, "msg_id": msg_id})
    columns["document"] = _merged(None, inside)
    done = connection.execute(
        f"INSERT INTO tasks ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        " ON CONFLICT (msg_id) DO NOTHING",
        list(columns.values()),
    )
    if not done.rowcount:
        return False
    _finish(connection, sharing, msg_id, record)
    return True


def change(connection: sqlite3.Connection, sharing: Sharing, msg_id: TaskId, changes: Mapping[str, Any]) -> bool:
    """Change some keys of a record, given in canonical form; False if there is none."""
    columns, inside = _columns_of(changes)
    row = connection.execute(f"SELECT {selection(False, False)} FROM tasks WHERE msg_id = ?", (msg_id,)).fetchone()
    if row is None:
        return False
    inside = {**_to_freeze(columns, row), **inside}
    if inside:
        columns["document"] = _merged(row[PLACE["document"]], inside)
    if columns:
        names = ", ".join(f"{name} = ?" for name in columns)
        connection.execute(f"UPDATE tasks SET {names} WHERE msg_id = ?", [*columns.values(), msg_id])
    _finish(connection, sharing, msg_id, changes)
    return True


def _finish(connection: sqlite3.Connection, sharing: Sharing, msg_id: TaskId, changes: Mapping[str, Any]) -> None:
    if "pinned" in changes:
        pin(connection, [msg_id], changes["pinned"])
    for key, column, result in _BUFFERS:
        if key in changes:
            shared = sharing.share_buffers(connection, msg_id, changes[key] or (), result)
            if changes[key] is not None and shared is not changes[key]:
                connection.execute(f"UPDATE tasks SET {column} = ? WHERE msg_id = ?", (pack(shared), msg_id))
    _sum_up(connection, [msg_id])


def pin(connection: sqlite3.Connection, ids: Sequence[TaskId], pinned: bool) -> int:
    """Pin or unpin records; returns how many changed."""
    sql = (
        "INSERT OR IGNORE INTO pins SELECT msg_id FROM tasks WHERE msg_id = ?"
        if pinned
        else "DELETE FROM pins WHERE msg_id = ?"
    )
    return sum(connection.execute(sql, (id,)).rowcount for id in ids)


def drop_buffers(connection: sqlite3.Connection, ids: Sequence[TaskId]) -> int:
    """Drop the buffers of finished records; a cell keeps its source. Returns how many records had buffers."""
    # One record a statement: of a list of ids, `sqlite3` would keep a statement ready for each of its lengths.
    has_buffers = (
        "SELECT msg_id FROM tasks WHERE msg_id = ? AND completed IS NOT NULL"
        " AND (coalesce(frames, result_payload, result_frames) IS NOT NULL"
        " OR (payload IS NOT NULL AND kind IS NOT 'execute'))"
    )
    found = [row for id in ids for row in connection.execute(has_buffers, (id,))]
    connection.executemany(
        "UPDATE tasks SET frames = NULL, result_payload = NULL, result_frames = NULL,"
        " payload = CASE kind WHEN 'execute' THEN payload END WHERE msg_id = ?",
        found,
    )
    connection.executemany("DELETE FROM uses WHERE msg_id = ?", found)
    _sum_up(connection, [id for (id,) in found])
    return len(found)


def _sum_up(connection: sqlite3.Connection, ids: Sequence[TaskId]) -> None:
    """Compute the checksums of rows from their present columns."""
    columns, split = ", ".join(["msg_id", *SUMMED_REQUEST, *SUMMED_OUTCOME]), 1 + len(SUMMED_REQUEST)
    rows = (row for id in ids for row in connection.execute(f"SELECT {columns} FROM tasks WHERE msg_id = ?", (id,)))
    connection.executemany(
        "UPDATE tasks SET request_sum = ?, outcome_sum = ? WHERE msg_id = ?",
        [(request_sum(*row[1:split]), outcome_sum(*row[split:]), row[0]) for row in rows],
    )
