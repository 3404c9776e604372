"""Latency: one no-op at a time, there and back.

`view.apply_sync(noop)`, a thousand in sequence, each recorded in SQLite: on a load-balanced view, and on a view of one
engine. Against `ProcessPoolExecutor.submit(noop).result()`, which records nothing, and against the least that three
Python processes can do: a client, a relay and a worker that pass a short message along over Unix sockets and send it
back. Processor time is that of one no-op, of all processes together, and of each kind of process.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from .harness import Benchmark, Figures, Goal
from .ours import WORKERS, cluster, noop

WARM_UP = 300


def engineroom(size: int) -> Figures:
    figures: Figures = {}
    with cluster() as rc:
        processes = {
            "client": [os.getpid()],
            "controller": [rc.connection.pid],
            "engines": rc[:].apply_sync(os.getpid),
        }
        for name, view in (("balanced", rc.load_balanced_view()), ("direct", rc[0])):
            figures |= _summary(name, lambda view=view: view.apply_sync(noop), size, processes)  # type: ignore[misc]
    return figures


def executor(size: int) -> Figures:
    with ProcessPoolExecutor(WORKERS) as pool:
        pool.submit(noop).result()
        processes = {"parent": [os.getpid()], "workers": list(pool._processes)}
        return _summary("executor", lambda: pool.submit(noop).result(), size, processes)


def relay(size: int) -> Figures:
    fork = get_context("fork")
    (client, front), (back, worker) = socket.socketpair(), socket.socketpair()
    children = [
        fork.Process(target=_relay, args=(front, back), daemon=True),
        fork.Process(target=_worker, args=(worker,), daemon=True),
    ]
    for child in children:
        child.start()

    def ask() -> None:
        client.send(b"a short message")
        client.recv(1000)

    pids = [os.getpid(), *(child.pid or 0 for child in children)]
    figures = _summary("relay", ask, size, {"processes": pids})
    for child in children:
        child.terminate()
        child.join()
    for end in (client, front, back, worker):
        end.close()
    return figures


def _relay(front: socket.socket, back: socket.socket) -> None:
    while True:
        back.send(front.recv(1000))
        front.send(back.recv(1000))


def _worker(end: socket.socket) -> None:
    while True:
        end.send(end.recv(1000))


def _summary(who: str, ask: Callable[[], object], size: int, processes: Mapping[str, Sequence[int]]) -> Figures:
    for _ in range(WARM_UP):
        ask()
    times = []
    before = {name: _processor_time(pids) for name, pids in processes.items()}
    for _ in range(size):
        began = time.perf_counter()
        ask()
        times.append((time.perf_counter() - began) * 1e6)
    used = {name: (_processor_time(pids) - before[name]) / size for name, pids in processes.items()}
    figures = {f"{who}, median": statistics.median(times), f"{who}, p99": statistics.quantiles(times, n=100)[98]}
    figures[f"{who}, processor time"] = sum(used.values())
    if len(used) > 1:
        figures |= {f"{who}, processor time: {name}": value for name, value in used.items()}
    return figures


def _processor_time(pids: Sequence[int]) -> float:
    """Microseconds that these processes have run, all their threads together."""
    threads = [path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(path.read_text().split()[0]) for path in threads) / 1e3


BENCHMARK = Benchmark(
    name="latency",
    text=__doc__,
    unit="µs",
    size=1_000,
    quick_size=300,
    repeat=5,
    subjects=(engineroom, executor, relay),
    goals=(
        Goal("balanced, median", "executor, median", at_most=1.0),
        Goal("direct, median", "executor, median", at_most=1.0),
        Goal("balanced, processor time", "executor, processor time", at_most=1.2),
        Goal("direct, processor time", "executor, processor time", at_most=1.2),
        Goal("balanced, p99", "balanced, median", at_most=3.0),
        Goal("direct, p99", "direct, median", at_most=3.0),
        Goal("balanced, median", "relay, median"),
        Goal("executor, median", "relay, median"),
    ),
)
