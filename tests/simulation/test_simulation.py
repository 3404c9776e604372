"""The scheduler with thousands of pretended engines, in virtual time, in fair weather and foul.

`ENGINEROOM_NIGHTLY=1` tries 1,000 seeds of about 10,000 events.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from engineroom.config import SchedulerSettings
from engineroom.testing import Chaos, Workload, simulate

MIXED = Workload(duration=0.1, direct=0.15, targeted=0.15, failing=0.1, retries=3)

#: Some of everything a task can wish for.
RICH: dict[str, Any] = {
    "duration": 0.05,
    "spread": "mixed",
    "long_share": 0.05,
    "direct": 0.05,
    "targeted": 0.1,
    "failing": 0.05,
    "unmet": 0.05,
    "retries": 2,
    "after": 0.2,
    "follow": 0.1,
    "inputs": 0.2,
    "strange": 0.01,
    "timeouts": 0.05,
    "gpus": 0.1,
    "choosy": 0.1,
    "priorities": 3,
    "clients": 3,
    "schemes": ("lru", "twobin", "weighted", "plainrandom"),
    "run_timeouts": 0.2,
    "deaf": 0.3,
}
#: How many seeds, and how many tasks each has.
SEEDS, TASKS = (1000, 4000) if os.environ.get("ENGINEROOM_NIGHTLY") else (100, 200)
SCHEMES = ("leastload", "lru", "plainrandom", "twobin", "weighted")


def test_in_fair_weather_every_task_runs_once_and_the_work_is_shared():
    report = simulate(1, engines=8, tasks=2000, workload=Workload(duration=0.05), check_every=10)
    assert report.outcomes == {"ok": 2000}
    assert report.begun == 2000
    assert report.attempts == {1: 2000}
    assert set(report.per_engine) == set(range(8))
    ideal = 2000 * 0.05 / 8
    assert report.makespan < 1.15 * ideal, "engines were idle while others had more than they could do"


@pytest.mark.parametrize("hwm", [None, 1, 0], ids=["adaptive", "one", "unlimited"])
def test_however_far_engines_prefetch_none_is_idle_for_long(hwm: int | None):
    report = simulate(
        2, engines=4, tasks=200, workload=Workload(duration=1.0, burst=200), settings=SchedulerSettings(hwm=hwm)
    )
    assert report.outcomes == {"ok": 200}
    assert report.makespan < 1.25 * 200 * 1.0 / 4


@pytest.mark.fault(23)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_in_foul_weather_every_task_ends_exactly_once(seed: int):
    settings = SchedulerSettings(
        scheme=SCHEMES[seed % 5],
        hwm=(None, 1, 0)[seed % 3],
        cancel_grace=0.2,
        engine_grace=(0.1, 5.0)[seed % 2],
        outcomes_kept=(20, 65536)[seed % 2],  # few: the store is asked often
    )
    report = simulate(
        seed,
        engines=6,
        tasks=TASKS,
        workload=Workload(burst=(10, 50)[seed % 2], **RICH),
        chaos=Chaos.wild(),
        settings=settings,
        check_every=5 if TASKS < 1000 else 100,
    )
    assert report.outcomes.total() == TASKS
    assert report.faults["restarts"] == 2


@pytest.mark.fault(23)
@pytest.mark.parametrize("hwm", [None, 1, 0])
def test_every_kind_of_fault_fires_and_every_kind_of_outcome_is_seen(hwm: int | None):
    report = simulate(
        99,
        engines=6,
        tasks=1500,
        workload=Workload(**RICH),
        chaos=Chaos.wild(),
        settings=SchedulerSettings(hwm=hwm, cancel_grace=0.2, engine_grace=0.1, outcomes_kept=20),
        check_every=20,
    )
    assert set(report.faults) == {"deaths", "cuts", "stops", "repeated", "late", "aborts", "cancels", "restarts"}
    assert set(report.outcomes) == {"ok", "error", "aborted"}
    assert set(report.asked) == {"outcomes", "interruptions", "kills", "properties"}
    assert set(report.errors) >= {
        "EngineError",
        "TaskAborted",
        "TaskTimeout",
        "ImpossibleDependency",
        "InvalidDependency",
        "DependencyTimeout",
    }
    assert len(report.attempts) > 2


def test_engines_are_asked_about_their_properties_seldom_however_many_tasks_depend_on_them():
    report = simulate(4, engines=10, tasks=2000, workload=Workload(duration=0.01, choosy=1.0), check_every=20)
    assert report.outcomes == {"ok": 2000}
    changes = 10 * report.makespan / 0.2
    assert report.asked["properties"] < 2 * 3 * (10 + changes), "three kinds of tasks, ten engines"


@pytest.mark.fault(11)
def test_lost_messages_and_a_restart_cost_no_task():
    report = simulate(
        3,
        engines=10,
        tasks=1000,
        workload=Workload(duration=0.05, burst=1000),
        chaos=Chaos(cuts=1.0, repeated=0.5, restarts=1),
        check_every=10,
    )
    assert report.faults["cuts"] > 20
    assert report.outcomes == {"ok": 1000}, "nobody died, so nothing may fail"


def test_the_same_seed_tells_the_same_story():
    def story() -> object:
        return simulate(5, engines=5, tasks=200, workload=MIXED, chaos=Chaos.wild(), check_every=100)

    assert story() == story()


def test_a_failure_says_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch):
    def broken(scheduler: object) -> None:
        raise AssertionError("something is wrong")

    monkeypatch.setattr("engineroom.testing.virtual.check", broken)
    with pytest.raises(AssertionError, match="something is wrong") as caught:
        simulate(77, engines=2, tasks=10)
    assert "simulate(77, engines=2, tasks=10" in caught.value.__notes__[0]


@pytest.mark.fault(36)
@pytest.mark.slow
@pytest.mark.timeout(400)  # half a minute of processor time: more on a busy machine
def test_two_thousand_engines_of_which_hundreds_die():
    report = simulate(
        11,
        engines=2000,
        tasks=20_000,
        workload=Workload(duration=0.5, burst=2000, retries=3),
        chaos=Chaos(deaths=0.05, cuts=0.02, repeated=0.02),
        check_every=4000,
    )
    assert report.outcomes.total() == 20_000
    assert report.faults["deaths"] > 200


@pytest.mark.fault(23)
@pytest.mark.parametrize("seed", range(20))
def test_in_foul_weather_tasks_for_one_engine_keep_their_order(seed: int):
    """The engines check it: no task of a client begins before one that the client submitted earlier for this engine."""
    report = simulate(
        seed,
        engines=4,
        tasks=400,
        workload=Workload(duration=0.02, burst=10, pause=0.01, clients=3, direct=0.6, retries=1, failing=0.02),
        chaos=Chaos(cuts=1.0, deaths=0.02, repeated=0.1, restarts=2),
        check_every=50,
    )
    assert report.faults["restarts"] == 2
    assert report.faults["cuts"]
    assert report.outcomes["ok"] > 200


@pytest.mark.fault(23)
@pytest.mark.parametrize("seed", range(20))
def test_after_restarts_no_task_for_one_engine_runs_again_behind_later_ones(seed: int):
    """The engines check it. What they have done counts, also if the controller was killed before it had recorded it."""
    report = simulate(
        seed,
        engines=4,
        tasks=400,
        workload=Workload(duration=0.005, burst=10, pause=0.05, clients=3, direct=0.8),
        chaos=Chaos(cuts=float(seed % 2), repeated=0.1, restarts=8),
        check_every=50,
    )
    assert report.faults["restarts"] == 8
    assert report.outcomes["ok"] > 300


@pytest.mark.fault(23)
@pytest.mark.parametrize("seed", range(10))
def test_in_foul_weather_no_task_is_begun_twice_that_runs_at_most_once(seed: int):
    report = simulate(
        seed,
        engines=6,
        tasks=400,
        workload=Workload(at_most_once=0.5, burst=(10, 50)[seed % 2], **RICH),
        chaos=Chaos.wild(),
        settings=SchedulerSettings(hwm=(None, 3, 0)[seed % 3], cancel_grace=0.2, engine_grace=5.0),
        check_every=20,
    )
    assert report.outcomes.total() == 400
    assert report.faults["restarts"] == 2
    assert report.faults["deaths"]
    assert report.outcomes["ok"] > 100
