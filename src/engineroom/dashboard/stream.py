"""The task stream: which engine ran what, when. Few tasks one by one, many gathered in short spans of time.

Gathered means counted, not sampled: for each span, each engine and each label, how many tasks ended in it and how long
they took. Tasks that are longer than a span come one by one. Spans that lie some seconds back do not change, so they
are remembered.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from ..errors import ConfigError, EngineroomError
from ..reading.records import Records
from .overview import moment
from .source import Source

#: Up to this many tasks are sent one by one.
SINGLE = 3000
#: Spans of time in a window, at most.
SPANS = 120
#: Labels (or functions) with a colour of their own in a gathered picture; the others are one.
NAMED = 5
#: Spans that are remembered.
REMEMBERED = 1000
#: Seconds after which the records of a span are complete: tasks are written a little after they have ended.
SETTLED_SECONDS = 5.0
#: Widths of spans, in seconds. A few widths, so that spans are remembered when the window moves.
WIDTHS = tuple(step * 10.0**power for power in range(-3, 7) for step in (1, 2, 5))

#: Of many tasks, so many are drawn one by one because they are longer than a span.
LONG = 5000

_KEYS = ("engine_id", "started", "completed", "state", "function_name", "label")

BY = {"label": "label", "function": "function", "state": "state"}

#: (engine, place of the name or -1 for all others, tasks, seconds in tasks)
Cell = tuple[int, int, int, float]


class Stream:
    """Answers what happened between two instants."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._spans: OrderedDict[tuple[Any, ...], list[Cell]] = OrderedDict()

    def window(self, begin: float | None, end: float | None, by: str) -> dict[str, Any]:
        """What engines ran between two instants, in seconds since the epoch; default: from the first task until now.

        Returns
        -------
        dict
            `from`, `to`, `first`, `last` (of all tasks), `engines`, `names` (in the order of their colours), `count`,
            and `tasks`: [engine, start, end or None, place of its name or -1, msg_id, state, label, function]. Of many
            tasks only the long ones are in `tasks`; the others are in `cells`: [span, engine, place of the name or -1,
            tasks, seconds in them] with the `width` of a span.

        Raises
        ------
        ConfigError
            There are no such colours, or the window is empty.
        """
        if by not in BY:
            raise ConfigError(f"colours are by {', '.join(BY)}; got {by!r}")
        records, now = self._source.records(), time.time()
        is_live = records.client is not None
        first, last = _bounds(records, now if is_live else None)
        if first is None or last is None:
            return {"from": now - 60, "to": now, "first": None, "last": None, "engines": [], "names": [], "count": 0,
                    "tasks": [], "live": is_live}  # fmt: skip
        begin = first if begin is None else begin
        end = last if end is None else end
        if not 0 <= begin < end < 1e11:
            begin, end = begin - 0.5, begin + 0.5
        ended = {"completed": {"$gte": moment(begin), "$lte": moment(end)}, "started": {"$ne": None}}
        found: dict[str, Any] = {"from": begin, "to": end, "first": first, "last": last, "live": is_live}
        if len(records.find(ended, ["msg_id"], [("completed", 1)], SINGLE + 1)) <= SINGLE:
            tasks = records.find(ended, [*_KEYS, BY[by]], [("completed", 1)], SINGLE)
            return {**found, "count": len(tasks), **_single(records, tasks + _at_end(records, end, by), by)}
        return {**found, **self._gathered(records, ended, begin, end, by, now)}

    # ------------------------------------------------------------------------------------------ gathered

    def _gathered(
        self, records: Records, ended: dict[str, Any], begin: float, end: float, by: str, now: float
    ) -> dict[str, Any]:
        key = BY[by]
        groups = sorted(records.group(key, ended), key=lambda group: -group["count"])
        named = tuple(group["key"] for group in groups[:NAMED])
        width = next((width for width in WIDTHS if (end - begin) / width <= SPANS), (end - begin) / SPANS)
        first, last = int(begin // width), int(end // width)
        long = records.find({**ended, "duration": {"$gt": width}}, [*_KEYS, key], [("completed", 1)], LONG)
        below = width if len(long) < LONG else None  # so many engines that their tasks are too many to be drawn
        bars = [*(long if below is not None else []), *_at_end(records, end, by)]
        cells: list[tuple[int, *Cell]] = []
        for span in range(first, last + 1):
            found = self._span(records, key, (width, below), span, named, now)
            cells += [(span - first, *cell) for cell in found]
        return {
            "engines": sorted({cell[1] for cell in cells} | {bar["engine_id"] for bar in bars} - {None}),
            "names": [_name(records, by, value) for value in named],
            "tasks": _bars(bars, by, named),
            "count": sum(group["count"] for group in groups),
            "others": sum(group["count"] for group in groups[NAMED:]),
            "counts": [group["count"] for group in groups[:NAMED]],
            "cells": cells,
            "width": width,
            "cells_from": first * width,
        }

    def _span(
        self,
        records: Records,
        key: str,
        widths: tuple[float, float | None],
        span: int,
        named: tuple[Any, ...],
        now: float,
    ) -> list[Cell]:
        """What ended in one span. `widths`: of a span; how long its tasks are at most, if others come one by one."""
        width, below = widths
        known = (self._source.opened, key, widths, span, named)
        if known in self._spans:
            self._spans.move_to_end(known)
            return self._spans[known]
        begin, end = moment(span * width), moment((span + 1) * width)
        ended: dict[str, Any] = {"completed": {"$gte": begin, "$lt": end}, "started": {"$ne": None}}
        if below is not None:
            ended["duration"] = {"$lte": below}
        found: list[Cell] = []
        if len(named) == 1:  # of one kind
            found = list(_cells(records, ended, 0))
        else:
            everything = {cell[0]: cell for cell in _cells(records, ended, -1)}
            if everything:
                for place, value in enumerate(named):
                    found += _cells(records, {**ended, key: value}, place)
            for engine, (_, _, tasks, seconds) in everything.items():
                others = [cell for cell in found if cell[0] == engine]
                left = tasks - sum(cell[2] for cell in others)
                if left > 0:
                    found.append((engine, -1, left, max(0.0, seconds - sum(cell[3] for cell in others))))
        if (span + 1) * width < now - SETTLED_SECONDS:
            self._spans[known] = found
            while len(self._spans) > REMEMBERED:
                self._spans.popitem(last=False)
        return found


def _single(records: Records, tasks: list[Any], by: str) -> dict[str, Any]:
    """Each task by itself."""
    counts: dict[Any, int] = {}
    for task in tasks:
        counts[task[BY[by]]] = counts.get(task[BY[by]], 0) + 1
    order = sorted(counts, key=lambda key: -counts[key])
    return {
        "engines": sorted({task["engine_id"] for task in tasks if task["engine_id"] is not None}),
        "names": [_name(records, by, key) for key in order],
        "tasks": _bars(tasks, by, order),
    }


def _at_end(records: Records, end: float, by: str) -> list[Any]:
    """The tasks that reach over an instant. An engine runs one task at a time, so there are not many."""
    begun = {"started": {"$lte": moment(end)}}
    found: list[Any] = []
    for query in ({"completed": {"$gt": moment(end)}, **begun}, {"state": "running", **begun}):
        found += records.find(query, [*_KEYS, BY[by]], [("started", -1)], SINGLE)
    return found


def _bars(tasks: Iterable[Any], by: str, names: Sequence[Any]) -> list[list[Any]]:
    places = {name: place for place, name in enumerate(names)}
    return [
        [task["engine_id"], task["started"].timestamp(), _seconds(task["completed"]), places.get(task[BY[by]], -1),
         task["msg_id"], task["state"], task["label"], task["function_name"]]
        for task in tasks
        if task["started"] is not None and task["engine_id"] is not None
    ]  # fmt: skip


def _cells(records: Records, query: dict[str, Any], place: int) -> Iterable[Cell]:
    for group in records.group("engine_id", query, values="duration"):
        if group["key"] is not None:
            yield group["key"], place, group["count"], (group.get("mean") or 0.0) * (group.get("values") or 0)


def _bounds(records: Records, now: float | None) -> tuple[float | None, float | None]:
    """When the first task was submitted, and when the last one ended; `now` if the cluster runs."""
    first = records.find({}, ["submitted"], [("submitted", 1)], 1)
    if not first:
        return None, None
    begin = _seconds(first[0]["submitted"])
    if now is not None:
        return begin, now
    last = records.find({"completed": {"$ne": None}}, ["completed"], [("completed", -1)], 1)
    return begin, _seconds(last[0]["completed"]) if last else None


def _name(records: Records, by: str, value: Any) -> str | None:
    if by != "function" or not isinstance(value, str):
        return None if value is None else str(value)
    try:
        named = records.find({"function": value}, ["function_name"], None, 1)
        return (named and named[0]["function_name"]) or records.function_name(value)
    except EngineroomError:
        return value[:8]


def _seconds(instant: datetime | None) -> float | None:
    return None if instant is None else instant.timestamp()
