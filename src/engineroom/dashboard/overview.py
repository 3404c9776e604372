"""What the overview shows: engines by host, the queue by label and priority, throughput, warnings."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..errors import EngineroomError
from ..reading.progress import RARELY, Progress
from ..reading.records import Records
from ..records.record import TaskRecord
from .source import Source

#: Engines that are sent one by one; of more, those that have been running something for longest.
ENGINES = 200
#: Seconds of throughput that are kept, and looks within them.
KEPT_LOOKS = 600
#: Bars of the throughput of a cluster that has ended.
BARS = 60
#: Labels of the queue.
LABELS = 12
#: Failed tasks.
FAILURES = 5
#: What is read of them.
FAILURE_KEYS = ["label", "function_name", "engine_id", "completed", "result_content"]
#: Of the oldest tasks that wait, how many are explained.
EXPLAINED = 30
#: Seconds for which the end of an engine is told.
TOLD_SECONDS = 600.0
#: A disk with less room than this is told.
LITTLE_ROOM = 1 << 30


class Overview:
    """Looks at a cluster again and again, and remembers what only two looks can tell: rates, engines that ended."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._opened = 0
        self._before: dict[int, tuple[int, int]] = {}  # engine → its process, and how many tasks it had completed
        self._then = 0.0
        self._rates: deque[tuple[float, float]] = deque(maxlen=KEPT_LOOKS)
        self._told: deque[tuple[float, str]] = deque(maxlen=20)
        self._progress: Progress | None = None
        self._slow: dict[str, Any] = {}
        self._due = 0.0
        self._engines: dict[str, Any] = {}  # those of a cluster that has ended
        self._engines_due = 0.0

    def look(self) -> dict[str, Any]:
        """The present state, as plain data. It never fails: where a part cannot be had, `problem` says why."""
        now = time.time()
        try:
            records = self._source.records()
            if self._opened != self._source.opened:
                self._begin(records)
            found = self._live(records, now) if records.client is not None else self._ended(records)
            return {
                "now": now, "live": records.client is not None, "origin": records.origin, "problem": None, **found,
                "warnings": [*self._warnings(found, now), *found.get("warnings", [])],
            }  # fmt: skip
        except (EngineroomError, TimeoutError, OSError) as error:
            return {"now": now, "live": False, "origin": self._source.place.name, "problem": str(error)}

    def _begin(self, records: Records) -> None:
        self._opened = self._source.opened
        self._before, self._then, self._due, self._slow = {}, 0.0, 0.0, {}
        self._engines, self._engines_due = {}, 0.0
        self._rates.clear()
        self._progress = None if records.client is None else Progress(records.client, LABELS)

    # ------------------------------------------------------------------------------------------ a running cluster

    def _live(self, records: Records, now: float) -> dict[str, Any]:
        client = records.client
        assert client is not None
        try:
            status = client.queue_status()
        except IndexError:  # an engine left between two questions
            status = client.queue_status()
        unassigned = status.pop("unassigned")
        then = time.monotonic()
        passed = then - self._then if self._then else 0.0
        engines = [
            {
                "id": id,
                "host": inner["host"],
                "pid": inner["pid"],
                "held": inner["queue"] + inner["tasks"],
                "completed": inner["completed"],
                "rate": _rate(inner["completed"], self._before.get(id), inner["pid"], passed),
                "memory": inner["memory"],
                "running": inner["running"],
                "silent": inner["silent"],
            }
            for id, inner in sorted(status.items())
        ]
        self._notice_changes(status, now)
        self._before, self._then = {id: (i["pid"], i["completed"]) for id, i in status.items()}, then
        rate = sum(engine["rate"] or 0.0 for engine in engines) if passed else None
        if rate is not None:
            self._rates.append((now, rate))
        if time.monotonic() >= self._due:
            self._slow = self._look_slowly(records, unassigned)
        shown = engines
        if len(engines) > ENGINES:
            shown = sorted(engines, key=lambda e: (_shown_before(e, now), e["id"]))[:ENGINES]
        return {
            "engines": shown,
            "engine_count": len(engines),
            "busy": sum(1 for engine in engines if engine["held"]),
            "silent": sum(1 for engine in engines if engine["silent"] is not None),
            "held": sum(engine["held"] for engine in engines),
            "completed": sum(engine["completed"] for engine in engines),
            "hosts": _hosts(engines),
            "unassigned": unassigned,
            "rate": rate,
            "throughput": list(self._rates),
            **self._slow,
        }

    def _notice_changes(self, status: dict[Any, Any], now: float) -> None:
        for id, (pid, _) in self._before.items():
            if id not in status:
                self._told.append((now, f"engine {id} has stopped (process {pid})"))
            elif status[id]["pid"] != pid:
                self._told.append((now, f"engine {id} has stopped (process {pid}); a new one took its number"))

    def _look_slowly(self, records: Records, unassigned: int) -> dict[str, Any]:
        """What takes longer to find out. The longer it takes, the less often it is asked."""
        began = time.monotonic()
        found: dict[str, Any] = {"reasons": []}
        try:
            found |= self._of_records(records)
            if self._progress is not None:
                found["labels"] = self._progress.look()
            if unassigned:
                found["reasons"] = list(_reasons(records))
        except (EngineroomError, TimeoutError) as error:
            found["warnings"] = [_warning(f"the records do not answer: {error}")]
        took = time.monotonic() - began
        self._due = began + max(1.0, RARELY * took)
        return found

    # ------------------------------------------------------------------------------------------ a database alone

    def _ended(self, records: Records) -> dict[str, Any]:
        if time.monotonic() < self._due:
            return self._slow | self._engines
        began = time.monotonic()
        found = self._of_records(records)
        groups = sorted(records.group("label", {"completed": None}), key=lambda g: -g["count"])[:LABELS]
        found["labels"] = [{"label": g["key"], "left": g["count"]} for g in groups]
        found["throughput"], found["bar_seconds"] = _history(records)
        left = sum(found["states"].get(state, 0) for state in ("pending", "running"))
        if left:
            text = f"{left:,} tasks have no outcome: they run when a cluster is started with this database"
            found["warnings"] = [_warning(text, '{"completed": null}')]
        self._slow = found
        self._due = began + max(2.0, RARELY * (time.monotonic() - began))
        return found | self._engines

    def count_past_engines(self) -> None:
        """Count the tasks of engines that are gone, for the looks that follow: it takes long in a large database."""
        if time.monotonic() < self._engines_due:
            return
        began, opened = time.monotonic(), self._opened
        try:
            records = self._source.records()
            if records.client is not None:
                return
            groups = records.group("engine_id", {"completed": {"$ne": None}}, values="duration")
        except (EngineroomError, TimeoutError, OSError):  # the next look says so
            return
        engines = [
            {"id": g["key"], "completed": g["count"], "seconds": (g.get("mean") or 0.0) * (g.get("values") or 0)}
            for g in groups
            if g["key"] is not None
        ]
        shown = engines
        if len(engines) > ENGINES:
            shown = sorted(engines, key=lambda engine: (-engine["seconds"], engine["id"]))[:ENGINES]
        if opened == self._opened:
            self._engines = {"past_engines": shown, "past_engine_count": len(engines)}
            self._engines_due = time.monotonic() + max(2.0, RARELY * (time.monotonic() - began))

    def _of_records(self, records: Records) -> dict[str, Any]:
        failed = records.find(
            {"state": "failed"},
            FAILURE_KEYS,
            [("completed", -1)],
            FAILURES,
        )
        return {
            "states": states(records),
            "priorities": [
                {"priority": group["key"] or 0, "count": group["count"]}
                for group in records.group("header.priority", {"completed": None})
            ],
            "failures": [failure(record) for record in failed],
        }

    # ------------------------------------------------------------------------------------------ warnings

    def _warnings(self, found: dict[str, Any], now: float) -> Iterator[dict[str, Any]]:
        if "engine_count" in found and not found["engine_count"]:
            yield _warning("there are no engines: start some with `ipcluster engines`")
        for host in found.get("hosts") or ():
            if host["silent"]:
                count = f"{host['silent']} of {host['engines']}"
                what = f"engines on {host['host']} are silent: {count}. They get no more tasks until they are heard"
                yield _warning(what)
        while self._told and self._told[0][0] < now - TOLD_SECONDS:
            self._told.popleft()
        for when, text in reversed(self._told):
            yield {"text": text, "when": when, "query": None}
        room = _room(self._source.file)
        if room is not None and room < LITTLE_ROOM:
            yield _warning(f"the disk of the database is nearly full: {room / 2**20:,.0f} MiB are left")


