"""Latency: one no-op at a time, there and back.

`view.apply_sync(noop)` on a load-balanced view, a thousand in sequence, each recorded in SQLite. Against the
least that three Python processes can do: a client, a relay and a worker that pass a short message along over
ZeroMQ (ipc) and send it back.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import zmq

from .harness import Benchmark, Figures, Goal
from .ours import cluster, noop

WARM_UP = 200


def engineroom(size: int) -> Figures:
    with cluster() as rc:
        view = rc.load_balanced_view()
        return _summary("engineroom", lambda: view.apply_sync(noop), size)


def relay(size: int) -> Figures:
    fork = get_context("fork")  # before any ZeroMQ context exists here
    with tempfile.TemporaryDirectory() as folder:
        front, back = (f"ipc://{Path(folder) / name}" for name in ("front", "back"))
        processes = [
            fork.Process(target=_relay, args=(front, back), daemon=True),
            fork.Process(target=_worker, args=(back,), daemon=True),
        ]
        for process in processes:
            process.start()
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.connect(front)

            def ask() -> None:
                socket.send(b"a short message")
                socket.recv()

            figures = _summary("ZeroMQ relay", ask, size)
        for process in processes:
            process.terminate()
            process.join()
        return figures


def _relay(front: str, back: str) -> None:
    context = zmq.Context()
    clients, workers = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    clients.bind(front)
    workers.bind(back)
    poller = zmq.Poller()
    poller.register(clients, zmq.POLLIN)
    poller.register(workers, zmq.POLLIN)
    other = {clients: workers, workers: clients}
    while True:
        for socket, _ in poller.poll():
            other[socket].send_multipart(socket.recv_multipart())


def _worker(back: str) -> None:
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(back)
    while True:
        socket.send_multipart(socket.recv_multipart())


def _summary(who: str, ask: Callable[[], object], size: int) -> Figures:
    for _ in range(WARM_UP):
        ask()
    times = []
    for _ in range(size):
        began = time.perf_counter()
        ask()
        times.append((time.perf_counter() - began) * 1e6)
    return {f"{who}, median": statistics.median(times), f"{who}, p99": statistics.quantiles(times, n=100)[98]}


BENCHMARK = Benchmark(
    name="latency",
    text=__doc__,
    unit="µs",
    size=1_000,
    quick_size=200,
    repeat=5,
    subjects=(engineroom, relay),
    goals=(
        Goal("engineroom, median", "ZeroMQ relay, median", at_most=1.6),
        Goal("engineroom, p99", "ZeroMQ relay, p99"),
    ),
)
