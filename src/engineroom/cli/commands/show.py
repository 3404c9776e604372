"""`engineroom show`: everything in the record of one task, and what a running task prints."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from traitlets import Bool

from ...controller.requests.running_tasks import CUT
from ...printable import one_line, printable
from ...reading.records import Records
from ...records.record import TaskRecord
from ..text import as_json, cut, duration, exact, paint, table, when, width_of_terminal
from .records import RecordsApp
from .rows import STYLES, seconds_between

#: Options of a task that `show` prints.
_WISHES = (
    "retries", "targets", "after", "follow", "timeout", "inputs", "priority", "resources", "run_timeout", "scheme",
    "at_most_once",
)  # fmt: skip

#: How often `show --follow` looks for news.
FOLLOW_SECONDS = 0.1
#: Characters by which text is found that was shown before.
KNOWN = 200


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

    aliases: Any = {**RecordsApp.database_alias, **RecordsApp.aliases}
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
                print(as_json(record))
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
        yield "started", f"{exact(started)}  after {duration(seconds_between(submitted, started))} of waiting"
        if completed is None:
            yield "running", f"for {duration(seconds_between(started, datetime.now(UTC)))}"
    if completed is not None:
        took = seconds_between(started, completed)
        yield "completed", exact(completed) + (f"  after {duration(took)} of running" if took is not None else "")
    if record["received"] is not None and completed is not None:
        later = duration(seconds_between(completed, record["received"]))
        yield "received", f"{exact(record['received'])}  {later} later"
    header = record["header"] or {}
    for option in _WISHES:
        if header.get(option):
            yield option, one_line(_wish(header[option]))
    if record["metadata"]:
        yield "metadata", one_line(as_json(record["metadata"], line=True))
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
            duration(seconds_between(attempt.get("started"), attempt.get("ended"))),
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
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
