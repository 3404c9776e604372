"""What the pages of tasks show: queries, groups, one task with its output; and the actions on tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from ..client.records.actions import checked, select, taken
from ..client.records.scope import in_session
from ..client.records.selection import Selection
from ..errors import ConfigError, EngineroomError, QueryError, UnknownTask
from ..ids import TaskId
from ..reading.query_text import parse_query
from ..reading.records import Records
from ..records.fields import FIELDS
from ..records.record import TaskRecord
from .overview import first_and_last
from .source import Source

#: Keys of a record that the table needs.
ROW_KEYS = (
    "msg_id", "state", "label", "content", "function", "function_name", "engine_id", "submitted", "started",
    "completed", "duration", "result_content", "arguments",
)  # fmt: skip

#: Records on a page, at most.
PAGE = 200
#: Groups that are shown, at most.
GROUPS = 200
#: Characters of a text in a table.
SHORT = 300
#: Characters of an output that the page shows: the end of it.
OUTPUT = 200_000

#: Tasks that depend on one, of which the page names so many.
CHILDREN = 50

ACTIONS = ("resubmit", "abort", "cancel", "purge")

#: What a page may group by → the key of a record, and the values of which it shows statistics.
GROUP_BY = {
    "label": "label",
    "function": "function",
    "error": "result_content.ename",
    "state": "state",
    "engine": "engine_id",
    "session": "client_uuid",
}


class SeenOther(ConfigError):
    """An action would take more tasks than the page has shown."""

    code = "seen-other"


def query_of(records: Records, text: str, session: str = "") -> Any:
    """The query that a user has typed; an empty text means all records.

    Raises
    ------
    QueryError
        It is no query. The message says where, and what one looks like.
    """
    query = parse_query(text) if text.strip() else {}
    return in_session(records, query, session or None)


def keys() -> list[dict[str, str]]:
    """The keys of a record and what they mean: for the completion of queries."""
    return [{"name": field.name, "meaning": field.meaning, "type": field.type.__name__} for field in FIELDS]


def find(records: Records, text: str, session: str, sort: str, skip: int, limit: int) -> dict[str, Any]:
    """One page of the records that match."""
    query = query_of(records, text, session)
    order = [(sort.lstrip("-") or "submitted", -1 if sort.startswith("-") else 1)]
    found = records.find(query, list(ROW_KEYS), order, min(limit, PAGE), skip)
    return {"rows": [_row(record) for record in found]}


def count(records: Records, text: str, session: str) -> dict[str, Any]:
    """How many records match."""
    return {"count": records.count(query_of(records, text, session))}


def groups(records: Records, text: str, session: str, by: str) -> dict[str, Any]:
    """The records that match in groups, the largest first, each with a query that selects it."""
    if by not in GROUP_BY:
        raise QueryError(f"groups are by {', '.join(GROUP_BY)}; got {by!r}")
    key, query = GROUP_BY[by], query_of(records, text, session)
    if by == "error":
        query = {"$and": [query, {"state": "failed"}]} if query else {"state": "failed"}
    found = sorted(records.group(key, query, values="duration", percentiles=(50, 95)), key=lambda g: -g["count"])
    rows = []
    for group in found[:GROUPS]:
        own: dict[str, Any] = {key: group["key"]}
        whole = {"$and": [query, own]} if query else own
        shown = group["key"]
        if by == "function" and isinstance(shown, str):
            named = records.find(own, ["function_name"], None, 1)
            shown = named[0]["function_name"] if named and named[0]["function_name"] else records.function_name(shown)
        row = {"name": shown, "count": group["count"], "query": whole,
               **{name: group.get(name) for name in ("mean", "p50", "p95", "max")}}  # fmt: skip
        if by == "error":
            row |= _error_times(records, whole)
        rows.append(row)
    return {"by": by, "rows": rows, "more": max(0, len(found) - GROUPS)}


def _error_times(records: Records, query: Mapping[str, Any]) -> dict[str, Any]:
    """When an error was first and last seen, and the last task that had it."""
    ends = first_and_last(records, query, "completed", "result_content")
    if ends is None:
        return {}
    first, last = ends
    return {
        "first_seen": first["completed"],
        "last_seen": last["completed"],
        "example": last["msg_id"],
        "evalue": str((last["result_content"] or {}).get("evalue") or "")[:SHORT],
    }


def _row(record: TaskRecord) -> dict[str, Any]:
    content, error = record["content"] or {}, record["result_content"] or {}
    code = content.get("code")
    return {
        "msg_id": record["msg_id"],
        "state": record["state"],
        "label": record["label"],
        "what": str(code).strip().partition("\n")[0][:SHORT] if code is not None else record["function_name"] or "",
        "arguments": (record["arguments"] or "")[:SHORT],
        "engine": record["engine_id"],
        "submitted": record["submitted"],
        "started": record["started"],
        "completed": record["completed"],
        "duration": record["duration"],
        "error": f"{error['ename']}: {error.get('evalue') or ''}"[:SHORT] if error.get("ename") else None,
    }


# ---------------------------------------------------------------------------------------------- one task


def one(source: Source, id: str) -> dict[str, Any]:
    """All that is known of a task."""
    records = source.records()
    record = dict(records.one(id))
    id = record["msg_id"]
    header = record["header"] or {}
    for stream in ("stdout", "stderr"):
        record[stream] = _end(record[stream] or "")
    found: dict[str, Any] = {
        "record": record,
        "parents": sorted({id for word in ("after", "follow", "inputs") for id in named_tasks(header.get(word))}),
        "explanation": None,
        "provenance": None,
        "code": replay_code(record),
    }
    try:
        found["provenance"] = records.provenance(TaskId(id))
    except (EngineroomError, KeyError, ValueError) as error:
        found["provenance"] = {"problem": str(error)}
    if records.client is not None and record["completed"] is None:
        found["explanation"] = str(records.client.explain(id).reason)
    return found


def children(records: Records, id: str) -> list[dict[str, Any]]:
    """Some of the tasks that depend on a task. No index knows them: in a large database it takes a while."""
    asked = [{f"header.{word}.0": {"$elemMatch": {"$eq": id}}} for word in ("after", "follow")]
    own = records.find({"msg_id": id}, ["client_uuid", "submitted"], None, 1)
    if not own:
        raise UnknownTask(f"no such task: {id}")
    # Tasks name tasks of their own client. Those that another client has resubmitted are not looked for.
    later = {"client_uuid": own[0]["client_uuid"], "submitted": {"$gte": own[0]["submitted"]}}
    found = records.find({**later, "$or": [*asked, {"header.inputs": id}]}, ["state", "label"], None, CHILDREN)
    return [{"msg_id": record["msg_id"], "state": record["state"], "label": record["label"]} for record in found]


def named_tasks(dependency: Any) -> list[str]:
    """The tasks that an option of a task names: a list of them, or (tasks, …) of a dependency."""
    if not isinstance(dependency, list | tuple):  # tuples, in a record from a file
        return []
    if dependency and isinstance(dependency[0], list | tuple):
        dependency = dependency[0]
    return [id for id in dependency if isinstance(id, str)]


def _end(text: str) -> str:
    return text if len(text) <= OUTPUT else "… (the beginning is left out)\n" + text[-OUTPUT:]


def replay_code(record: Mapping[str, Any]) -> str:
    """Python code that runs a recorded call again, in the user's own process."""
    return f"import engineroom as er\n\nrc = er.Client()\nrc.replay({record['msg_id']!r})\n"


