"""What records weigh: bytes in the file, and the controller's memory over a long run.

The file: a million finished no-op tasks, as they are recorded; then the space that is left after all are purged. The
controller: its resident memory at the end, and by how much it grew over the second half of the tasks, 20,000 at a time
(over the first it comes to what so many at a time need); with SQLite, which keeps them all, with
`retention={"count": 10000}`, which does not, and without a database.

Load: tasks are submitted without waiting for any, faster than the database takes them: by how much the controller grows
at most, and how long a question of another client takes. `map_async` over 300 items of 1 MB: the same two processes'
growth. A client's history: how long a full garbage collection takes after so many tasks.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

import engineroom as er
from engineroom.stores import SQLiteDB

from .backends import committed, run
from .harness import Benchmark, Figures, Goal
from .ours import WORKERS, noop
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


def flood(size: int) -> Figures:
    """Tasks come faster than they are recorded."""
    with tempfile.TemporaryDirectory(prefix="engineroom-bench-") as folder, cluster_in(folder) as rc:
        view, controller = rc.load_balanced_view(), psutil.Process(rc.connection.pid)
        view.apply_sync(noop)
        before = most = controller.memory_info().rss
        asked: list[float] = []
        with er.Client(rc.connection) as other:
            for _ in range(5):
                for _ in range(size // 5):
                    view.apply_async(noop)
                begin = time.perf_counter()
                other.queue_status()
                other.db_count({"state": "failed"})
                asked.append(time.perf_counter() - begin)
                most = max(most, controller.memory_info().rss)
        rc.abort()
        return {"controller, flooded, grown by": (most - before) / MB, "a question meanwhile (s)": max(asked)}


def large_map(size: int) -> Figures:
    """300 items of 1 MB, while the engines are busy."""
    with tempfile.TemporaryDirectory(prefix="engineroom-bench-") as folder, cluster_in(folder) as rc:
        view, client, controller = rc.load_balanced_view(), psutil.Process(), psutil.Process(rc.connection.pid)
        rc[:].apply_async(time.sleep, 600)
        items = [bytes([n % 256]) * 1_000_000 for n in range(300)]
        before = [process.memory_info().rss for process in (client, controller)]
        result = view.map_async(len, items)
        _until(lambda: rc.db_count({"msg_id": {"$in": result.msg_ids}}) == len(items))
        time.sleep(2)  # until memory is given back
        after = [process.memory_info().rss for process in (client, controller)]
        rc.cancel()
        names = ("client, map of 300 MB, grown by", "controller, map of 300 MB, grown by")
        return {name: (b - a) / MB for name, a, b in zip(names, before, after, strict=True)}


def history(size: int) -> Figures:
    """What the history of a client costs its garbage collections."""
    with tempfile.TemporaryDirectory(prefix="engineroom-bench-") as folder, cluster_in(folder) as rc:
        view = rc.load_balanced_view()
        for _ in range(10):
            for result in [view.apply_async(noop) for _ in range(size // 10)]:
                result.wait()
        del result
        gc.collect()
        begin = time.process_time()
        gc.collect()
        return {"full garbage collection (ms)": (time.process_time() - begin) * 1000}


def cluster_in(folder: str) -> er.Cluster:
    return er.Cluster(n=WORKERS, profile_dir=folder)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


BENCHMARK = Benchmark(
    name="footprint",
    text=__doc__,
    unit="MB",
    size=1_000_000,
    quick_size=50_000,
    repeat=1,
    timeout=900.0,
    subjects=(file, controller, controller_with_retention, controller_without, flood, large_map, history),
    goals=(
        Goal("file of these records", at_most=600),
        Goal("after they were purged", at_most=1),
        Goal("controller, grown by", at_most=20),
        Goal("controller, at most 10,000 records, grown by", at_most=20),
        Goal("controller, no database, grown by", at_most=20),
        Goal("controller, flooded, grown by", at_most=250),
        Goal("a question meanwhile (s)", at_most=3),
        Goal("controller, map of 300 MB, grown by", at_most=150),
        Goal("full garbage collection (ms)", at_most=30),
    ),
)
