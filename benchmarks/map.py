"""Map: a million small items through a load-balanced view.

`view.map_sync(same, range(1_000_000))`, results in order, against joblib's `Parallel(n_jobs=2)` with
automatic batches on its loky backend. Both cut the items into batches as they learn how long one takes; the
record is that of a batch, not of an item. A slice of a range travels as two numbers, so the same is asked with
a list of texts, each of which must travel there and back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from joblib import Parallel, delayed

from .harness import Benchmark, Figures, Goal
from .ours import WORKERS, cluster, same

OURS, JOBLIB = "engineroom, range", "joblib, range"
OURS_TEXTS, JOBLIB_TEXTS = "engineroom, list of texts", "joblib, list of texts"


def engineroom(size: int) -> Figures:
    with cluster() as rc:
        view = rc.load_balanced_view()

        def run(items: Sequence[object]) -> list[object]:
            return list(view.map_sync(same, items))

        return {OURS: _rate(run, range(size)), OURS_TEXTS: _rate(run, _texts(size))}


def joblib(size: int) -> Figures:
    with Parallel(n_jobs=WORKERS) as parallel:

        def run(items: Sequence[object]) -> list[object]:
            return parallel(delayed(same)(item) for item in items)

        return {JOBLIB: _rate(run, range(size)), JOBLIB_TEXTS: _rate(run, _texts(size))}


def _texts(size: int) -> list[str]:
    return [f"item {number}" for number in range(size)]


def _rate(run: Callable[[Sequence[object]], list[object]], items: Sequence[object]) -> float:
    run(items[: len(items) // 20])
    began = time.perf_counter()
    answer = run(items)
    taken = time.perf_counter() - began
    assert answer == list(items)
    return len(items) / taken


BENCHMARK = Benchmark(
    name="map",
    text=__doc__,
    unit="items/s",
    size=1_000_000,
    quick_size=100_000,
    subjects=(engineroom, joblib),
    goals=(Goal(OURS, JOBLIB, at_least=1), Goal(OURS_TEXTS, JOBLIB_TEXTS, at_least=1)),
)
