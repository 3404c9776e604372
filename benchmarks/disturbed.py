"""Throughput while the database is asked, and while it forgets: a million records are there already.

No-op tasks as in the first table, recorded in SQLite. "With queries": another client asks twenty times a second for
something that has an index (an id, the newest hundred, those that failed, a tenth of a second of history), and every
five seconds for something that has none, which reads every record. "With retention": there is a limit on the number of
records that is reached already, so each new one drives an old one out.

Two clusters take turns, one asked and one that forgets; each figure is the median of the turns.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import engineroom as er

from .backends import committed, run
from .harness import ROOT, Benchmark, Figures, Goal
from .ours import WORKERS
from .records import BEGAN, fill, id_of

TURNS = 5
AT_ONCE = 40_000  #: tasks in a turn
ASKED_EVERY, SCANNED_EVERY = 0.05, 5.0
CALM, ASKED, RETAINING = "undisturbed", "with queries", "with retention"


def disturbed(size: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="engineroom-bench-") as folder:
        calm, retaining = Path(folder) / "calm", Path(folder) / "retaining"
        for place in (calm, retaining):
            place.mkdir()
            fill(place / "tasks.db", size)
        limit = {"count": size, "interval": 1}
        with (
            er.Cluster(n=WORKERS, profile_dir=calm) as quiet,
            er.Cluster(n=WORKERS, profile_dir=retaining, retention=limit) as forgetting,
        ):
            rates: dict[str, list[float]] = {CALM: [], ASKED: [], RETAINING: []}
            for _ in range(TURNS):
                rates[CALM].append(rate(quiet))
                with questions(quiet, size):
                    rates[ASKED].append(rate(quiet))
                rates[RETAINING].append(rate(forgetting))
                while forgetting.db_count({}) > size:
                    time.sleep(0.1)
            return {name: statistics.median(found) for name, found in rates.items()}


def rate(rc: er.Client) -> float:
    """Tasks per second, recorded; as many before are not counted, though records have to go for them meanwhile."""
    view = rc.load_balanced_view()
    run(rc, view, AT_ONCE)
    committed(rc)
    began = time.perf_counter()
    run(rc, view, AT_ONCE)
    committed(rc)
    return AT_ONCE / (time.perf_counter() - began)


@contextmanager
def questions(rc: er.Client, size: int) -> Iterator[None]:
    """Another process that asks, until the end of the block."""
    command = [sys.executable, "-m", "benchmarks.disturbed", rc.cluster.profile_dir, rc.cluster.cluster_id, str(size)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asker:
        assert asker.stdout is not None
        assert asker.stdin is not None
        assert asker.stdout.readline() == "asking\n"
        yield
        asker.stdin.close()


def ask(profile_dir: str, cluster_id: str, size: int) -> None:
    """Put questions to a cluster until somebody closes our input."""
    import select

    at = datetime.fromtimestamp(BEGAN + size / 2000, UTC)
    later = datetime.fromtimestamp(BEGAN + size / 2000 + 0.1, UTC)
    indexed: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"msg_id": id_of(size // 2)}, {}),
        ({"state": "completed"}, {"sort": [("submitted", -1)], "limit": 100}),
        ({"state": "failed"}, {"limit": 100}),
        ({"submitted": {"$gte": at, "$lt": later}}, {}),
    ]
    with er.Client(profile_dir=profile_dir, cluster_id=cluster_id) as rc:
        print("asking", flush=True)
        scan_at = 0.0
        for query, more in itertools.cycle(indexed):
            if select.select([sys.stdin], [], [], ASKED_EVERY)[0]:
                return
            rc.db_query(query, **more)
            if time.monotonic() >= scan_at:
                scan_at = time.monotonic() + SCANNED_EVERY
                rc.db_query({"result_content.ename": "MemoryError"}, "msg_id")


BENCHMARK = Benchmark(
    name="disturbed",
    text=__doc__,
    unit="tasks/s",
    size=1_000_000,
    quick_size=20_000,
    repeat=1,
    timeout=900.0,
    subjects=(disturbed,),
    goals=(Goal(ASKED, CALM, at_least=0.8), Goal(RETAINING, CALM, at_least=0.8)),
)

if __name__ == "__main__":
    ask(*sys.argv[1:3], int(sys.argv[3]))
