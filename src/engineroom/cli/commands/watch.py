"""`engineroom watch`: tasks that match a query, as they change."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from traitlets import Float, Integer, Unicode

from ...errors import ControllerLost
from ...ids import client_of
from ...printable import one_line
from ...reading.changes import Changes, changed
from ...reading.records import Records
from ...records.projection import projected
from ...records.record import TaskRecord
from ..base import UsageError
from ..live import pause
from ..text import Table, as_json, paint
from .records import MatchingApp, moment_of
from .rows import ROW_KEYS, STYLES, error_of, title, took

_HEADER = ["TIME", "STATE", "ID", "TASK", "ENGINE", "TOOK", "ERROR"]
#: Widths that columns have from the beginning: so they seldom grow later.
_LEAST = [8, 9, 10, 24, 6, 8, 5]
#: The keys of a line of JSON, if --keys is not given.
_JSON_KEYS = (
    "msg_id", "state", "label", "function_name", "engine_id", "submitted", "started", "completed", "result_content",
)  # fmt: skip
#: Digits of a session that are shown of a msg_id.
_DIGITS = 6


class Watch(MatchingApp):
    """Print tasks as they change: when they are submitted, begin, and end. Ctrl-C ends the command, not the tasks.

    First come the tasks that run now, or with --since all that have changed since then. It works on a running cluster,
    and on a database file (--db-url), also while a cluster writes it. A task that changes several times within one
    interval is printed once, in its last state.

    QUERY is a query as for `engineroom tasks`. It may name a state: then a task is printed when it comes into it.
    """

    description = __doc__
    usage = "engineroom watch [QUERY] [options]"
    examples = """
engineroom watch
engineroom watch --state=failed
engineroom watch '{"label": "fit", "engine_id": {"$in": [0, 1]}}'
engineroom watch --since=-1h --label='fit-*'               # what happened in the last hour, too
engineroom watch --state=failed --json | jq -r .msg_id
engineroom watch --state=failed --limit=1 && notify-send 'a task has failed'
"""
    aliases: Any = {
        **MatchingApp.matching_aliases,
        "since": "Watch.since",
        "limit": "Watch.limit",
        "keys": "Watch.keys",
        "interval": "Watch.interval",
        **MatchingApp.session_alias,
        **MatchingApp.database_alias,
        **MatchingApp.aliases,
    }

    since = Unicode("", help="Begin with what has changed since then: 2026-01-31, 2026-01-31T14:00 or -2h.").tag(
        config=True
    )
    limit = Integer(0, help="End after so many lines; 0: never.").tag(config=True)
    keys = Unicode("", help="With --json: which keys of the records, separated by commas.").tag(config=True)
    interval = Float(0.5, help="Seconds between two looks.").tag(config=True)

    def start(self) -> None:
        if not self.interval > 0:
            raise UsageError(f"--interval is more than 0 seconds, got {self.interval:g}")
        if self.limit < 0:
            raise UsageError(f"--limit is 0 (never) or more, got {self.limit}")
        if self.keys and not self.json:
            raise UsageError("--keys goes with --json: the table has columns of its own")
        query = self.query()
        since = moment_of("--since", self.since) if self.since else datetime.now(UTC)
        named = [key for key in self.keys.replace(" ", "").split(",") if key] or list(_JSON_KEYS)
        keys = list(dict.fromkeys(key.partition(".")[0] for key in named)) if self.json else list(ROW_KEYS)
        with self.records() as records:
            changes = Changes(records, self.scoped(records, query), keys, since)
            printer = Lines(named) if self.json else Rows(records)
            left = self.limit or None
            while True:
                began = time.monotonic()
                try:
                    for part in changes.look(datetime.now(UTC)):
                        printer.print(part if left is None else part[:left])
                        if left is not None and (left := left - len(part)) <= 0:
                            return
                except TimeoutError:
                    raise ControllerLost(
                        "the controller does not answer; `ipcluster list` shows whether it runs"
                    ) from None
                printer.begun()
                pause(max(self.interval, time.monotonic() - began))  # a large database is not kept busy


class Lines:
    """Prints each record as one line of JSON."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = list(keys)

    def begun(self) -> None:
        """All that was there at the beginning has been printed."""

    def print(self, found: list[TaskRecord]) -> None:
        """Print some records."""
        for record in found:
            print(as_json(projected(record, self._keys), line=True))
        sys.stdout.flush()


class Rows:
    """Prints records as the rows of one table."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._table = Table(_HEADER, right=["ENGINE", "TOOK"], least=_LEAST)
        self._day = datetime.now().astimezone().date()
        self._is_quiet = False

    def begun(self) -> None:
        """All that was there at the beginning has been printed. Says to a terminal that more will come."""
        if not self._is_quiet and sys.stdout.isatty():
            text = f"Watching; Ctrl-C ends it. ({self._records.origin})"
            print(paint(text, "dim", stream=sys.stderr), file=sys.stderr)
        self._is_quiet = True

    def print(self, found: list[TaskRecord]) -> None:
        """Print some records."""
        if not found:
            return
        rows = [
            [
                self._when(changed(record)),
                record["state"],
                one_line(_short(record["msg_id"])),
                one_line(title(record, self._records)),
                "" if record["engine_id"] is None else str(record["engine_id"]),
                took(record),
                one_line(error_of(record)),
            ]
            for record in found
        ]
        styles = {(number, 1): STYLES.get(record["state"], "dim") for number, record in enumerate(found)}
        print("\n".join(self._table.lines(rows, styles)), flush=True)

    def _when(self, at: datetime) -> str:
        local = at.astimezone()
        return f"{local:%H:%M:%S}" if local.date() == self._day else f"{local:%Y-%m-%d %H:%M:%S}"


def _short(id: str) -> str:
    """A msg_id as `engineroom show` understands it."""
    session = client_of(id)
    return f"{session[:_DIGITS]}{id.removeprefix(session)}" if session else id
