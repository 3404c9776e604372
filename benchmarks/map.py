"""Map: a million small items through a load-balanced view.

`view.map_sync(same, range(1_000_000))`, results in order, against joblib's `Parallel(n_jobs=2)` with
automatic batches on its loky backend.
"""

from __future__ import annotations

import time

from joblib import Parallel, delayed

from .harness import Benchmark, Figures, Goal
from .ours import WORKERS, cluster, same

OURS, JOBLIB = "engineroom", "joblib, automatic batches"


def engineroom(size: int) -> Figures:
    with cluster() as rc:
        view = rc.load_balanced_view()
        view.map_sync(same, range(size // 20))
        began = time.perf_counter()
        answer = view.map_sync(same, range(size))
        taken = time.perf_counter() - began
    assert list(answer) == list(range(size))
    return {OURS: size / taken}


def joblib(size: int) -> Figures:
    with Parallel(n_jobs=WORKERS) as parallel:
        parallel(delayed(same)(i) for i in range(size // 20))
        began = time.perf_counter()
        answer = parallel(delayed(same)(i) for i in range(size))
        taken = time.perf_counter() - began
    assert answer == list(range(size))
    return {JOBLIB: size / taken}


BENCHMARK = Benchmark(
    name="map", text=__doc__, unit="items/s", size=1_000_000, quick_size=100_000,
    subjects=(engineroom, joblib),
    goals=(Goal(OURS, JOBLIB, at_least=1),),
)
