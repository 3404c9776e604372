"""Data: 100 MB at a time.

A numpy array sent to one engine through a direct view and returned; and bytes pushed to both engines. New
data every round, so that nothing can be remembered. MB/s counts every byte delivered: the array twice, the
bytes once per engine. Against `ProcessPoolExecutor`, which pickles through a pipe.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np

import engineroom as er

from .harness import Benchmark, Figures, Goal
from .ours import WORKERS, cluster, same

ROUNDS = 5
MB = 10**6


def engineroom(size: int) -> Figures:
    with cluster() as rc:
        one, all_ = rc[0], rc[:]
        there_and_back = _rate(lambda array: one.apply_sync(same, array), _array, size)
        pushed = _rate(lambda blob: all_.push({"blob": blob}, block=True), os.urandom, size)
        assert all_.apply_sync(len, er.Reference("blob")) == [size * MB] * WORKERS
    return {"engineroom, there and back": there_and_back, "engineroom, to both": pushed}


def executor(size: int) -> Figures:
    with ProcessPoolExecutor(WORKERS) as pool:

        def to_both(blob: bytes) -> None:
            for future in [pool.submit(len, blob) for _ in range(WORKERS)]:
                future.result()

        there_and_back = _rate(lambda array: pool.submit(same, array).result(), _array, size)
        pushed = _rate(to_both, os.urandom, size)
    return {"ProcessPoolExecutor, there and back": there_and_back, "ProcessPoolExecutor, to both": pushed}


def _array(nbytes: int) -> np.ndarray:
    return np.random.default_rng().random(nbytes // 8)


def _rate(move: Callable[[object], object], make: Callable[[int], object], size: int) -> float:
    """Megabytes delivered per second: the median of some rounds, after one to warm up."""
    times = []
    for _ in range(1 + ROUNDS):
        thing = make(size * MB)
        began = time.perf_counter()
        answer = move(thing)
        times.append(time.perf_counter() - began)
        if isinstance(thing, np.ndarray):
            assert np.array_equal(thing, answer)
    return 2 * size / statistics.median(times[1:])


BENCHMARK = Benchmark(
    name="data",
    text=__doc__,
    unit="MB/s",
    size=100,
    quick_size=10,
    subjects=(engineroom, executor),
    goals=(
        Goal("engineroom, there and back", "ProcessPoolExecutor, there and back", at_least=1),
        Goal("engineroom, to both", "ProcessPoolExecutor, to both", at_least=1),
    ),
)
