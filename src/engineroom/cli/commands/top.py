"""`engineroom top`: what the engines of a running cluster are doing."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

from traitlets import Bool, Float

from ...client import Client
from ...cluster.found_cluster import FoundCluster
from ...errors import ConnectionFileError, ControllerLost, EngineroomError
from ...printable import one_line
from ...reading.progress import Progress
from ..base import UsageError
from ..live import Screen, pause, screen
from ..text import as_json, cut, duration, is_terminal, paint, plural, table, when, width_of_terminal
from .records import RecordsApp

#: How many failed tasks are shown.
FAILURES = 5
#: What engines are sorted by.
ORDERS = ("number", "rate", "tasks", "memory")
QUIT, FASTER, SLOWER = ("q", "Q", "\x1b", ""), ("+", "="), ("-", "_")
KEYS = {
    "q": "quit (so does Ctrl-C)",
    "p": "pause, and go on",
    "s": f"sort the engines by {', '.join(ORDERS)}",
    "+ -": "look twice, or half as often",
    "?": "show these keys; any other key closes them",
}


class Top(RecordsApp):
    """Watch a running cluster: what each engine runs and has completed, how far each label is, what waits, what failed.

    HELD counts the tasks that an engine has been given: the one it runs, and those it runs next. RUNS is a task that
    takes longer than a moment, FOR how long it has been running, MEMORY what its engine had in use then. An engine is
    silent when nothing has been heard of it and its host for some seconds, FOR how long. LEFT is how long the
    unfinished tasks of a label may take, if they go on as in the last minute. q or Ctrl-C ends the command, ? shows the
    other keys. If the output is not a terminal, it is printed once.
    """

    description = __doc__
    usage = "engineroom top [options]"
    examples = """
