"""Memory: what a queued task weighs.

Both engines are busy with a long task while 100,000 no-ops queue up behind: growth of resident memory in
the controller and in the client, per task. `ProcessPoolExecutor`, where one process plays both parts, is
asked the same.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Event

import psutil

from .harness import Benchmark, Figures, Goal
from .ours import WORKERS, cluster, noop

LONG = 600.0  # seconds; the cluster is stopped long before


def engineroom(size: int) -> Figures:
    with cluster() as rc:
        client, controller = psutil.Process(), psutil.Process(rc.connection.pid)
        view = rc.load_balanced_view()
        for result in [view.apply_async(noop) for _ in range(size // 20)]:
            result.get()
        rc[:].apply_async(time.sleep, LONG)
        before = [_settled(controller), _settled(client)]
        results = [view.apply_async(noop) for _ in range(size)]
        while _queued(rc) < size:
            time.sleep(0.05)
        after = [_settled(controller), _settled(client)]
        assert not any(result.done() for result in results)
        return {who: (b - a) / size / 1024 for who, a, b in zip(("controller", "client"), before, after, strict=True)}


def _queued(rc) -> int:
    """Tasks the controller knows of that wait or run."""
    status = rc.queue_status()
    unassigned = status.pop("unassigned")
    return unassigned + sum(engine["queue"] + engine["tasks"] for engine in status.values())


def _settled(process: psutil.Process) -> int:
    """Resident memory once it has stopped changing."""
    last, deadline = 0, time.monotonic() + 10
    while time.monotonic() < deadline:
        now = process.memory_info().rss
        if abs(now - last) < 1 << 18:
            break
        last = now
        time.sleep(0.3)
    return process.memory_info().rss


_go_on = Event()


def _wait() -> None:
    """Keep a worker of the reference busy: it inherited the event by fork."""
    _go_on.wait()


def executor(size: int) -> Figures:
    with ProcessPoolExecutor(WORKERS) as pool:
        for future in [pool.submit(noop) for _ in range(size // 20)]:
            future.result()
        for _ in range(WORKERS * 2):
            pool.submit(_wait)
        process = psutil.Process()
        before = _settled(process)
        futures = [pool.submit(noop) for _ in range(size)]
        after = _settled(process)
        assert not any(future.done() for future in futures)
        for future in futures:
            future.cancel()
        _go_on.set()
        return {"ProcessPoolExecutor": (after - before) / size / 1024}


BENCHMARK = Benchmark(
    name="memory",
    text=__doc__,
    unit="KiB",
    size=100_000,
    quick_size=20_000,
    subjects=(engineroom, executor),
    goals=(
        Goal("controller", at_most=1),
        Goal("client", at_most=2),
        Goal("client", "ProcessPoolExecutor"),
    ),
)
