"""Makespan: how much later than ideal are uneven tasks done?

3,000 tasks of 1 ms and 6 of 1 s, shuffled, then 10,000 of 1 ms alone, each a task of its own on two engines. The
ideal gives each task, in the order of submission, to the engine that is free first, and loses no time in between;
it is computed from the run times as recorded, because a sleep of 1 ms takes what the machine makes of it.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from random import Random

from .harness import Benchmark, Figures, Goal
from .ours import cluster

ENGINES = 2
SHORT, LONG = 0.001, 1.0


def engineroom(size: int) -> Figures:
    mixed = [SHORT] * (3 * size // 10) + [LONG] * max(1, 6 * size // 10_000)
    Random(3).shuffle(mixed)
    with cluster() as rc:
        view = rc.load_balanced_view()
        rc.wait([view.apply_async(time.sleep, SHORT) for _ in range(200)])
        figures: Figures = {}
        for name, seconds in (("mixed", mixed), ("short", [SHORT] * size)):
            began = time.perf_counter()
            results = [view.apply_async(time.sleep, s) for s in seconds]
            rc.wait(results)
            figures[f"engineroom, {name}"] = time.perf_counter() - began
            spent = [(r.completed - r.started).total_seconds() for r in results]
            figures[f"ideal, {name}"] = list_schedule(spent, ENGINES)
        return figures


def list_schedule(seconds: Sequence[float], engines: int) -> float:
    """When the last task ends, if each goes to the engine that is free first."""
    free = [0.0] * engines
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


BENCHMARK = Benchmark(
    name="makespan",
    text=__doc__,
    unit="s",
    size=10_000,
    quick_size=1_000,
    repeat=5,
    subjects=(engineroom,),
    goals=(
        Goal("engineroom, mixed", "ideal, mixed", at_most=1.05),
        Goal("engineroom, short", "ideal, short"),
    ),
)