class Outputs:
    """What running tasks have printed so far. The controller tells it to those who ask for a task's result."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._results: dict[str, tuple[int, Any]] = {}

    def of(self, id: str) -> dict[str, Any]:
        """stdout and stderr of a task until now, and whether it has ended."""
        records = self._source.records()
        known = self._results.get(id)
        if records.client is not None and (known is None or known[0] != self._source.opened):
            found = records.find({"msg_id": id}, ["completed", "stdout", "stderr"], None, 1)
            if found and found[0]["completed"] is None:
                while len(self._results) >= 20:
                    self._results.pop(next(iter(self._results)))
                known = self._results[id] = (self._source.opened, records.client.get_result(id, owner=False))
        if known is None or records.client is None or known[1].ready():
            self._results.pop(id, None)
            [record] = records.find({"msg_id": id}, ["completed", "stdout", "stderr"], None, 1) or _unknown(id)
            return {"stdout": _end(record["stdout"] or ""), "stderr": _end(record["stderr"] or ""),
                    "ended": record["completed"] is not None or records.client is None}  # fmt: skip
        return {"stdout": _end(known[1].stdout), "stderr": _end(known[1].stderr), "ended": False}


def _unknown(id: str) -> NoReturn:
    raise UnknownTask(f"no such task: {id}")


# ---------------------------------------------------------------------------------------------- actions


def act(source: Source, action: str, text: str, session: str, dry_run: bool, seen: int | None) -> dict[str, Any]:
    """Do something to all tasks that match a query, or say what would be done.

    Parameters
    ----------
    action : str
        One of `ACTIONS`.
    seen : int, optional
        How many tasks the dry run has shown. Needed unless this is one.

    Raises
    ------
    SeenOther
        The query takes more tasks now.
    ConfigError
        No cluster runs, and the action needs one.
    """
    if action not in ACTIONS:
        raise ConfigError(f"the actions are {', '.join(ACTIONS)}; got {action!r}")
    records = source.records()
    if not re.search(r"\S", text):
        raise QueryError(f'an empty query would {action} every task: type {{"msg_id": {{"$exists": true}}}} to mean it')
    query = query_of(records, text, session)
    chosen = select(records, query, action, dry_run=dry_run)
    if dry_run:
        return _told(chosen)
    if seen is None or chosen.count > seen:
        raise SeenOther(f"{chosen.count:,} tasks match now, more than the {seen or 0:,} that were shown: look again")
    if action == "purge":
        if records.client is not None:
            dropped = records.client.purge_hub_results(query=query)
        else:
            dropped = source.place.purge(taken(checked(query, action), action))
        return _told(msgspec.structs.replace(chosen, count=dropped))
    client = source.client()
    if action == "resubmit":
        return _told(client.resubmit(query=query).selection)
    return _told((client.cancel if action == "cancel" else client.abort)(query=query, block=True))


def _told(selection: Selection | None) -> dict[str, Any]:
    assert selection is not None
    return {**msgspec.to_builtins(selection), "text": str(selection)}
