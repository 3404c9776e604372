"""What `engineroom explain` and `engineroom tasks` print of ids that hold control characters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from engineroom.cli.commands.explain import _described
from engineroom.cli.commands.rows import rows_of
from engineroom.client.records.explanation import Explanation
from engineroom.records.record import TaskRecord
from engineroom.stores.canonical import blank

ID = "a\x1b]0;x\x07"


class NoNames:
    def what(self, record: TaskRecord) -> str:
        return ""


def test_an_id_steers_no_terminal():
    explanation = Explanation(msg_id=ID, state="held", reason="engine 1 has it", details={"after": [ID]})
    assert all(line.isprintable() for line in _described(explanation))
    records: Any = NoNames()
    record = TaskRecord({**blank(), "msg_id": ID, "state": "pending", "submitted": datetime.now(UTC)})
    rows, _ = rows_of([record], records)
    assert all(cell.isprintable() for cell in rows[0])
