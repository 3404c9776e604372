"""The task record as users see it: a dict with every key of `fields.py`, times as datetimes in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .. import markup
from .entry import Entry
from .fields import ALIASES, FIELDS, KEYS
from .states import ABORTED, COMPLETED, FAILED

#: key → its other spelling, for those that have two
OTHER_SPELLING = ALIASES | {name: alias for alias, name in ALIASES.items()}


class TaskRecord(dict[str, Any]):
    """A record as returned to users: a dict that also knows the other spelling of a key."""

    def __missing__(self, key: str) -> Any:
        if key in OTHER_SPELLING and super().__contains__(OTHER_SPELLING[key]):
            return self[OTHER_SPELLING[key]]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (key in OTHER_SPELLING and super().__contains__(OTHER_SPELLING[str(key)]))

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, by either spelling."""
        return super().get(key if super().__contains__(key) else OTHER_SPELLING.get(key, key), default)


    def _repr_html_(self) -> str:
        head = markup.block(markup.bold("Task"), " ", markup.code(self.get("msg_id", "")), " ", _state_of(self))
        rows = [(name, value) for name, value in self.items() if name not in ("msg_id", "state") and _says(value)]
        return markup.block(head, markup.facts((name, _short(value)) for name, value in rows))


class TaskRecords(list[TaskRecord]):
    """The records that a query has found: a list. In a notebook it is a table."""

    def _repr_html_(self) -> str:
        if not self:
            return markup.block("no records")
        kinds = dict.fromkeys(key for record in self[:SHOWN] for key in record)
        known = [key for key in IN_TABLE if key in kinds]
        columns = known if len(kinds) > MOST_COLUMNS else list(kinds)
        rows = [[_short(record.get(key)) for key in columns] for record in self[:SHOWN]]
        parts = [markup.table(columns, rows)]
        if len(self) > SHOWN:
            parts.append(markup.block(markup.quiet(f"… {len(self) - SHOWN:,} more of {len(self):,} records")))
        if len(columns) < len(kinds):
            left = ", ".join(key for key in kinds if key not in columns)
            parts.append(markup.details(markup.quiet("keys that are not in the table"), markup.code(left)))
        return markup.block(*parts)


#: What a notebook shows of many records: so many lines, and these columns if there are more than MOST_COLUMNS.
SHOWN, MOST_COLUMNS = 50, 12
IN_TABLE = ("msg_id", "state", "label", "function_name", "arguments", "engine_id", "submitted", "duration")


def _state_of(record: Mapping[str, Any]) -> str:
    return str(record.get("state") or "")


def _says(value: Any) -> bool:
    """Whether a value is worth a line."""
    return value is not None and value != "" and value != {} and value != []


def _short(value: Any) -> str:
    """A value of a record in a table."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value.astimezone():%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else repr(value)


_VALUES = [field.value for field in FIELDS]


def document(entry: Entry) -> TaskRecord:
    """The record of a task, every key present."""
    return TaskRecord(zip(KEYS, [value(entry) for value in _VALUES], strict=True))


def explain_ended(record: Mapping[str, Any]) -> dict[str, Any]:
    """How, when and where a recorded task ended: `msg_id`, `state` "ended", `reason` in words, `details`."""
    words = {COMPLETED: "it ended well", FAILED: "it failed", ABORTED: "it was aborted"}
    attempts, error = record["attempts"] or [], record["result_content"] or {}
    host = next((attempt["host"] for attempt in reversed(attempts) if attempt.get("host")), None)
    reason = words.get(record["state"], record["state"])
    if record["engine_id"] is not None:
        reason += f" on engine {record['engine_id']}" + (f" ({host})" if host else "")
    if record["completed"] is not None:
        reason += f" at {record['completed'].astimezone():%Y-%m-%d %H:%M:%S}"
        if record["started"] is not None:
            reason += f", after {(record['completed'] - record['started']).total_seconds():.3g} s of running"
    if len(attempts) > 1:
        reason += f", at attempt {len(attempts)}"
    if record["cached_from"]:
        reason += f", with the result of {record['cached_from']}, an equal call"
    if error.get("ename"):
        reason += f": {error['ename']}: {error.get('evalue', '')}"
    details = {key: record[key] for key in ("submitted", "started", "completed", "engine_id", "attempts")}
    details["outcome"] = record["state"]
    return {"msg_id": record["msg_id"], "state": "ended", "reason": reason, "details": details}