engineroom top
engineroom top --interval=0.5 --profile=night
engineroom top --once                                  # for scripts
engineroom top --once --json | jq .unassigned
engineroom top --json                                  # one line of JSON per interval
"""
    aliases: Any = {"interval": "Top.interval", **RecordsApp.aliases}
    flags: Any = {
        "once": ({"Top": {"once": True}}, "print it once, and end"),
        **RecordsApp.flags,
    }

    interval = Float(1.0, help="Seconds between two updates.").tag(config=True)
    once = Bool(False, help="Print it once, and end.").tag(config=True)

    def start(self) -> None:
        if not self.interval > 0:
            raise UsageError(f"--interval is more than 0 seconds, got {self.interval:g}")
        found = self.found(anywhere=True)
        info = found.connection
        if info is None or not (found.running or found.is_elsewhere):
            raise ConnectionFileError(f"{found} is not running; {found.how_to_start()}")
        with Client(info, timeout=5) as client:
            watch = Watch(client, found)
            if self.json:
                self._as_json(watch)
            elif self.once or not is_terminal(sys.stdout):
                print("\n".join(watch.look().lines(width_of_terminal(), 1 << 30)))
            else:
                with screen() as shown:
                    self._live(watch, shown)

    def _as_json(self, watch: Watch) -> None:
        while True:
            print(as_json(watch.look().to_dict(), line=True), flush=True)
            if self.once:
                return
            pause(self.interval)

    def _live(self, watch: Watch, shown: Screen) -> None:
        interval, look, order, is_help, is_paused = self.interval, watch.look(), 0, False, False
        while True:
            size = shutil.get_terminal_size()
            lines = look.lines(size.columns, size.lines - 2, ORDERS[order])
            state = f"{'paused, ' if is_paused else ''}every {interval:g} s, engines by {ORDERS[order]}"
            foot = paint(cut(f"? keys   q quit   ({state})", size.columns), "dim")
            shown.draw([*(_help(size.columns) if is_help else lines), "", foot])
            key = shown.key_within(interval)
            if key in QUIT:
                return
            is_help = key == "?" or (is_help and key is None)
            if key == "p":
                is_paused = not is_paused
            elif key in FASTER:
                interval = max(0.1, interval / 2)
            elif key in SLOWER:
                interval = min(60.0, interval * 2)
            elif key == "s":
                order = (order + 1) % len(ORDERS)
            if not is_paused and key is None:
                look = watch.look()


def _help(width: int) -> list[str]:
    rows = [[key, what] for key, what in KEYS.items()]
    return [paint("engineroom top: keys", "bold"), "", *table(["KEY", "WHAT IT DOES"], rows, width=width)]


class Watch:
    """Asks a cluster again and again what its engines do, and computes rates from two answers."""

    def __init__(self, client: Client, cluster: FoundCluster) -> None:
        self._client, self._cluster = client, cluster
        self._progress = Progress(client)
        self._before: dict[int, int] = {}
        self._then = 0.0

    def look(self) -> Look:
        """The present state.

        Raises
        ------
        ControllerLost
            It does not answer.
        """
        client = self._client
        try:
            status = client.queue_status()
        except IndexError:  # an engine left between our asking which there are and what they do
            status = client.queue_status()
        except TimeoutError:
            raise ControllerLost("the controller does not answer; `ipcluster list` shows whether it runs") from None
        now = time.monotonic()
        passed = now - self._then if self._then else 0.0
        unassigned = status.pop("unassigned")
        engines = [
            {
                "engine_id": id,
                "held": inner["queue"] + inner["tasks"],
                "direct": inner["queue"],
                "balanced": inner["tasks"],
                "completed": inner["completed"],
                "rate": (inner["completed"] - self._before[id]) / passed if passed and id in self._before else None,
                "running": inner["running"],
                "memory": inner["memory"],
                "host": inner["host"],
                "pid": inner["pid"],
                "silent": inner["silent"],
            }
            for id, inner in sorted(status.items())
        ]
        self._before, self._then = {engine["engine_id"]: engine["completed"] for engine in engines}, now
        try:
            failures = client.db_query(
                {"state": "failed"},
                ["label", "engine_id", "completed", "result_content"],
                sort=[("completed", -1)],
                limit=FAILURES,
            )
        except EngineroomError:  # a cluster without records
            failures = []
        return Look(self._cluster, engines, unassigned, failures, self._progress.look())


class Look:
    """What a cluster does at one moment."""

    def __init__(
        self,
        cluster: FoundCluster,
        engines: list[dict[str, Any]],
        unassigned: int,
        failures: list[Any],
        progress: list[dict[str, Any]],
    ) -> None:
        self._cluster, self.engines, self.unassigned, self.failures = cluster, engines, unassigned, failures
        self.progress = progress

    def total(self, key: str) -> Any:
        """The sum over engines; None if none of them knows."""
        values = [engine[key] for engine in self.engines if engine[key] is not None]
        return sum(values) if values else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "profile": self._cluster.profile,
            "cluster_id": self._cluster.cluster_id,
            "time": time.time(),
            "engines": self.engines,
            "unassigned": self.unassigned,
            "held": self.total("held") or 0,
            "completed": self.total("completed") or 0,
            "rate": self.total("rate"),
            "progress": self.progress,
            "failures": [
                {
                    "msg_id": record["msg_id"],
                    "label": record["label"],
                    "engine_id": record["engine_id"],
                    "completed": record["completed"],
                    "ename": (record["result_content"] or {}).get("ename"),
                    "evalue": (record["result_content"] or {}).get("evalue"),
                }
                for record in self.failures
            ],
        }

    def lines(self, width: int, height: int, order: str = "number") -> list[str]:
        """As text that fits this many columns and lines. If there are too many engines, the first or busiest are shown.

        Parameters
        ----------
        order : one of ORDERS
            By what the engines are sorted.
        """
        busy = sum(1 for engine in self.engines if engine["held"])
        count = sum(1 for engine in self.engines if engine["silent"] is not None)
        silent = f", {count} silent" if count else ""
        top = [
            f"{paint(cut(one_line(self._cluster), max(1, width - 11)), 'bold')}   {time.strftime('%H:%M:%S')}",
            cut(
                f"{plural(len(self.engines), 'engine')}, {busy} busy{silent}   "
                f"{plural(self.unassigned, 'task')} waiting for one   "
                f"{self.total('completed') or 0:,} completed   {_rate(self.total('rate'))}",
                width,
            ),
            "",
        ]
        progress = list(self._progress_lines(width))
        failures = list(self._failure_lines(width))
        room = max(3, height - len(top) - len(progress) - len(failures) - 2)
        engines = self.engines
        if order != "number":
            key = {"rate": "rate", "tasks": "held", "memory": "memory"}[order]
            engines = sorted(engines, key=lambda e: (-(e[key] or 0), e["engine_id"]))[: max(1, room - 1)]
        elif len(engines) > room:
            shown = sorted(engines, key=lambda e: (e["silent"] is None, -(e["rate"] or 0), -e["held"], e["engine_id"]))
            shown = shown[: room - 1]
            engines = sorted(shown, key=lambda e: int(e["engine_id"]))
        rows = [
            [
                str(engine["engine_id"]),
                str(engine["held"]) if engine["held"] else "·",
                str(engine["direct"]) if engine["direct"] else "·",
                f"{engine['completed']:,}",
                _rate(engine["rate"]),
                "" if engine["memory"] is None else f"{engine['memory'] / 2**20:,.0f} MB",
                *_runs(engine["running"], engine["silent"]),
            ]
            for engine in engines
        ]
        styles = {(number, 1): "green" for number, engine in enumerate(engines) if engine["held"]}
        styles |= {(number, 7): "yellow" for number, engine in enumerate(engines) if engine["silent"] is not None}
        header = ["ENGINE", "HELD", "DIRECT", "COMPLETED", "RATE", "MEMORY", "FOR", "RUNS"]
        body = table(header, rows, right=header[:-1], styles=styles, width=width)
        if len(engines) < len(self.engines):
            body.append(paint(f"… and {len(self.engines) - len(engines)} more engines", "dim"))
        return [*top, *body, *progress, *failures][:height]

    def _progress_lines(self, width: int) -> Iterator[str]:
        if not self.progress:
            return
        yield ""
        rows = [
            [
                "(no label)" if each["label"] is None else one_line(each["label"]),
                f"{each['ended']:,} of {each['total']:,}",
                f"{100 * each['ended'] // max(1, each['total'])} %",
                "" if each["seconds_left"] is None else f"about {duration(each['seconds_left'])}",
            ]
            for each in self.progress
        ]
        yield from table(["LABEL", "ENDED", "DONE", "LEFT"], rows, right=["ENDED", "DONE"], width=width)

    def _failure_lines(self, width: int) -> Iterator[str]:
        if not self.failures:
            return
        yield ""
        rows = []
        for record in self.failures:
            content = record["result_content"] or {}
            engine = record["engine_id"]
            rows.append(
                [
                    when(record["completed"]),
                    record["msg_id"],
                    one_line(record["label"] or ""),
                    "" if engine is None else str(engine),
                    one_line(f"{content.get('ename')}: {content.get('evalue')}"),
                ]
            )
        yield from table(["FAILED", "ID", "LABEL", "ENGINE", "ERROR"], rows, right=["ENGINE"], width=width)


def _runs(running: dict[str, Any] | None, silent: float | None) -> tuple[str, str]:
    """Since when an engine runs what; or since when it is silent."""
    if silent is not None:
        known = "" if running is None else f"; it ran {running['msg_id']}"
        return duration(silent), one_line(f"silent: gets no more tasks{known}")
    if running is None:
        return "", ""
    code = running["code"]
    what = code.strip().partition("\n")[0] if code else running["function"] or running["msg_id"]
    if running["label"]:
        what = f"{running['label']}: {what}"
    return duration(max(0.0, time.time() - running["started"])), one_line(f"{what} ({running['msg_id']})")


def _rate(value: float | None) -> str:
    if value is None:
        return "–/s"
    return f"{value:,.0f}/s" if value >= 10 or value == 0 else f"{value:.1f}/s"
