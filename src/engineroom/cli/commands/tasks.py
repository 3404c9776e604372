"""`engineroom tasks`: a table of task records. `engineroom show`: everything in one record."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from traitlets import Bool, Enum, Integer, Unicode

from ...controller.running_tasks import CUT
from ...errors import QueryError
from ...records.fields import TIMES
from ...records.record import TaskRecord
from ...records.states import RUNNING, STATES
from ..text import cut, duration, exact, jsonable, one_line, paint, plural, printable, table, when, width_of_terminal
from .records import Records, RecordsApp, parse_query

STYLES = {"pending": "yellow", "running": "cyan", "completed": "green", "failed": "red", "aborted": "dim"}

#: Options of a task that `show` prints.
_WISHES = (
    "retries", "targets", "after", "follow", "timeout", "inputs", "priority", "resources", "run_timeout", "scheme",
)  # fmt: skip

#: The keys that the table needs, if --keys is not given.
_TABLE_KEYS = (
    "msg_id", "state", "label", "content", "function", "engine_id", "submitted", "started", "completed",
    "result_content",
)  # fmt: skip
#: How often `show --follow` looks for news.
FOLLOW_SECONDS = 0.1
#: Characters by which text is found that was shown before.
KNOWN = 200
_HEADER = ["ID", "STATE", "TASK", "ENGINE", "SUBMITTED", "TOOK", "ERROR"]


class Tasks(RecordsApp):
    """Show tasks, newest first: of the profile's running cluster, or from its database if none is running.

    QUERY is a MongoDB-style query, as JSON or as a Python dict. Its keys are those of a task record (`engineroom show`
    shows one); its operators are $eq $ne $gt $gte $lt $lte $in $nin $and $or $not $nor $exists $regex $glob and more.
    Times may be written as "2026-01-31", "2026-01-31T14:00" (local time) or "-2h" (two hours ago; s, m, h, d, w).
    """

    description = __doc__
    usage = "engineroom tasks [QUERY] [options]"
    positional: ClassVar[tuple[int, int, str]] = (0, 1, "QUERY")
    examples = """
