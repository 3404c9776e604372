"""Data: 100 MB at a time, on one host.

A numpy array of new numbers every round, so that nothing can be remembered. It is pushed to one engine, to two and to
eight; sent to one and returned; scattered over two engines and gathered. MB/s counts the array once, there and back
twice. Against `ProcessPoolExecutor`, which pickles through a pipe, `joblib`, whose workers map a file (where it is
installed), and the raw limits: 100 MB copied into a fresh memfd that another process maps; into pages that both have
mapped all the time; and through a Unix socket. Each round begins when what came before is recorded. "Without a pause"
eight arrays are pushed to one engine one after the other, until all are recorded, beside eight files on the disk.
"""

from __future__ import annotations

import functools
import mmap
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .harness import Benchmark, Figures, Goal
from .ours import WORKERS, cluster, same

ROUNDS = 7
MB = 10**6
MANY = 8

TO_ONE = "engineroom, to one engine"
BACK = "engineroom, there and back"
LASTING = "engineroom, to one engine, without a pause"
TO_TWO = "engineroom, to two engines"
TO_MANY = f"engineroom, to {MANY} engines"
SCATTER, GATHER = "engineroom, scattered over two", "engineroom, gathered from two"
FRESH = "raw: a fresh memfd, handed over and mapped"
WARM = "raw: pages that both have mapped"
SOCKET = "raw: a Unix socket"
FILES = "raw: files on the disk, without a pause"


def engineroom(size: int) -> Figures:
    with cluster() as rc:
        one, both = rc[0], rc[:]

        def recorded(array: np.ndarray) -> None:
            _wait_until_recorded(rc)

        def scattered(array: np.ndarray) -> None:
            both.scatter("a", array, block=True)
            _wait_until_recorded(rc)

        return {
            TO_ONE: _rate(lambda array: one.push({"a": array}, block=True), size, recorded),
            BACK: 2 * _rate(lambda array: one.apply_sync(same, array), size, recorded),
            TO_TWO: _rate(lambda array: both.push({"a": array}, block=True), size, recorded),
            SCATTER: _rate(lambda array: both.scatter("a", array, block=True), size, recorded),
            GATHER: _rate(lambda array: both.gather("a", block=True), size, scattered),
            LASTING: _lasting_rate(rc, size),
        }


def engineroom_with_many(size: int) -> Figures:
    with cluster(n=MANY) as rc:
        return {
            TO_MANY: _rate(
                lambda array: rc[:].push({"a": array}, block=True), size, lambda array: _wait_until_recorded(rc)
            )
        }


def _wait_until_recorded(rc: Any) -> None:
    while not rc._channel.is_all_accepted:
        time.sleep(0.001)


def _lasting_rate(rc: Any, size: int) -> float:
    """Megabytes per second of arrays that are pushed one after the other, until all are recorded."""
    arrays = [_new_array(size) for _ in range(1 + ROUNDS)]
    _wait_until_recorded(rc)
    began = time.perf_counter()
    for array in arrays:
        rc[0].push({"a": array}, block=True)
    _wait_until_recorded(rc)
    return len(arrays) * size / (time.perf_counter() - began)


def executor(size: int) -> Figures:
    with ProcessPoolExecutor(WORKERS) as pool:
        return {
            "ProcessPoolExecutor, to one": _rate(lambda array: pool.submit(len, array).result(), size),
            "ProcessPoolExecutor, there and back": 2 * _rate(lambda array: pool.submit(same, array).result(), size),
        }


def joblib(size: int) -> Figures:
    try:
        from joblib import Parallel, delayed
    except ImportError:
        return {}
    with Parallel(n_jobs=WORKERS) as pool:
        return {"joblib, to two": _rate(lambda array: pool(delayed(len)(array) for _ in range(WORKERS)), size)}


def raw(size: int) -> Figures:
    return {
        FRESH: _raw_rate(_send_fresh, _map_fresh, size),
        WARM: _raw_rate(_send_warm, _see_warm, size),
        SOCKET: _raw_rate(_send_bytes, _receive_bytes, size),
        FILES: _rate_of_files(size),
    }