def _shown_before(engine: Mapping[str, Any], now: float) -> float:
    """Engines with the least come first: those that are silent, then those that have run something for longest."""
    if engine["silent"] is not None:
        return 0.0
    return float(engine["running"]["started"]) if engine["running"] else now


def _warning(text: str, query: str | None = None) -> dict[str, Any]:
    return {"text": text, "when": None, "query": query}


def _rate(completed: int, before: tuple[int, int] | None, pid: int, passed: float) -> float | None:
    """Tasks per second of an engine since the last look; None: it was not there."""
    if before is None or not passed or before[0] != pid:
        return None
    return max(0.0, (completed - before[1]) / passed)


def states(records: Records) -> dict[str, int]:
    """How many tasks are in each state. Most have completed: they are not counted one by one."""
    found = {group["key"]: group["count"] for group in records.group("state", {"completed": None})}
    found |= {state: records.count({"state": state}) for state in ("failed", "aborted")}
    completed = records.count({}) - sum(found.values())
    return {state: count for state, count in {**found, "completed": completed}.items() if count > 0}


def failure(record: TaskRecord) -> dict[str, Any]:
    """What the overview shows of a failed task."""
    return {
        "msg_id": record["msg_id"],
        "label": record["label"],
        "function": record["function_name"],
        "engine": record["engine_id"],
        "completed": record["completed"],
        "ename": (record["result_content"] or {}).get("ename"),
        "evalue": str((record["result_content"] or {}).get("evalue") or "")[:300],
    }


