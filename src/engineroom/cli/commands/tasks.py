"""`engineroom tasks`: a table of task records."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from traitlets import Integer, Unicode

from ...printable import one_line
from ...reading.paging import pages
from ...reading.records import Records
from ...records.fields import TIMES
from ...records.projection import part_of, projected
from ...records.record import TaskRecord
from ...stores.sqlite.beside import where_else
from ..base import UsageError
from ..text import Table, as_json, exact, paint, plural
from .records import MatchingApp
from .rows import ROW_KEYS, rows_of

_HEADER = ["ID", "STATE", "TASK", "ENGINE", "SUBMITTED", "TOOK", "ERROR"]


class Tasks(MatchingApp):
    """Show tasks, newest first: of the profile's running cluster, or from its database if none is running.

    QUERY is a MongoDB-style query, as JSON or as a Python dict. Its keys are those of a task record (`engineroom show`
    shows one); its operators are $eq $ne $gt $gte $lt $lte $in $nin $and $or $not $nor $exists $regex $glob and more.
    Times may be written as "2026-01-31", "2026-01-31T14:00" (local time) or "-2h" (two hours ago; s, m, h, d, w).
    """

    description = __doc__
    usage = "engineroom tasks [QUERY] [options]"
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
        **MatchingApp.matching_aliases,
        "limit": "Tasks.limit",
        "sort": "Tasks.sort",
        "keys": "Tasks.keys",
        **MatchingApp.session_alias,
        **MatchingApp.database_alias,
        **MatchingApp.aliases,
    }

    limit = Integer(20, help="How many at most; 0: all.").tag(config=True)
    sort = Unicode("-submitted", help="By which key; a - in front: descending.").tag(config=True)
    keys = Unicode("", help="Which keys of the records to show, separated by commas.").tag(config=True)

    def start(self) -> None:
        if self.limit < 0:
            raise UsageError(f"--limit is 0 (all) or more, got {self.limit}")
        query, keys = self.query(), [key for key in self.keys.replace(" ", "").split(",") if key]
        descending = self.sort.startswith("-")
        sort = [(self.sort.lstrip("-") or "submitted", -1 if descending else 1)]
        wanted: list[str] | None = list(dict.fromkeys(key.partition(".")[0] for key in keys)) or None
        if wanted is None and not self.json:
            wanted = list(ROW_KEYS)
        with self.records() as records:
            query = self.scoped(records, query)
            if not self.limit and sort[0][0] == "submitted":
                parts = pages(records, query, wanted, sort[0][1])
            else:
                parts = iter([records.find(query, wanted, sort, self.limit or None)])
            shown = self._print_json(parts, keys) if self.json else _print_table(parts, keys, records)
            if not self.json:
                self._end(shown, records.count(query) if shown == self.limit else shown, records)

    def _print_json(self, parts: Iterator[list[TaskRecord]], keys: list[str]) -> int:
        """Print a list of records, one by one; returns how many."""
        count = 0
        for record in itertools.chain.from_iterable(parts):
            if keys:
                record = projected(record, keys)
            text = as_json(record)
            print("[" if not count else ",")
            print(textwrap.indent(text, " "), end="")
            count += 1
        print("\n]" if count else "[]")
        return count

    def _end(self, shown: int, total: int, records: Records) -> None:
        """Print to stderr how many tasks match, and where they come from: a pipe does not read that."""
        if not total:
            text = f"No task matches. ({records.origin})"
            if others := where_else(records.url):
                text += f"\n{others}."
        elif shown < total:
            text = f"{shown:,} of {total:,} tasks; --limit=0 shows all. ({records.origin})"
        else:
            text = f"{plural(total, 'task')}. ({records.origin})"
        print(paint(text, "dim", stream=sys.stderr), file=sys.stderr)


def _print_table(parts: Iterator[list[TaskRecord]], keys: list[str], records: Records) -> int:
    """Print a table, a part at a time. Columns grow with what comes, and never shrink. Returns how many records."""
    count = 0
    columns = ["msg_id", *(key for key in keys if key != "msg_id")]
    shown: Table | None = None
    following = next(parts, None)
    while following is not None:
        found, following = following, next(parts, None)
        if not found:
            continue
        if keys:
            rows: list[list[str]] = [[_cell(part_of(record, key), key) for key in columns] for record in found]
            styles: dict[tuple[int, int], str] = {}
            shown = shown or Table(columns)
        else:
            rows, styles = rows_of(found, records)
            if shown is None:  # the column of errors is left out if there are none
                has_errors = following or any(row[-1] for row in rows)
                shown = Table(_HEADER if has_errors else _HEADER[:-1], right=["ENGINE", "TOOK"])
        for line in shown.lines([row[: len(shown.header)] for row in rows], styles):
            print(line)
        count += len(found)
    return count


def _cell(value: Any, key: str) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return exact(value) if key in TIMES else value.isoformat()
    if isinstance(value, str):
        return one_line(value)
    return one_line(as_json(value, line=True))
