"""Tasks as rows of a table: what `tasks` and `watch` show of a record."""

from __future__ import annotations

from datetime import UTC, datetime

from ...ids import client_of
from ...printable import one_line
from ...reading.records import Records
from ...records.record import TaskRecord
from ...records.states import RUNNING
from ..text import duration, when

STYLES = {"pending": "yellow", "running": "cyan", "completed": "green", "failed": "red", "aborted": "dim"}

#: The keys that a row needs.
ROW_KEYS = (
    "msg_id", "state", "label", "content", "function", "engine_id", "submitted", "started", "completed",
    "result_content",
)  # fmt: skip


def rows_of(found: list[TaskRecord], records: Records) -> tuple[list[list[str]], dict[tuple[int, int], str]]:
    """The cells of each record, and styles of cells by (row, column)."""
    rows: list[list[str]] = []
    styles: dict[tuple[int, int], str] = {}
    shorten = shortened([record["msg_id"] for record in found])
    for record in found:
        styles[len(rows), 1] = STYLES.get(record["state"], "dim")
        engine = record["engine_id"]
        rows.append(
            [
                one_line(shorten[record["msg_id"]]),
                record["state"],
                one_line(title(record, records)),
                "" if engine is None else str(engine),
                when(record["submitted"]),
                took(record),
                one_line(error_of(record)),
            ]
        )
    return rows, styles


def title(record: TaskRecord, records: Records) -> str:
    """Label and function (or code)."""
    what = records.what(record)
    return f"{record['label']}: {what}" if record["label"] and what else record["label"] or what


def error_of(record: TaskRecord) -> str:
    """The name and the text of its error; "": it has none."""
    content = record["result_content"] or {}
    if not content.get("ename"):
        return ""
    return f"{content['ename']}: {content['evalue']}" if content.get("evalue") else str(content["ename"])


def took(record: TaskRecord) -> str:
    """How long a task took; of one that runs, how long it has."""
    if record["state"] == RUNNING:
        return f"{duration(seconds_between(record['started'], datetime.now(UTC)))} …"
    return duration(seconds_between(record["started"], record["completed"]))


def seconds_between(start: datetime | None, end: datetime | None) -> float | None:
    """Seconds between two times, if both are known."""
    return None if start is None or end is None else (end - start).total_seconds()


def shortened(ids: list[str]) -> dict[str, str]:
    """Ids with their session part cut to 6 digits, where that tells them apart; `show` accepts these."""
    short = {}
    for id in ids:
        session, dash, number = id.rpartition("-")
        short[id] = f"{session[:6]}-{number}" if dash and number.isdigit() else id
    sessions = {client_of(id) for id in ids}
    return short if len({session[:6] for session in sessions}) == len(sessions) else {id: id for id in ids}
