"""`engineroom replay`: simulate recorded tasks with another scheme, hwm or number of engines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from traitlets import Integer, Unicode

from ...errors import ConfigError
from ...reading.records import Records
from ...records.database_urls import file_of, url_of
from ...stores import SQLiteDB
from ...testing.replay import KEYS, History, replay
from ...testing.replay import Replay as Course
from ..base import UsageError
from ..text import as_json, duration, paint, plural, table
from .records import RecordsApp, moment_of


class Replay(RecordsApp):
    """Replay a recorded history in virtual time with another scheme, hwm or number of engines, and compare.

    DATABASE is the file of a task database; without it, the records of the profile are replayed. In the simulation,
    tasks are submitted when they were submitted, take as long as they took, fail where they failed, and wait for the
    tasks that they waited for. Only the choice of engines is new. "replayed" is the same history with as many engines,
    under leastload and an adaptive hwm: compare it with "recorded" to see how well the simulation fits. No task is run.
    """

    description = __doc__
    usage = "engineroom replay [DATABASE] [options]"
    positional: ClassVar[tuple[int, int, str]] = (0, 1, "DATABASE")
    examples = """
engineroom replay --engines=8                       # had there been eight engines
engineroom replay --scheme=lru --hwm=1 --since=-2h  # the last two hours, under another scheme
engineroom replay /data/run7.db --label='fit-*' --engines=4 --json
"""
    aliases: Any = {
        "engines": "Replay.engines",
        "scheme": "Replay.scheme",
        "hwm": "Replay.hwm",
        "since": "Replay.since",
        "label": "Replay.label",
        "seed": "Replay.seed",
        **RecordsApp.session_alias,
        **RecordsApp.aliases,
    }

    engines = Integer(0, help="How many engines; 0: as many as there were.").tag(config=True)
    scheme = Unicode("", help="Who chooses engines: leastload, lru, plainrandom, …; also for tasks that named another.")
    scheme.tag(config=True)
    hwm = Integer(-1, help="Tasks outstanding per engine; 0: no limit, -1: adaptive.").tag(config=True)
    since = Unicode("", help="Only tasks submitted since then: 2026-01-31, 2026-01-31T14:00 or -2h.").tag(config=True)
    label = Unicode("", help="Only tasks with this label; * and ? stand for anything.").tag(config=True)
    seed = Integer(0, help="Seed of the random numbers.").tag(config=True)

    def start(self) -> None:
        if self.engines < 0 or self.hwm < -1:
            raise UsageError(f"--engines is 0 or more and --hwm -1 or more, got {self.engines} and {self.hwm}")
        with self._records() as records:
            found = records.find(self.scoped(records, self._query()), KEYS, [("submitted", 1)])
            origin = records.origin
        course = replay(
            found,
            engines=self.engines or None,
            scheme=self.scheme or None,
            hwm=self.hwm if self.hwm >= 0 else None,
            seed=self.seed,
        )
        if self.json:
            shown = msgspec.to_builtins(course, str_keys=True) | {"difference": course.difference}
            print(as_json(shown))
            return
        for line in self._lines(course):
            print(line)
        left_out = f", {course.left_out:,} that have not run are left out" if course.left_out else ""
        print(paint(f"{plural(course.tasks, 'task')}{left_out}. ({origin})", "dim", stream=sys.stderr), file=sys.stderr)

    def _records(self) -> Records:
        if not self.extra_args:
            return self.records()
        path = file_of(self.extra_args[0]) or Path(self.extra_args[0]).absolute()
        if not path.exists():
            raise ConfigError(f"there is no task database {path}")
        return Records(store=SQLiteDB.open_readonly(path), url=url_of(path))

    def _query(self) -> dict[str, Any]:
        query: dict[str, Any] = {"completed": {"$ne": None}}
        if self.since:
            query |= {"submitted": {"$gte": moment_of("--since", self.since)}}
        if self.label:
            pattern = any(character in self.label for character in "*?[")
            query["label"] = {"$glob": self.label} if pattern else self.label
        return query

    def _lines(self, course: Course) -> Iterator[str]:
        is_other = bool(self.engines or self.scheme or self.hwm >= 0)
        columns = {"recorded": course.recorded, "replayed": course.baseline}
        if is_other:
            columns[self._asked()] = course.replayed
        header = ["", *columns]
        rows = [[what, *(say(history) for history in columns.values())] for what, say in _ROWS.items()]
        yield from table(header, rows, right=header[1:])
        if is_other:
            share = course.difference / course.baseline.makespan if course.baseline.makespan else 0.0
            sign = "+" if course.difference > 0 else ""
            yield ""
            yield f"difference in makespan: {sign}{duration(course.difference)} ({share:+.1%})"
        if course.not_run:
            yield paint(f"{plural(course.not_run, 'task')} could not have run at all", "red")

    def _asked(self) -> str:
        """The settings that differ, in words."""
        words = [plural(self.engines, "engine")] if self.engines else []
        words += [self.scheme] if self.scheme else []
        words += [f"hwm {self.hwm}"] if self.hwm >= 0 else []
        return ", ".join(words)


def _spread(history: History) -> str:
    shares = history.utilisation.values()
    return f"{min(shares):.0%} – {max(shares):.0%}"


_ROWS: dict[str, Any] = {
    "engines": lambda history: str(history.engines),
    "makespan": lambda history: duration(history.makespan),
    "mean wait": lambda history: duration(history.waited),
    "at work": lambda history: f"{history.busy:.0%}",
    "… least and most": _spread,
}