# ---------------------------------------------------------------------------------------------- the raw limits


def _send_fresh(ours: socket.socket, array: np.ndarray) -> None:
    descriptor = os.memfd_create("bench")
    os.ftruncate(descriptor, array.nbytes)
    os.pwrite(descriptor, memoryview(array).cast("B"), 0)
    socket.send_fds(ours, [b"x"], [descriptor])
    os.close(descriptor)


def _map_fresh(theirs: socket.socket, size: int) -> None:
    _, [descriptor], _, _ = socket.recv_fds(theirs, 1, 1)
    with mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE) as mapped:
        assert len(mapped) == size
    os.close(descriptor)


@functools.cache
def _pages(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size)


def _send_warm(ours: socket.socket, array: np.ndarray) -> None:
    _pages(array.nbytes)[:] = memoryview(array).cast("B")
    ours.send(b"x")


def _see_warm(theirs: socket.socket, size: int) -> None:
    theirs.recv(1)


def _send_bytes(ours: socket.socket, array: np.ndarray) -> None:
    ours.sendall(memoryview(array).cast("B"))


def _receive_bytes(theirs: socket.socket, size: int) -> None:
    got, room = 0, memoryview(bytearray(size))
    while got < size:
        got += theirs.recv_into(room[got:])


def _rate_of_files(size: int) -> float:
    arrays = [_new_array(size) for _ in range(1 + ROUNDS)]
    with tempfile.TemporaryDirectory(prefix="engineroom-bench-") as folder:
        began = time.perf_counter()
        for number, array in enumerate(arrays):
            Path(folder, str(number)).write_bytes(memoryview(array).cast("B"))
        return len(arrays) * size / (time.perf_counter() - began)


def _raw_rate(
    send: Callable[[socket.socket, np.ndarray], None], take: Callable[[socket.socket, int], None], size: int
) -> float:
    """The rate of two processes that do nothing else: one sends, the other takes and says so."""
    ours, theirs = socket.socketpair()
    nbytes = size * MB // 8 * 8
    _pages(nbytes)
    child = os.fork()
    if child == 0:
        ours.close()
        for _ in range(1 + ROUNDS):
            take(theirs, nbytes)
            theirs.send(b"y")
        os._exit(0)
    with ours, theirs:

        def move(array: np.ndarray) -> None:
            send(ours, array)
            ours.recv(1)

        rate = _rate(move, size)
    os.waitpid(child, 0)
    return rate


def _new_array(size: int) -> np.ndarray:
    return np.random.default_rng().random(size * MB // 8)


def _rate(
    move: Callable[[np.ndarray], Any], size: int, prepare: Callable[[np.ndarray], Any] = lambda array: None
) -> float:
    """Megabytes per second: the median of some rounds, after one to warm up. An array that comes back is checked."""
    times = []
    for _ in range(1 + ROUNDS):
        array = _new_array(size)
        prepare(array)
        began = time.perf_counter()
        answer = move(array)
        times.append(time.perf_counter() - began)
        if isinstance(answer, np.ndarray):
            assert np.array_equal(array, answer)
    return size / statistics.median(times[1:])


BENCHMARK = Benchmark(
    name="data",
    text=__doc__,
    unit="MB/s",
    size=100,
    quick_size=10,
    subjects=(engineroom, engineroom_with_many, executor, joblib, raw),
    goals=(
        Goal(TO_ONE, FRESH, at_least=1),
        Goal(TO_ONE, WARM),
        Goal(BACK, "ProcessPoolExecutor, there and back", at_least=4),
        Goal(TO_TWO, TO_ONE, at_least=1 / 1.3),
        Goal(TO_MANY, TO_ONE, at_least=1 / 1.3),
        Goal(SCATTER, FRESH, at_least=1),
        Goal(GATHER, FRESH, at_least=1),
        Goal(LASTING, FILES),
    ),
)
