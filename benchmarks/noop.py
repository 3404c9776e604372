"""Throughput: no-op tasks, each with its own future and its own record.

`view.apply_async(noop)` in a loop, then `.get()` on every result: what a tracked task costs. Against
`ProcessPoolExecutor.submit` with a future per task, and against `Pool.imap_unordered(chunksize=1)`, which
tracks and records nothing. The same with records in memory and with no database shows what recording costs;
"on disk" counts until a query finds every task completed in SQLite. A burst takes less than a second, so each figure
is the median of three.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import Pool

from .harness import Benchmark, Figures, Goal
from .ours import WORKERS, cluster, noop, same

SQLITE, ON_DISK = "engineroom, SQLite", "engineroom, SQLite, on disk"
MEMORY, NONE = "engineroom, memory", "engineroom, no database"
BURSTS = 3
EXECUTOR, POOL = "ProcessPoolExecutor", "multiprocessing.Pool.imap_unordered"


def sqlite(size: int) -> Figures:
    with cluster("sqlite") as rc:
        view = rc.load_balanced_view()

        def on_disk(size: int) -> None:
            last = _through(view, size)
            while not rc.db_query({"msg_id": last, "state": "completed"}, keys=["msg_id"]):
                time.sleep(0.001)
            while len(rc.db_query({"state": "pending"}, keys=["msg_id"])):
                time.sleep(0.001)

        return {SQLITE: _rate(partial(_through, view), size), ON_DISK: _rate(on_disk, size)}


def memory(size: int) -> Figures:
    return {MEMORY: _ours("memory", size)}


def none(size: int) -> Figures:
    return {NONE: _ours("none", size)}


def _ours(database: str, size: int) -> float:
    with cluster(database) as rc:
        return _rate(partial(_through, rc.load_balanced_view()), size)


def _rate(burst: Callable[[int], object], size: int) -> float:
    """Tasks per second: the median of some bursts, after a short one to warm up."""
    burst(size // 20)
    rates = []
    for _ in range(BURSTS):
        began = time.perf_counter()
        burst(size)
        rates.append(size / (time.perf_counter() - began))
    return statistics.median(rates)


def _through(view, size: int) -> str:
    """Run `size` tasks to the end; the id of the last."""
    results = [view.apply_async(noop) for _ in range(size)]
    for result in results:
        result.get()
    return results[-1].msg_ids[0]


def executor(size: int) -> Figures:
    with ProcessPoolExecutor(WORKERS) as pool:

        def burst(size: int) -> None:
            for future in [pool.submit(noop) for _ in range(size)]:
                future.result()

        return {EXECUTOR: _rate(burst, size)}


def pool(size: int) -> Figures:
    with Pool(WORKERS) as workers:

        def burst(size: int) -> None:
            for _ in workers.imap_unordered(same, range(size), chunksize=1):
                pass

        return {POOL: _rate(burst, size)}


BENCHMARK = Benchmark(
    name="noop",
    text=__doc__,
    unit="tasks/s",
    size=50_000,
    quick_size=5_000,
    repeat=5,
    subjects=(sqlite, executor, pool, none, memory),
    goals=(
        Goal(SQLITE, EXECUTOR, at_least=3),
        Goal(SQLITE, POOL, at_least=0.9),
        Goal(SQLITE, NONE, at_least=0.9),
        Goal(SQLITE, MEMORY),
        Goal(ON_DISK, EXECUTOR),
    ),
)