engineroom tasks                                           # the last 20
engineroom tasks --state=failed --limit=0                  # every failed one
engineroom tasks --label='fit-*' --sort=submitted          # by label, oldest first
engineroom tasks '{"submitted": {"$gt": "-2h"}, "engine_id": 3}'
engineroom tasks "{'result_content.ename': {'\\$in': ['ValueError', 'KeyError']}}"
engineroom tasks --keys=label,stdout,metadata.run --sort=-completed
engineroom tasks --state=failed --json | jq -r '.[].msg_id'
"""
    aliases: Any = {
        "state": "Tasks.state",
        "label": "Tasks.label",
        "limit": "Tasks.limit",
        "sort": "Tasks.sort",
        "keys": "Tasks.keys",
        **RecordsApp.session_alias,
        **RecordsApp.aliases,
    }

    state = Enum(["", *STATES], "", help=f"Only those in this state: {', '.join(STATES)}.").tag(config=True)
    label = Unicode("", help="Only those with this label; * and ? stand for anything.").tag(config=True)
    limit = Integer(20, help="How many at most; 0: all.").tag(config=True)
    sort = Unicode("-submitted", help="By which key; a - in front: descending.").tag(config=True)
    keys = Unicode("", help="Which keys of the records to show, separated by commas.").tag(config=True)

    def start(self) -> None:
        if self.limit < 0:
            raise QueryError(f"--limit is 0 (all) or more, got {self.limit}")
        query, keys = self._query(), [key for key in self.keys.replace(" ", "").split(",") if key]
        descending = self.sort.startswith("-")
        sort = [(self.sort.lstrip("-") or "submitted", -1 if descending else 1)]
        wanted: list[str] | None = list(dict.fromkeys(key.partition(".")[0] for key in keys)) or None
        if wanted is None and not self.json:
            wanted = list(_TABLE_KEYS)
        with self.records() as records:
            query = self.scoped(records, query)
            found = records.find(query, wanted, sort, self.limit or None)
            if self.json:
                print(json.dumps(found, default=jsonable, indent=1, ensure_ascii=False))
                return
            lines = _by_keys(found, keys) if keys else list(_lines(found, records))
            total = records.count(query) if self.limit and len(found) == self.limit else len(found)
            if found:
                for line in lines:
                    print(line)
            self._end(len(found), total, records)

    def _query(self) -> dict[str, Any]:
        conditions = [parse_query(self.extra_args[0])] if self.extra_args else []
        if self.state:
            conditions.append({"state": self.state})
        if self.label:
            pattern = any(character in self.label for character in "*?[")
            conditions.append({"label": {"$glob": self.label} if pattern else self.label})
        return {"$and": conditions} if len(conditions) > 1 else conditions[0] if conditions else {}

    def _end(self, shown: int, total: int, records: Records) -> None:
        """Print to stderr how many tasks match, and where they come from: a pipe does not read that."""
        if not total:
            text = f"No task matches. ({records.origin})"
        elif shown < total:
            text = f"{shown:,} of {total:,} tasks; --limit=0 shows all. ({records.origin})"
        else:
            text = f"{plural(total, 'task')}. ({records.origin})"
        print(paint(text, "dim", stream=sys.stderr), file=sys.stderr)


def _lines(found: list[TaskRecord], records: Records) -> Iterator[str]:
    rows: list[list[str]] = []
    styles: dict[tuple[int, int], str] = {}
    shorten = _shortened([record["msg_id"] for record in found])
    for record in found:
        styles[len(rows), 1] = STYLES.get(record["state"], "dim")
        engine = record["engine_id"]
        rows.append(
            [
                shorten[record["msg_id"]],
                record["state"],
                one_line(_title(record, records)),
                "" if engine is None else str(engine),
                when(record["submitted"]),
                _took(record),
                one_line(_error(record)),
            ]
        )
    header = _HEADER
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    yield from table(header, rows, right=["ENGINE", "TOOK"], styles=styles)


def _by_keys(found: list[TaskRecord], keys: list[str]) -> list[str]:
    columns = ["msg_id", *(key for key in keys if key != "msg_id")]
    return table([*columns], [[_cell(_dig(record, key), key) for key in columns] for record in found])


def _dig(record: TaskRecord, key: str) -> Any:
    value: Any = record
    for part in key.split("."):
        if isinstance(value, dict):
            value = value[part] if value is record else value.get(part)
        else:
            return None
    return value


def _cell(value: Any, key: str) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return exact(value) if key in TIMES else value.isoformat()
    if isinstance(value, str):
        return one_line(value)
    return one_line(json.dumps(value, default=jsonable, ensure_ascii=False))


def _title(record: TaskRecord, records: Records) -> str:
    """Label and function (or code)."""
    what = records.what(record)
    return f"{record['label']}: {what}" if record["label"] and what else record["label"] or what


def _error(record: TaskRecord) -> str:
    content = record["result_content"] or {}
    if not content.get("ename"):
        return ""
    return f"{content['ename']}: {content['evalue']}" if content.get("evalue") else str(content["ename"])


def _took(record: TaskRecord) -> str:
    """How long a task took; of one that runs, how long it has."""
    if record["state"] == RUNNING:
        return f"{duration(_seconds(record['started'], datetime.now(UTC)))} …"
    return duration(_seconds(record["started"], record["completed"]))


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()


def _shortened(ids: list[str]) -> dict[str, str]:
    """Ids with their session part cut to 6 digits, where that tells them apart; `show` accepts these."""
    short = {}
    for id in ids:
        session, dash, number = id.rpartition("-")
        short[id] = f"{session[:6]}-{number}" if dash and number.isdigit() else id
    sessions = {id.rpartition("-")[0] for id in ids}
    return short if len({session[:6] for session in sessions}) == len(sessions) else {id: id for id in ids}


# ------------------------------------------------------------------------------------------ one task


class Show(RecordsApp):
    """Show everything about one task: times, engine, attempts, error with traceback, output.

    Of a task that runs, it shows what the task has printed so far: the last 64 KiB, if it began before. With --follow
    it goes on until the task has ended (Ctrl-C ends the command, not the task).

    MSG_ID may be shortened to a beginning that no other task shares, or as `engineroom tasks` shows it.
    """

    description = __doc__
    usage = "engineroom show MSG_ID [options]"
    positional: ClassVar[tuple[int, int, str]] = (1, 1, "MSG_ID")
    examples = """
