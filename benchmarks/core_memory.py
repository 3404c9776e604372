"""Memory of the scheduling core: what a task weighs that waits for an engine, or for other tasks.

With its spec, 40 bytes of arguments, and its place in the queue; the second with what it depends on: three
earlier tasks. Growth of memory in use, as `tracemalloc` counts it.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

from engineroom.messages import TaskSpec

from .core import FAN_IN, Life, make_graph, make_specs
from .harness import Benchmark, Figures, Goal


def _weight(make: Callable[[int], list[TaskSpec]], size: int) -> float:
    """Bytes per task of these that the core holds."""
    life = Life(10)
    life.submit(make(1000))
    gc.collect()
    tracemalloc.start()
    life.submit(make(1000 + size)[1000:])
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(life.core.tasks) == 1000 + size
    return held / size


def core(size: int) -> Figures:
    return {
        "a task that waits for an engine": _weight(make_specs, size),
        f"a task that depends on {FAN_IN} others": _weight(lambda count: make_graph(count)[0], size),
    }


BENCHMARK = Benchmark(
    name="core_memory",
    text=__doc__,
    unit="bytes",
    size=100_000,
    quick_size=10_000,
    subjects=(core,),
    goals=(
        Goal("a task that waits for an engine", at_most=1024),
        Goal(f"a task that depends on {FAN_IN} others", at_most=4096),
    ),
    repeat=1,
)
