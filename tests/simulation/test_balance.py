"""How far ahead engines are given work, who is served when many wait, and who goes first: laws, in virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from random import Random

import pytest

from engineroom.config import SchedulerSettings
from engineroom.core import actions
from engineroom.core.placement.requirements import requirement_of
from engineroom.core.tasks import Task
from engineroom.messages import TaskSpec
from engineroom.testing import Run, VirtualCluster, Workload
from engineroom.testing.workload import Source


def specs(*ids: str, moment: float = 0.0) -> list[TaskSpec]:
    return [TaskSpec(id, b"f", b"", moment) for id in ids]


def list_schedule(seconds: Sequence[float], engines: int) -> float:
    """The makespan if each task, in order, starts on the engine that is free first, and nothing else takes time."""
    free = [0.0] * engines
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def makespan(seconds: Sequence[float], engines: int, settings: SchedulerSettings) -> float:
    cluster = VirtualCluster(
        engines, lambda spec, attempt: Run(seconds[int(spec.id)]), settings=settings, check_every=0
    )
    cluster.plan(0.0, "me", specs(*map(str, range(len(seconds)))))
    cluster.run()
    return cluster.ended - cluster.submitted


# ---------------------------------------------------------------------------------------------- hwm


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("engines", "short", "long"), [(2, 3000, 6), (4, 10_000, 5), (20, 3000, 60), (50, 5000, 200)])
def test_a_mixture_of_short_and_long_tasks_ends_within_5_percent_of_the_ideal(
    engines: int, short: int, long: int, seed: int
):
    seconds = [0.001] * short + [1.0] * long
    Random(seed).shuffle(seconds)
    taken = makespan(seconds, engines, SchedulerSettings())
    assert taken < 1.05 * list_schedule(seconds, engines)


def test_short_tasks_do_not_wait_for_messages():
    seconds = [0.001] * 4000
    ideal = list_schedule(seconds, 4)
    assert makespan(seconds, 4, SchedulerSettings()) < 1.05 * ideal
    assert makespan(seconds, 4, SchedulerSettings(hwm=1)) > 1.8 * ideal, "two messages of 0.5 ms to each"


@pytest.mark.parametrize("hwm", [1, 2, 7])
@pytest.mark.parametrize("scheme", ["leastload", "lru", "plainrandom", "pure"])
def test_a_fixed_hwm_is_never_exceeded(hwm: int, scheme: str):
    most = 0

    def watch(action: actions.Action) -> None:
        nonlocal most
        most = max(most, *(len(engine.held) for engine in cluster.scheduler.engines.values()), 0)

    cluster = VirtualCluster(
        4, lambda spec, attempt: Run(0.01), settings=SchedulerSettings(hwm=hwm, scheme=scheme), watch=watch
    )
    for moment in range(10):
        cluster.plan(moment * 0.05, "me", specs(*(f"{moment}-{n}" for n in range(50)), moment=moment * 0.05))
    cluster.run()
    assert most == hwm


# ---------------------------------------------------------------------------------------------- fair shares


@pytest.mark.parametrize(
    ("seconds_a", "seconds_b", "tasks_b"),
    [(0.001, 0.001, 10), (0.001, 0.1, 10), (0.001, 0.001, 1000), (1.0, 0.001, 10), (1.0, 1.0, 10)],
)
def test_ten_tasks_do_not_wait_for_a_hundred_thousand(seconds_a: float, seconds_b: float, tasks_b: int):
    """B is served once A has had as much engine time as B needs, not counting what A's tasks had got before."""
    engines, came = 4, 1.5
    cluster = VirtualCluster(
        engines, lambda spec, attempt: Run(seconds_a if spec.id[0] == "a" else seconds_b), check_every=0
    )
    names = [f"b{n}" for n in range(tasks_b)]
    cluster.plan(0.0, "A", specs(*(f"a{n}" for n in range(100_000))))
    cluster.plan(came, "B", specs(*names, moment=came))
    while any(name not in cluster.done for name in names):
        assert cluster.clock.step()
    taken = max(cluster.done[name].completed for name in names) - cluster.submitted - came
    held_before = 0.025 + seconds_a  # what an engine holds ahead, and what it runs
    both = 2 * tasks_b * seconds_b / engines
    assert taken < 1.1 * (held_before + both + seconds_b)
    assert len(cluster.done) < 50_000 + tasks_b, "A has not been served meanwhile"


def test_clients_with_tasks_of_any_length_have_equal_engine_time():
    seconds = {f"c{n}": 0.001 * (n + 1) for n in range(8)}
    cluster = VirtualCluster(6, lambda spec, attempt: Run(seconds[spec.id[:2]]), check_every=0)
    for client in seconds:
        cluster.plan(0.0, client, specs(*(f"{client}-{n}" for n in range(4000))))
    cluster.clock.advance(5.1)
    had = dict.fromkeys(seconds, 0.0)
    for id, done in cluster.done.items():
        assert done.started is not None
        had[id[:2]] += done.completed - done.started
    even = sum(had.values()) / len(had)
    assert even > 0.95 * 5.0 * 6 / 8
    assert max(had.values()) < 1.1 * even, str(had)
    assert min(had.values()) > 0.9 * even, str(had)


# ---------------------------------------------------------------------------------------------- priorities


def priority(task: Task) -> int:
    return task.spec.options.priority if task.spec.options is not None else 0


@pytest.mark.parametrize("hwm", [None, 1])
@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_sent_while_something_of_higher_priority_waits_for_the_same_engine(hwm: int | None, seed: int):
    workload = Workload(
        duration=0.02,
        burst=30,
        targeted=0.3,
        unmet=0.05,
        gpus=0.1,
        priorities=5,
        clients=3,
        failing=0.1,
        retries=2,
        schemes=("lru", "weighted"),
    )
    source, sent = Source(workload, 400, 5, seed), 0

    def watch(action: actions.Action) -> None:
        nonlocal sent
        if isinstance(action, actions.SendTasks):
            core = cluster.scheduler
            engine, numbers = core.engines[action.engine], {e.uuid: e.id for e in core.engines.values()}
            waiting = [priority(t) for t in core.queued() if requirement_of(t, numbers).fits(engine)]
            for task in action.tasks:
                sent += 1
                assert priority(task) >= max(waiting, default=0)

    cluster = VirtualCluster(
        5,
        source.conduct,
        resources=source.resources(),
        settings=SchedulerSettings(hwm=hwm),
        seed=seed,
        check_every=50,
        watch=watch,
    )
    for submission in source.submissions():
        cluster.plan(*submission)
    for fault in (cluster.die, cluster.cut, cluster.stop):
        cluster.clock.later(0.4, lambda fault=fault: fault(cluster.links[0]))  # type: ignore[misc]
    cluster.clock.later(0.7, cluster.restart)
    cluster.run()
    assert sent > 400
