"""The history of tasks as a picture: how many ended when, and how long they took. It asks for groups of records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ...errors import QueryError
from ..pictures.history import HistoryPlot, Span, span_width
from .queries import Records
from .query_args import plain_count, plain_query

#: Spans of a picture, at most: each is one question or two.
MOST_SPANS = 400


def plot_history(
    records: Records, query: Mapping[str, Any] | None = None, *, by: str = "label", spans: int = 60
) -> HistoryPlot:
    """The history of tasks as a picture: how many ended when, and how long they took.

    Parameters
    ----------
    query : dict, optional
        Which tasks. Default: all. Only those that have ended are counted.
    by : str
        The key that gives the colours: "label", "function_name" (or "function"), "engine_id", "state", ….
    spans : int
        Into how many spans the time is divided, at most; up to 400. Their width is a round number.
    session : str or Client, optional
        Only tasks of this session: "mine", "last", an id, or a client. `Client` has this argument.

    Returns
    -------
    HistoryPlot
        A notebook shows it: above how many tasks ended per second, below the median of their durations, and up to
        where 95 % are. `save("….svg")` writes it to a file; `spans` has its numbers.

    Raises
    ------
    QueryError
        An unknown key or operator.
    """
    most = plain_count("spans", spans)
    if not most or most > MOST_SPANS:
        raise QueryError(f"spans is a whole number from 1 to {MOST_SPANS}, got {spans!r}")
    key = "function_name" if by == "function" else by
    asked = {} if query is None else plain_query(query)
    first, last = (_end_of(records, asked, way) for way in (1, -1))
    if first is None or last is None:
        return HistoryPlot([], {}, by, None)
    width = span_width(max((last - first).total_seconds(), 1e-3), most)
    any_failed = records.count(_and(asked, {"state": "failed"})) > 0
    found: list[Span] = []
    failed: dict[datetime, int] = {}
    place = math.floor(first.timestamp() / width)
    while place * width <= last.timestamp():
        begin, end = (datetime.fromtimestamp(round(edge * width, 6), UTC) for edge in (place, place + 1))
        place += 1
        within = _and(asked, {"completed": {"$gte": begin, "$lt": end}})
        groups = records.group(key, within, values="duration")
        for group in groups:
            name = None if group["key"] is None else str(group["key"])
            found.append(Span(begin, width, name, group["count"], group.get("p50"), group.get("p95")))
        if any_failed and groups and (count := records.count(_and(within, {"state": "failed"}))):
            failed[begin] = count
    return HistoryPlot(found, failed, by, (first, last))


def _end_of(records: Records, query: Mapping[str, Any], way: int) -> datetime | None:
    """When the first task that matches ended (way = 1), or the last (-1)."""
    ended = _and(query, {"completed": {"$ne": None}})
    found = records.find(ended, ["completed"], sort=[("completed", way)], limit=1)
    return found[0]["completed"] if found else None


def _and(query: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    return {"$and": [dict(query), dict(more)]} if query else dict(more)
