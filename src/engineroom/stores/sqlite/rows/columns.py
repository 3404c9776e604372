"""The columns of the tasks table: those that keys of a record have, and those that are read of a row.

Keys come from `records/fields.py`. Columns that no key has (`kind`, `target`, `options`, …) hold what an entry needs.
"""

from __future__ import annotations

from ....records.fields import FIELDS

#: Keys that have a column of their name → the type of its values.
COLUMN_TYPES: dict[str, type] = {field.name: field.type for field in FIELDS if field.place in ("column", "generated")}

#: The columns that an outcome changes.
OUTCOME_COLUMNS = (
    *[field.name for field in FIELDS if field.outcome and field.place == "column"],
    "attempt", "peak_memory", "ename", "outcome", "result_payload", "result_frames", "outcome_sum",
)  # fmt: skip

#: In `ename` where the reply's ename or status is not what the columns say.
LOOK_INSIDE = b""

# What is read of a row: an entry's columns, its buffers, and the columns that only a record needs.

HOST = "(SELECT host FROM engines WHERE engines.engine_uuid = tasks.engine_uuid)"
FUNCTION_NAME = "(SELECT name FROM functions WHERE digest = tasks.function)"
ENVIRONMENT = "(SELECT environment FROM clients WHERE clients.client_uuid = tasks.client_uuid)"
PINNED = "(msg_id IN (SELECT msg_id FROM pins))"

_ENTRY = (
    "msg_id", "kind", "state", "submitted", "started", "completed", "received", "client_uuid", "engine_uuid",
    "engine_id", "target", "function", "cached_from", "attempt", "peak_memory", "options", "outcome", "stdout",
    "stderr", "arguments",
)  # fmt: skip
_BUFFERS = ("payload", "frames", "result_payload", "result_frames")
_RECORD = ("document", *[name for name in COLUMN_TYPES if name not in _ENTRY])

#: The names of the columns in a row, in order.
ROW = (*_ENTRY, "host", "function_name", "environment", *_BUFFERS, "pinned", *_RECORD)
#: column → its place in a row
PLACE = {name: number for number, name in enumerate(ROW)}

_BEFORE, _AFTER = ", ".join([*_ENTRY, HOST, FUNCTION_NAME, ENVIRONMENT]), ", ".join([PINNED, *_RECORD])
_REQUEST, _RESULT = "payload, frames", "result_payload, result_frames"
#: The source of a cell is part of its record.
_NO_REQUEST, _NO_RESULT = "CASE kind WHEN 'execute' THEN payload ELSE x'' END, NULL", "x'', NULL"


def selection(request: bool, result: bool) -> str:
    """The columns of a row to select, with or without the buffers of the request and of the result."""
    return f"{_BEFORE}, {_REQUEST if request else _NO_REQUEST}, {_RESULT if result else _NO_RESULT}, {_AFTER}"


#: A whole row, and its checksums: what `reading.checked` takes.
WHOLE = f"{selection(True, True)}, request_sum, outcome_sum"
