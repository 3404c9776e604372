"""Throughput: no-op tasks, each with its own future and its own record.

`view.apply_async(noop)` in a loop, then `.get()` on every result: what a tracked task costs. Against
`ProcessPoolExecutor.submit` with a future per task, and against `Pool.imap_unordered(chunksize=1)`, which
tracks and records nothing. The same with records in memory and with no database shows what recording costs;
"on disk" counts until a query finds every task completed in SQLite.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pool

from .harness import Benchmark, Figures, Goal
from .ours import WORKERS, cluster, noop, same

SQLITE, ON_DISK = "engineroom, SQLite", "engineroom, SQLite, on disk"
MEMORY, NONE = "engineroom, memory", "engineroom, no database"
EXECUTOR, POOL = "ProcessPoolExecutor", "multiprocessing.Pool.imap_unordered"


def sqlite(size: int) -> Figures:
    with cluster("sqlite") as rc:
        view = rc.load_balanced_view()
        _through(view, size // 20)
        began = time.perf_counter()
        last = _through(view, size)
        done = time.perf_counter()
        while not rc.db_query({"msg_id": last, "state": "completed"}, keys=["msg_id"]):
            time.sleep(0.001)
        while len(rc.db_query({"state": "pending"}, keys=["msg_id"])):
            time.sleep(0.001)
        return {SQLITE: size / (done - began), ON_DISK: size / (time.perf_counter() - began)}


def memory(size: int) -> Figures:
    return {MEMORY: _rate("memory", size)}


def none(size: int) -> Figures:
    return {NONE: _rate("none", size)}


def _rate(database: str, size: int) -> float:
    with cluster(database) as rc:
        view = rc.load_balanced_view()
        _through(view, size // 20)
        began = time.perf_counter()
        _through(view, size)
        return size / (time.perf_counter() - began)


def _through(view, size: int) -> str:
    """Run `size` tasks to the end; the id of the last."""
    results = [view.apply_async(noop) for _ in range(size)]
    for result in results:
        result.get()
    return results[-1].msg_ids[0]


def executor(size: int) -> Figures:
    with ProcessPoolExecutor(WORKERS) as pool:
        for future in [pool.submit(noop) for _ in range(size // 20)]:
            future.result()
        began = time.perf_counter()
        for future in [pool.submit(noop) for _ in range(size)]:
            future.result()
        return {EXECUTOR: size / (time.perf_counter() - began)}


def pool(size: int) -> Figures:
    with Pool(WORKERS) as workers:
        for _ in workers.imap_unordered(same, range(size // 20), chunksize=1):
            pass
        began = time.perf_counter()
        for _ in workers.imap_unordered(same, range(size), chunksize=1):
            pass
        return {POOL: size / (time.perf_counter() - began)}


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
