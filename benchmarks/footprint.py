"""What records weigh: bytes in the file, and the controller's memory over a long run.

The file: a million finished no-op tasks, as they are recorded; then the space that is left after all are purged. The
controller: its resident memory after a fifth of the tasks, and by how much it has grown at the end; with SQLite, which
keeps them all, and with `retention={"count": 10000}`, which does not.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

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
    return {"controller grows by": grows(size, {})}


def controller_with_retention(size: int) -> Figures:
    return {"… with a limit of 10,000 records": grows(size, {"count": 10_000, "interval": 1})}


def grows(size: int, retention: dict[str, float]) -> float:
    """By how many MB the controller's memory grows from a fifth of the tasks to all of them."""
    with (
        tempfile.TemporaryDirectory(prefix="engineroom-bench-") as folder,
        er.Cluster(n=WORKERS, profile_dir=folder, retention=retention) as rc,
    ):
        view = rc.load_balanced_view()
        process = psutil.Process(rc.connection.pid)
        run(rc, view, size // 5)
        committed(rc)
        before = process.memory_info().rss
        rc.purge_local_results("all")
        run(rc, view, size - size // 5)
        committed(rc)
        return (process.memory_info().rss - before) / MB


BENCHMARK = Benchmark(
    name="footprint",
    text=__doc__,
    unit="MB",
    size=1_000_000,
    quick_size=50_000,
    repeat=1,
    timeout=900.0,
    subjects=(file, controller, controller_with_retention),
    goals=(
        Goal("file of these records", at_most=600),
        Goal("after they were purged", at_most=1),
        Goal("controller grows by", at_most=20),
        Goal("… with a limit of 10,000 records", at_most=20),
    ),
)
