"""What large data costs besides time: how many copies there are, and what each of many tasks pays for a large argument.

The same 100 MB pushed to eight engines, each of which reads all of it: the memory of the engines (PSS: shared pages are
divided among those who have them) in copies of the data. An object of 1 GB as argument of 200 tasks of one call: what
each task but the first takes longer than with a small argument. 5 GB of new data through the controller, 100 MB at a
time: by how much its resident memory grows at most.
"""

from __future__ import annotations

import time
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import engineroom as er

from .harness import Benchmark, Figures, Goal
from .ours import cluster

MB = 10**6
ENGINES = 8
TASKS = 200
PIECE = 100

COPIES = f"copies in {ENGINES} engines"
OVERHEAD = f"ms a task more, 1 GB in {TASKS} tasks"
GROWN = "MB that the controller grows by, while 5 GB pass"


def copies(size: int) -> Figures:
    with cluster(n=ENGINES) as rc:
        view = rc[:]
        before = sum(view.apply_sync(_pss))
        nbytes = PIECE * MB * size // 1000
        view.push({"a": np.random.default_rng().random(nbytes // 8)}, block=True)
        view.apply_sync(float_sum, er.Reference("a"))
        return {COPIES: (sum(view.apply_sync(_pss)) - before) / nbytes}


def overhead(size: int) -> Figures:
    with cluster() as rc:
        view = rc.load_balanced_view()
        large = np.zeros(size * MB // 8)
        small = np.zeros(8)
        _seconds(view, small, TASKS)
        _seconds(view, large, 1)
        once = _seconds(view, large, 1)  # into warm pages: the copy that is made once for all tasks
        more = _seconds(view, large, TASKS) - once - (_seconds(view, small, TASKS) - _seconds(view, small, 1))
        return {OVERHEAD: more / (TASKS - 1) * 1000}


def grown(size: int) -> Figures:
    with cluster() as rc:
        controller = psutil.Process(rc.connection.pid)
        rc[:].push({"a": np.zeros(PIECE * MB // 8)}, block=True)
        before = most = controller.memory_info().rss
        for _ in range(5 * size // PIECE):
            rc[:].push({"a": np.random.default_rng().random(PIECE * MB // 8)}, block=True)
            most = max(most, controller.memory_info().rss)
        return {GROWN: (most - before) / MB}


def float_sum(values: Any) -> float:
    return float(values.sum())


def first(values: Any, index: int) -> float:
    return float(values[index % 8])


def _pss() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("the kernel does not say")


def _seconds(view: Any, value: Any, tasks: int) -> float:
    began = time.perf_counter()
    view.map_sync(first, repeat(value, tasks), range(tasks), chunksize=1)
    return time.perf_counter() - began


BENCHMARK = Benchmark(
    name="data_copies",
    text=__doc__,
    unit="",
    size=1000,
    quick_size=100,
    subjects=(copies, overhead, grown),
    goals=(Goal(COPIES, at_most=1.2), Goal(OVERHEAD, at_most=1), Goal(GROWN, at_most=10)),
    repeat=1,
    timeout=600.0,
)
