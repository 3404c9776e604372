"""Classic tasks beside calls through a view: what code, names and numbers cost on top.

A run of `Task("a = n", pull="a")`: all are made and run, then waited for, then each result is read. Against
`view.apply_async(same, n)` and its `get`, which brings the same number back, and against `apply_async(noop)`. All in
one cluster, in turns, so that they meet the same weather; each keeps its best of three.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from engineroom.tasks import MapTask, Task, TaskClient

from .harness import Benchmark, Figures, Goal
from .ours import cluster, noop, same

TASK, MAP_TASK = "Task", "MapTask"
CALL, NOOP = "apply_async with an argument", "apply_async of nothing"


def sqlite(size: int) -> Figures:
    with cluster("sqlite") as rc:
        view = rc.load_balanced_view()

        def classic(make: Callable[[int], Task | MapTask]) -> None:
            tc = TaskClient(rc)
            ids = [tc.run(make(n)) for n in range(runs)]
            tc.barrier(ids)
            for id in ids:
                result = tc.get_task_result(id)
                assert result is not None
                result.raise_exception()

        def calls(*arguments: Callable[[int], int]) -> None:
            function = same if arguments else noop
            for result in [view.apply_async(function, *(a(n) for a in arguments)) for n in range(runs)]:
                result.get()

        subjects: dict[str, Callable[[], None]] = {
            TASK: lambda: classic(lambda n: Task(f"a = {n}", pull="a")),
            CALL: lambda: calls(lambda n: n),
            MAP_TASK: lambda: classic(lambda n: MapTask(same, (n,))),
            NOOP: calls,
        }
        best = dict.fromkeys(subjects, 0.0)
        runs = max(1, size // 20)
        for run in subjects.values():
            run()
        runs = size
        for _ in range(3):
            for name, run in subjects.items():
                began = time.perf_counter()
                run()
                best[name] = max(best[name], size / (time.perf_counter() - began))
        return best


BENCHMARK = Benchmark(
    name="classic",
    text=__doc__,
    unit="tasks/s",
    size=50_000,
    quick_size=5_000,
    repeat=3,
    subjects=(sqlite,),
    goals=(Goal(TASK, CALL, at_least=0.5), Goal(MAP_TASK, CALL, at_least=0.5), Goal(TASK, NOOP)),
)