engineroom show 3f9ab2-17
engineroom show 3f9ab2-17 --follow                         # what it prints, until it has ended
engineroom show 3f9ab2-17 --profile=night
engineroom show 3f9ab2-17 --json | jq .result_content
"""

    flags: Any = {
        "follow": ({"Show": {"follow": True}}, "print what the task prints, until it has ended"),
        **RecordsApp.flags,
    }

    follow = Bool(False, help="Go on until the task has ended.").tag(config=True)

    def start(self) -> None:
        with self.records() as records:
            record = records.one(self.extra_args[0])
            if record["completed"] is None and records.client is not None and not self.json:
                result = records.client.get_result(record["msg_id"])
                record["stdout"], record["stderr"] = result.stdout, result.stderr
                if self.follow:
                    record = self._follow(record, result, records)
            if self.json:
                print(json.dumps(record, default=jsonable, indent=1, ensure_ascii=False))
                return
            for line in _described(record, records):
                print(line)


    def _follow(self, record: TaskRecord, result: Any, records: Records) -> TaskRecord:
        """Print what a task prints, until it has ended. Returns its record, without what was printed."""
        for line in _described({**record, "stdout": "", "stderr": ""}, records):
            print(line)
        print(flush=True)
        shown = {"stdout": "", "stderr": ""}
        has_ended = False
        while not has_ended:
            has_ended = result.wait(FOLLOW_SECONDS)
            for stream, file in (("stdout", sys.stdout), ("stderr", sys.stderr)):
                text = getattr(result, stream)
                file.write(printable(news(shown[stream], text)))
                file.flush()
                shown[stream] = text
        print(flush=True)
        return TaskRecord({**records.one(record["msg_id"]), "stdout": "", "stderr": ""})


def news(before: str, now: str) -> str:
    """What a text says now that it did not say before. Its beginning may have been dropped before, or now."""
    if now.startswith(before):
        return now[len(before) :]
    known = before.removeprefix(CUT)[-KNOWN:]
    place = now.rfind(known) if known else -1
    return now if place < 0 else now[place + len(known) :]


def _described(record: Mapping[str, Any], records: Records) -> Iterator[str]:
    state = record["state"]
    yield f"{paint('Task ' + record['msg_id'], 'bold')}  {paint(state, STYLES.get(state, 'dim'))}"
    yield ""
    for name, value in _facts(record, records):
        if value:
            yield f"  {name:12}{value}"
    error = record["result_content"] or {}
    attempts = record["attempts"] or []
    if len(attempts) > 1 or any(attempt.get("cause") not in (None, "ok") for attempt in attempts):
        yield from _section("attempts", _attempts(attempts))
    if code := (record["content"] or {}).get("code"):
        yield from _section("code", printable(code).splitlines())
    shown = record.get("pyout")
    if isinstance(shown, dict) and (text := (shown.get("data") or {}).get("text/plain")):
        yield from _section("value", printable(str(text)).splitlines())
    for stream in ("stdout", "stderr"):
        if record[stream]:
            yield from _section(stream, printable(record[stream]).splitlines())
    if error.get("ename"):
        traceback = error.get("traceback") or ""
        text = "\n".join(traceback) if isinstance(traceback, list) else str(traceback)
        last = f"{error['ename']}: {error.get('evalue', '')}"
        lines = printable(_plain(text)).rstrip().splitlines()
        if not lines or not lines[-1].startswith(error["ename"]):
            lines += printable(last).splitlines()
        yield from _section("error", lines, "red")


def _facts(record: Mapping[str, Any], records: Records) -> Iterator[tuple[str, str]]:
    yield "label", one_line(record["label"] or "")
    kind = str((record["header"] or {}).get("msg_type", "")).removesuffix("_request")
    if record["function"]:
        yield (
            "function",
            f"{record['function_name'] or records.function_name(record['function'])} ({record['function']})",
        )
    yield "cached from", record["cached_from"] or ""
    yield "kind", f"{kind}, {'direct' if record['queue'] == 'mux' else 'load-balanced'}"
    yield "client", record["client_uuid"] or ""
    if record["engine_id"] is not None or record["engine_uuid"]:
        host = next((a["host"] for a in reversed(record["attempts"] or []) if a.get("host")), None)
        number = "?" if record["engine_id"] is None else record["engine_id"]
        yield "engine", f"{number} ({record['engine_uuid']}{f' on {host}' if host else ''})"
    submitted, started, completed = record["submitted"], record["started"], record["completed"]
    yield "submitted", f"{exact(submitted)}  ({when(submitted)})"
    if started is not None:
        yield "started", f"{exact(started)}  after {duration(_seconds(submitted, started))} of waiting"
        if completed is None:
            yield "running", f"for {duration(_seconds(started, datetime.now(UTC)))}"
    if completed is not None:
        took = _seconds(started, completed)
        yield "completed", exact(completed) + (f"  after {duration(took)} of running" if took is not None else "")
    if record["received"] is not None and completed is not None:
        yield "received", f"{exact(record['received'])}  {duration(_seconds(completed, record['received']))} later"
    header = record["header"] or {}
    for option in _WISHES:
        if header.get(option):
            yield option, one_line(_wish(header[option]))
    if record["metadata"]:
        yield "metadata", one_line(json.dumps(record["metadata"], default=jsonable, ensure_ascii=False))
    yield "resubmitted", f"as {record['resubmitted']}" if record["resubmitted"] else ""


def _wish(value: Any) -> Any:
    """An option in words: of a dependency (tasks, all, success, failure) its tasks, and what is unusual about it."""
    if not isinstance(value, list) or not value or not isinstance(value[0], list):
        return ", ".join(map(str, value)) if isinstance(value, list) else value
    tasks, together, success, failure = value
    words = "" if together else "any of "
    ends = "" if success and not failure else " (however they end)" if success else " (if they fail)"
    return f"{words}{', '.join(tasks)}{ends}"


def _attempts(attempts: list[dict[str, Any]]) -> list[str]:
    rows = [
        [
            str(attempt.get("number", "")),
            "" if attempt.get("engine_id") is None else str(attempt["engine_id"]),
            attempt.get("host") or "",
            exact(attempt.get("started")),
            duration(_seconds(attempt.get("started"), attempt.get("ended"))),
            f"{peak / 2**20:,.0f} MB" if (peak := attempt.get("peak_memory")) else "",
            one_line(attempt.get("cause") or ""),
        ]
        for attempt in attempts
    ]
    return table(["#", "ENGINE", "HOST", "STARTED", "TOOK", "PEAK", "OUTCOME"], rows, width=width_of_terminal() - 4)


def _section(title: str, lines: list[str], *styles: str) -> Iterator[str]:
    yield ""
    yield f"  {paint(title, 'bold', *styles)}"
    width = width_of_terminal()
    for line in lines:
        yield textwrap.indent(cut(line, width - 4) if title == "attempts" else line, "    ")


def _plain(text: str) -> str:
    """Without ANSI codes: IPython's tracebacks are coloured."""
    import re

    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
