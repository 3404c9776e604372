"""Tasks per second with each database, against none.

No-op tasks one by one through the whole system (client, controller, engines, store), each with its own result and its
own record. The first figure of a database is until the client has every result: results do not wait for the database,
but it takes its share of the processors. "Recorded" is until the last record is committed, which a query waits for.

MongoDB is the server that `$MONGODB_URI` names, or FerretDB with SQLite in it (`make mongodb`), on this machine too.
FerretDB needs 150 to 300 µs of processor time for a document, so its records come long after the results: "bare
inserts" is what it does with the same documents from one thread that does nothing else.
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
from .ours import cluster, noop

SUBMITTED = 20_000  #: at a time, so that what waits does not grow with the size


def measure(name: str, database: str, size: int) -> Figures:
    """Tasks per second: until the last result, and until the last record."""
    with cluster(database) as rc:
        view = rc.load_balanced_view()
        records = database != "none"
        run(rc, view, min(size, 2000))
        if records:
            committed(rc)
        began = time.perf_counter()
        run(rc, view, size)
        answered = time.perf_counter() - began
        if not records:
            return {name: size / answered}
        committed(rc)
        return {name: size / answered, f"{name}, recorded": size / (time.perf_counter() - began)}


def run(rc: er.Client, view: er.LoadBalancedView, size: int) -> None:
    for start in range(0, size, SUBMITTED):
        for result in [view.apply_async(noop) for _ in range(min(SUBMITTED, size - start))]:
            result.get()


def committed(rc: er.Client) -> None:
    """Wait until all there is has been recorded: an answer comes after the commit."""
    rc.db_query({"msg_id": "none has this id"}, "state")


def nodb(size: int) -> Figures:
    return measure("NoDB", "none", size)


def sqlite(size: int) -> Figures:
    return measure("SQLiteDB", "sqlite", size)


def dictdb(size: int) -> Figures:
    return measure("DictDB", "memory", size)


def mongodb(size: int) -> Figures:
    with server() as url:
        found = measure("MongoDB", f"{url.rstrip('/')}/bench", size)
        return found | {"MongoDB, bare inserts": inserts(url, min(size, 10_000))}


def inserts(url: str, size: int) -> float:
    """Documents per second into a collection with the same indexes, a thousand in a message, nobody else about."""
    import pymongo

    with pymongo.MongoClient(url) as client:
        tasks = client.bench.tasks
        documents = list(tasks.find({}, limit=size))
        other = client.bench.other
        for index in tasks.list_indexes():
            other.create_index(list(index["key"].items()))
        began = time.perf_counter()
        for start in range(0, len(documents), 1000):
            other.insert_many(documents[start : start + 1000], ordered=False)
        return len(documents) / (time.perf_counter() - began)


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
        Goal("SQLiteDB, recorded", "NoDB"),
        Goal("DictDB, recorded", "NoDB"),
        Goal("MongoDB, recorded", "MongoDB, bare inserts"),
    ),
)
