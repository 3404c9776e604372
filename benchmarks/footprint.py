"""What records weigh: bytes in the file, and the controller's memory over a long run.

The file: a million finished no-op tasks, as they are recorded; then the space that is left after all are purged. The
controller: its resident memory at the end, and by how much it grew over the second half of the tasks, 20,000 at a time
(over the first it comes to what so many at a time need); with SQLite, which keeps them all, with
`retention={"count": 10000}`, which does not, and without a database.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import psutil

import engineroom as er
from engineroom.stores import SQLiteDB

from .backends import committed, run
from .harness import Benchmark, Figures, Goal
from .ours import WORKERS
from .records import noops

MB = 1e6


def file(size: int) -> Figures:
    """A file of so many records."""
    with tempfile.TemporaryDirectory(prefix="engineroom-bench-") as folder:
        path = Path(folder) / "tasks.db"
        store = SQLiteDB(path, synchronous="OFF")
        for start in range(0, size, 10_000):
            store.write(noops(min(10_000, size - start)))
        full = path.stat().st_size
        store.drop_matching_records({})
        while store.give_back(64 << 20):
            pass
        empty = path.stat().st_size
        store.close()
        return {"file of these records": full / MB, "after they were purged": empty / MB}


def controller(size: int) -> Figures:
    return grows("controller", size)


def controller_with_retention(size: int) -> Figures:
    return grows("controller, at most 10,000 records", size, retention={"count": 10_000, "interval": 1})


def controller_without(size: int) -> Figures:
    return grows("controller, no database", size, database="none")


def grows(name: str, size: int, **options: Any) -> Figures:
    """The controller's memory in MB at the end, and by how much it grew over the second half of the tasks."""
    with (
        tempfile.TemporaryDirectory(prefix="engineroom-bench-") as folder,
        er.Cluster(n=WORKERS, profile_dir=folder, **options) as rc,
    ):
        view = rc.load_balanced_view()
        process = psutil.Process(rc.connection.pid)
        weights = []
        for _ in range(2):
            run(rc, view, size // 2)
            if rc.cluster.connection.database != "none":
                committed(rc)
            weights.append(process.memory_info().rss / MB)
            rc.purge_local_results("all")
        return {name: weights[1], f"{name}, grown by": weights[1] - weights[0]}


BENCHMARK = Benchmark(
    name="footprint",
    text=__doc__,
    unit="MB",
    size=1_000_000,
    quick_size=50_000,
    repeat=1,
    timeout=900.0,
    subjects=(file, controller, controller_with_retention, controller_without),
    goals=(
        Goal("file of these records", at_most=600),
        Goal("after they were purged", at_most=1),
        Goal("controller, grown by", at_most=20),
        Goal("controller, at most 10,000 records, grown by", at_most=20),
        Goal("controller, no database, grown by", at_most=20),
    ),
)
