"""Whether the times at which the nodes of a graph ran agree with its edges. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...messages import TaskDone

#: node → the engine's report; None: there is none
Reports = Mapping[Any, TaskDone | None]


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