def first_and_last(
    records: Records, query: Mapping[str, Any], time: str, *keys: str
) -> tuple[TaskRecord, TaskRecord] | None:
    """Of the records that match, those whose time is the first and the last, with these keys; None: none matches."""
    first, last = (records.find(query, [time, *keys], [(time, way)], 1) for way in (1, -1))
    return (first[0], last[0]) if first and last else None


def _hosts(engines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each host."""
    hosts: dict[str, dict[str, Any]] = {}
    for engine in engines:
        row = hosts.setdefault(
            engine["host"], {"host": engine["host"], "engines": 0, "busy": 0, "held": 0, "completed": 0, "rate": 0.0,
                             "memory": 0, "silent": 0}
        )  # fmt: skip
        row["engines"] += 1
        row["silent"] += 1 if engine["silent"] is not None else 0
        row["busy"] += 1 if engine["held"] else 0
        for key in ("held", "completed", "rate", "memory"):
            row[key] += engine[key] or 0
    return sorted(hosts.values(), key=lambda row: row["host"])


def _reasons(records: Records) -> Iterator[dict[str, Any]]:
    """Why the oldest tasks wait, one row for each reason."""
    client = records.client
    assert client is not None
    oldest = records.find({"state": "pending"}, ["msg_id"], [("submitted", 1)], EXPLAINED)
    explanations = client.explain([record["msg_id"] for record in oldest]) if oldest else None
    for state, reason, ids in explanations.grouped() if explanations else ():
        if state in ("waiting", "queued", "recovering"):
            yield {"reason": reason, "count": len(ids), "example": ids[0]}


def _history(records: Records) -> tuple[list[tuple[float, float]], float]:
    """Tasks per second over the whole life of a database, and how many seconds a bar is wide."""
    ends = first_and_last(records, {"completed": {"$ne": None}}, "completed")
    if ends is None:
        return [], 1.0
    first, last = (record["completed"] for record in ends)
    width = max((last - first).total_seconds() / BARS, 1e-3)
    bars = []
    for number in range(BARS):
        begin = first + timedelta(seconds=width * number)
        end = first + timedelta(seconds=width * (number + 1)) if number < BARS - 1 else last + timedelta(seconds=1e-3)
        count = records.count({"completed": {"$gte": begin, "$lt": end}})
        bars.append((begin.timestamp() + width / 2, count / width))
    return bars, width


def _room(path: Path | None) -> int | None:
    """Bytes that are free on the disk of a file."""
    if path is None:
        return None
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def moment(seconds: float) -> datetime:
    """An instant from seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC)
