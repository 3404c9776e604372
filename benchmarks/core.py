"""The scheduling core: what a task, an edge and a waiting task cost, for 10 to 10,000 engines.

The core alone, no processes and no messages: tasks come in batches of 500, each engine ends what it holds in
batches as large as it was given, and what the core says is read and dropped. 100,000 tasks for 10, 100 and 1,000
engines, 1,000,000 for 10,000. Short tasks are held ahead and end 20 at a time; long ones one at a time; "trickling"
ones come 10 at a time while most engines are idle. An edge is measured with tasks that depend on three earlier ones
each, of the last thousand: what they cost beyond tasks that depend on nothing and end one at a time. All in CPU time.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from random import Random

from engineroom.config import SchedulerSettings
from engineroom.core import Scheduler, actions, events
from engineroom.ids import Digest, EngineId, TaskId
from engineroom.messages import GraphDependency, TaskDone, TaskOptions, TaskSpec

from .harness import Benchmark, Figures, Goal

BATCH = 500
ENGINES = (10, 100, 1_000, 10_000)
MANY = ENGINES[-1]
FAN_IN = 3
NEAR = 1000


class Life:
    """A scheduler, and engines that do what they are told in no time."""

    def __init__(self, engines: int, settings: SchedulerSettings | None = None) -> None:
        self.core = Scheduler(settings)
        self.now = 0.0
        self.given: deque[tuple[EngineId, list[tuple[TaskId, int]]]] = deque()
        self.ended = 0
        for id in range(engines):
            self.tell(events.EngineJoined(EngineId(id), f"u{id}", "host", 1, "nanny"))

    def tell(self, event: events.Event) -> None:
        self.now += 1e-5
        for action in self.core.handle(event, self.now):
            if type(action) is actions.SendTasks:
                self.given.append((action.engine, [(task.id, task.attempt) for task in action.tasks]))
            elif type(action) is actions.EndTasks:
                self.ended += len(action.tasks)

    def submit(self, tasks: list[TaskSpec]) -> None:
        for start in range(0, len(tasks), BATCH):
            self.tell(events.TasksSubmitted("me", tasks[start : start + BATCH]))

    def work(self, took: float = 0.001) -> None:
        """Engines end what they hold, the one given something longest ago first, until all has ended."""
        while self.given:
            engine, tasks = self.given.popleft()
            done = [TaskDone(id, attempt, "ok", self.now - took, self.now, b"", engine) for id, attempt in tasks]
            self.tell(events.TasksFinished(engine, done))


def make_specs(count: int, options: list[TaskOptions] | None = None) -> list[TaskSpec]:
    function = Digest(b"0123456789abcdef")
    return [
        TaskSpec(
            TaskId(f"0123456789abcdef-{n}"),
            function,
            b"x" * 40,
            0.0,
            EngineId(-1),
            (),
            options[n] if options is not None else None,
        )
        for n in range(count)
    ]


def make_graph(count: int) -> tuple[list[TaskSpec], int]:
    """Tasks that depend on earlier ones, and the number of edges."""
    rng, options, edges = Random(1), [], 0
    for n in range(count):
        earlier = {rng.randrange(max(0, n - NEAR), n) for _ in range(FAN_IN)} if n else set()
        edges += len(earlier)
        options.append(TaskOptions(after=GraphDependency(tuple(TaskId(f"0123456789abcdef-{e}") for e in earlier))))
    return make_specs(count, options), edges


def _cost(engines: int, tasks: int, took: float = 0.001) -> float:
    """Microseconds per task, from its submission to its end."""
    life, specs = Life(engines), make_specs(tasks)
    gc.collect()
    started = time.process_time()
    life.submit(specs)
    life.work(took)
    spent = time.process_time() - started
    assert life.ended == tasks
    return spent / tasks * 1e6


def _trickle(engines: int, tasks: int) -> float:
    """The same for tasks that come a few at a time, and end before the next come."""
    life, specs = Life(engines), make_specs(tasks)
    gc.collect()
    started = time.process_time()
    for start in range(0, tasks, 10):
        life.tell(events.TasksSubmitted("me", specs[start : start + 10]))
        life.work()
    spent = time.process_time() - started
    assert life.ended == tasks
    return spent / tasks * 1e6


def short(size: int) -> Figures:
    return {f"short, {n:,} engines": _cost(n, size * (10 if n == MANY else 1)) for n in ENGINES}


def long(size: int) -> Figures:
    return {f"long, {n:,} engines": _cost(n, size * (10 if n == MANY else 1), 1.0) for n in ENGINES}


def trickling(size: int) -> Figures:
    return {f"trickling, {n:,} engines": _trickle(n, size) for n in ENGINES}


def clients(size: int) -> Figures:
    """Many clients, all with tasks that wait."""
    figures = {}
    for count in (1, 10, 1000):
        life, specs = Life(100), make_specs(size)
        gc.collect()
        started = time.process_time()
        for client in range(count):
            life.tell(events.TasksSubmitted(f"client{client}", specs[client::count]))
        life.work()
        figures[f"short, 100 engines, {count:,} clients"] = (time.process_time() - started) / size * 1e6
        assert life.ended == size
    return figures


def edges(size: int) -> Figures:
    life, (specs, count) = Life(100), make_graph(size)
    gc.collect()
    started = time.process_time()
    life.submit(specs)
    life.work()
    spent = time.process_time() - started
    assert life.ended == size
    return {"an edge": (spent / size * 1e6 - _cost(100, size, 1.0)) * size / count}


BENCHMARK = Benchmark(
    name="core",
    text=__doc__,
    unit="µs",
    size=100_000,
    quick_size=5_000,
    subjects=(short, long, trickling, clients, edges),
    goals=(
        *(
            Goal(f"{kind}, {MANY:,} engines", f"{kind}, {ENGINES[0]:,} engines", at_most=2)
            for kind in ("short", "long", "trickling")
        ),
        Goal("short, 100 engines, 1,000 clients", "short, 100 engines, 1 clients", at_most=3),
        Goal("an edge", at_most=10),
    ),
)
