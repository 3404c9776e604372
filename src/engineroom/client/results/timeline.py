"""When and where the nodes of a graph ran, from the engines' reports; and whether that agrees with the edges. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ...messages import TaskDone
from .metadata import instant

#: node → the engine's report; None: there is none
Reports = Mapping[Any, TaskDone | None]


class Ran(NamedTuple):
    """Where and when a node ran. None: it did not run, because one of its predecessors failed."""

    node: Any
    engine: int | None
    started: datetime | None
    completed: datetime | None


def timeline_of(reports: Reports) -> list[Ran]:
    """Where and when each node ran, sorted by start; nodes that did not run come last."""
    rows = []
    for node, done in reports.items():
        if done is None or done.started is None:
            rows.append(Ran(node, None, None, None))
        else:
            rows.append(Ran(node, done.engine, instant(done.started), instant(done.completed)))
    return sorted(rows, key=lambda row: (row.started is None, row.started and row.started.timestamp()))


def check_order(reports: Reports, predecessors: Mapping[Any, Sequence[Any]]) -> int:
    """Compare the times with the edges; returns how many edges were compared.

    Raises
    ------
    AssertionError
        A task began before its predecessor had ended; the message names the edge.
    """
    compared = 0
    for node, done in reports.items():
        if done is None or done.started is None:
            continue
        for before in predecessors[node]:
            first = reports[before]
            compared += 1
            if first is None or first.started is None:
                raise AssertionError(f"{before} → {node}: {node} ran, and {before} did not")
            if done.started < first.completed:
                early = first.completed - done.started
                raise AssertionError(f"{before} → {node}: {node} began {early:.6f} s before {before} had ended")
    return compared
