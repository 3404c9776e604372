"""Changes to single rows of the SQLite file: records that are added, changed, pinned, or lighter by their buffers.

Each works within the transaction of its caller, and keeps the checksums true.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from ...ids import TaskId
from .blobs import Sharing
from .packing import SUMMED_OUTCOME, SUMMED_REQUEST, outcome_sum, pack, request_sum
from .rows import DOCUMENT, columns_of, merged, selection, to_freeze

_BUFFERS = (("buffers", "frames", False), ("result_buffers", "result_frames", True))


def add(connection: sqlite3.Connection, sharing: Sharing, msg_id: TaskId, record: Mapping[str, Any]) -> bool:
    """Add a row made of a canonical record; False if the id is taken."""
    columns, inside = columns_of({**record, "msg_id": msg_id})
    columns["document"] = merged(None, inside)
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
    columns, inside = columns_of(changes)
    row = connection.execute(f"SELECT {selection(False, False)} FROM tasks WHERE msg_id = ?", (msg_id,)).fetchone()
    if row is None:
        return False
    inside = {**to_freeze(columns, row), **inside}
    if inside:
        columns["document"] = merged(row[DOCUMENT], inside)
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
    """Pin records or let them loose; returns how many that changes."""
    sql = (
        "INSERT OR IGNORE INTO pins SELECT msg_id FROM tasks WHERE msg_id = ?"
        if pinned
        else "DELETE FROM pins WHERE msg_id = ?"
    )
    return sum(connection.execute(sql, (id,)).rowcount for id in ids)


def drop_buffers(connection: sqlite3.Connection, ids: Sequence[TaskId]) -> int:
    """Let go of the buffers of finished records; the source of a cell stays. Returns how many had some."""
    marks = ", ".join("?" * len(ids))
    rows = connection.execute(
        f"SELECT msg_id FROM tasks WHERE msg_id IN ({marks}) AND completed IS NOT NULL"
        " AND (coalesce(frames, result_payload, result_frames) IS NOT NULL"
        " OR (payload IS NOT NULL AND kind IS NOT 'execute'))",
        list(ids),
    )
    found = [id for (id,) in rows.fetchall()]
    marks = ", ".join("?" * len(found))
    connection.execute(
        "UPDATE tasks SET frames = NULL, result_payload = NULL, result_frames = NULL,"
        f" payload = CASE kind WHEN 'execute' THEN payload END WHERE msg_id IN ({marks})",
        found,
    )
    connection.execute(f"DELETE FROM uses WHERE msg_id IN ({marks})", found)
    _sum_up(connection, found)
    return len(found)


def _sum_up(connection: sqlite3.Connection, ids: Sequence[TaskId]) -> None:
    """The checksums of rows, from what they hold now."""
    columns = ", ".join(["msg_id", *SUMMED_REQUEST, *SUMMED_OUTCOME])
    marks, split = ", ".join("?" * len(ids)), 1 + len(SUMMED_REQUEST)
    rows = connection.execute(f"SELECT {columns} FROM tasks WHERE msg_id IN ({marks})", list(ids)).fetchall()
    connection.executemany(
        "UPDATE tasks SET request_sum = ?, outcome_sum = ? WHERE msg_id = ?",
        [(request_sum(*row[1:split]), outcome_sum(*row[split:]), row[0]) for row in rows],
    )
