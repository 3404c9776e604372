"""Tasks per second with each database, against none.

No-op tasks one by one through the whole system (client, controller, engines, store), each with its own result and its
own record, until the last record is committed; the same process and cluster for each database. MongoDB is the server
that `$MONGODB_URI` names, or FerretDB with SQLite in it (`make mongodb`), on this machine too: it shares the processors
with everything else. FerretDB takes 100 µs to insert a document, and reads the whole collection for each update; so it
is asked for a sixtieth of the tasks.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import engineroom as er

from .harness import ROOT, Benchmark, Figures, Goal
from .ours import WORKERS, noop

SUBMITTED = 20_000  #: at a time, so that what waits does not grow with the size


def measure(database: str, size: int) -> float:
    """Tasks per second, their records included."""
    with (
        tempfile.TemporaryDirectory(prefix="engineroom-bench-") as folder,
        er.Cluster(n=WORKERS, profile_dir=folder, database=database) as rc,
    ):
        view = rc.load_balanced_view()
        run(rc, view, min(size, 2000), database)
        began = time.perf_counter()
        run(rc, view, size, database)
        return size / (time.perf_counter() - began)


def run(rc: er.Client, view: er.LoadBalancedView, size: int, database: str) -> None:
    """So many tasks, and the commit of the last one."""
    for start in range(0, size, SUBMITTED):
        results = [view.apply_async(noop) for _ in range(min(SUBMITTED, size - start))]
        rc.wait(results)
    if database != "none":
        rc.db_query({"msg_id": results[-1].msg_ids[0]}, "state")  # an answer comes after the commit


def nodb(size: int) -> Figures:
    return {"NoDB": measure("none", size)}


def sqlite(size: int) -> Figures:
    return {"SQLiteDB": measure("sqlite", size)}


def dictdb(size: int) -> Figures:
    return {"DictDB": measure("memory", size)}


def mongodb(size: int) -> Figures:
    with server() as url:
        return {"MongoDB": measure(f"{url.rstrip('/')}/bench", max(500, size // 60))}


@contextmanager
def server() -> Iterator[str]:
    """A MongoDB-protocol server."""
    given = os.environ.get("MONGODB_URI")
    if given:
        yield given
        return
    support = _support()
    problem = support.build()
    if problem:
        raise RuntimeError(f"no MongoDB-protocol server: {problem}")
    with tempfile.TemporaryDirectory(prefix="engineroom-bench-") as folder:
        ferret = support.Server(Path(folder) / "ferretdb")
        try:
            yield ferret.url
        finally:
            ferret.stop()


def _support() -> ModuleType:
    """The tests' helper that builds and runs FerretDB."""
    spec = importlib.util.spec_from_file_location("mongodb", ROOT / "tests" / "support" / "mongodb.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BENCHMARK = Benchmark(
    name="backends",
    text=__doc__,
    unit="tasks/s",
    size=60_000,
    quick_size=6_000,
    repeat=5,
    subjects=(nodb, sqlite, dictdb, mongodb),
    goals=(
        Goal("SQLiteDB", "NoDB", at_least=0.9),
        Goal("DictDB", "NoDB", at_least=0.95),
        Goal("MongoDB", "NoDB", at_least=0.5),
    ),
)
