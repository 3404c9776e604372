"""The core does not work harder where there is more: counted in calls, which do not depend on the machine.

Times are measured in `benchmarks/core.py`.
"""

from __future__ import annotations

import sys
from collections import deque
from random import Random
from typing import Any

import pytest

from engineroom.config import SchedulerSettings
from engineroom.core import Scheduler, actions, events
from engineroom.core.tasks import Task
from engineroom.ids import EngineId
from engineroom.messages import GraphDependency, TaskDone, TaskOptions, TaskSpec


class Life:
    """A scheduler, the calls it makes, and engines that do what they are told in no time."""

    def __init__(self, engines: int, **settings: Any) -> None:
        self.core = Scheduler(SchedulerSettings(**settings))
        self.calls = self.ended = 0
        self.now = 0.0
        self.given: deque[tuple[int, list[Task]]] = deque()
        for id in range(engines):
            self.tell(events.EngineJoined(EngineId(id), f"u{id}", "host", 1, "nanny"))
        self.calls = 0

    def tell(self, event: events.Event) -> None:
        self.now += 1e-5
        before = sys.getprofile()
        sys.setprofile(self._count)
        try:
            todo = self.core.handle(event, self.now)
        finally:
            sys.setprofile(before)
        for action in todo:
            if isinstance(action, actions.SendTasks):
                self.given.append((action.engine, list(action.tasks)))
            elif isinstance(action, actions.EndTasks):
                self.ended += len(action.tasks)

    def _count(self, frame: object, event: str, argument: object) -> None:
        self.calls += event in ("call", "c_call")

    def submit(self, specs: list[TaskSpec], client: str = "me") -> None:
        for start in range(0, len(specs), 500):
            self.tell(events.TasksSubmitted(client, specs[start : start + 500]))

    def work(self, took: float) -> None:
        while self.given:
            engine, tasks = self.given.popleft()
            done = [TaskDone(task.id, task.attempt, "ok", self.now - took, self.now) for task in tasks]
            self.tell(events.TasksFinished(engine, done))


def plain(count: int, name: str = "t") -> list[TaskSpec]:
    return [TaskSpec(f"{name}{n}", b"f", b"", 0.0) for n in range(count)]


def calls_per_task(engines: int, tasks: int, took: float, **settings: Any) -> float:
    life = Life(engines, **settings)
    life.submit(plain(tasks))
    life.work(took)
    assert life.ended == tasks
    return life.calls / tasks


@pytest.mark.parametrize("scheme", ["leastload", "lru", "plainrandom", "twobin", "weighted", "pure"])
def test_a_task_costs_the_same_for_ten_engines_and_for_a_thousand(scheme: str):
    few, many = (calls_per_task(n, 4000, 1.0, scheme=scheme) for n in (10, 1000))
    assert many < 1.5 * few, f"{few:.1f} and {many:.1f} calls"


def test_short_tasks_cost_a_few_calls_each():
    assert calls_per_task(10, 10_000, 0.001) < 15


def test_a_task_costs_the_same_for_one_client_and_for_five_hundred():
    calls = {}
    for clients in (1, 500):
        life = Life(10)
        for client in range(clients):
            life.submit(plain(4000 // clients, f"c{client}-"), f"c{client}")
        before = life.calls
        life.work(1.0)
        assert life.ended == 4000
        calls[clients] = life.calls - before
    assert calls[500] < 1.5 * calls[1]


def test_an_edge_costs_the_same_in_a_small_graph_and_in_a_large_one():
    per_edge = {}
    for tasks in (300, 3000):
        rng, life, specs, edges = Random(1), Life(10), [], 0
        for n in range(tasks):
            earlier = tuple({f"t{rng.randrange(n)}" for _ in range(3)}) if n else ()
            edges += len(earlier)
            specs.append(TaskSpec(f"t{n}", b"f", b"", 0.0, options=TaskOptions(after=GraphDependency(earlier))))
        life.submit(specs)
        life.work(1.0)
        assert life.ended == tasks
        per_edge[tasks] = life.calls / edges
    assert per_edge[3000] < 1.2 * per_edge[300]


def test_the_end_of_a_task_that_thousands_wait_for_costs_each_of_them_the_same():
    per_task = {}
    for tasks in (100, 5000):
        life = Life(10)
        after = TaskOptions(after=GraphDependency(("first",)))
        life.submit([TaskSpec("first", b"f", b"", 0.0)])
        life.submit([TaskSpec(f"t{n}", b"f", b"", 0.0, options=after) for n in range(tasks)])
        life.work(1.0)
        assert life.ended == tasks + 1
        per_task[tasks] = life.calls / tasks
    assert per_task[5000] < 1.2 * per_task[100]


def test_a_chain_of_failures_ends_at_once_however_long_it_is():
    life = Life(1)
    life.submit([TaskSpec("t0", b"f", b"", 0.0)])
    life.submit(
        [
            TaskSpec(f"t{n}", b"f", b"", 0.0, options=TaskOptions(after=GraphDependency((f"t{n - 1}",))))
            for n in range(1, 20_000)
        ]
    )
    [(engine, [task])] = life.given
    life.tell(events.TasksFinished(engine, [TaskDone(task.id, 1, "error", 0.0, 0.0)]))
    assert life.ended == 20_000
