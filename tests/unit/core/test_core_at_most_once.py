"""Stories of tasks that run at most once: what may have been started is not started again."""

from __future__ import annotations

from typing import Any

import pytest
from stories import (
    done,
    finished,
    joined,
    outcome,
    raised,
    recovered,
    returned,
    run,
    scheduler,
    submitted,
    unmet,
    waiting,
)

from engineroom.core.events import EngineLeft, EngineLost, EnginesStopped, Ticked


def once(*ids: str, **options: Any):
    return submitted(*ids, at_most_once=True, **options)


def lost(engine: int, running: str | None = None, begun: tuple[str, ...] | None = ()) -> EngineLost:
    """The nanny tells of a death."""
    return EngineLost(engine, "killed", running, known=True, begun=None if begun is None else frozenset(begun))


@pytest.mark.fault(5)
def test_a_task_that_was_running_when_its_engine_died_is_not_run_again():
    core = scheduler()
    run(core, joined(0), joined(1), once("a"))
    assert run(core, lost(0, "a", ("a",))) == [("end", "a", "EngineError")]


@pytest.mark.fault(6)
def test_a_task_whose_result_was_lost_with_its_engine_is_not_run_again():
    core = scheduler(hwm=3)
    run(core, joined(0), once("a", "b", "c"))
    told = run(core, lost(0, "b", ("a", "b")))
    assert told == [("end", "a", "EngineError"), ("end", "b", "EngineError")]
    assert run(core, joined(1)) == [("send", 1, "c#2")], "the engine had not begun it"


def test_the_error_says_that_the_task_may_have_run():
    core = scheduler(hwm=2)
    run(core, joined(0), once("a"))
    error = outcome(core, lost(0, None, ("a",))).error
    assert "may have run task a" in error.evalue
    assert "at_most_once" in error.evalue


@pytest.mark.parametrize("event", [EngineLost(0, "silent"), lost(0, None, None), EngineLeft(0), joined(0, "another")])
def test_where_nobody_knows_what_was_begun_no_task_is_run_again(event):
    core = scheduler(hwm=2)
    run(core, joined(0), once("a", "b"))
    assert run(core, event)[:2] == [("end", "a", "EngineError"), ("end", "b", "EngineError")]


def test_other_tasks_of_the_engine_go_on():
    core = scheduler(hwm=3)
    run(core, joined(0), once("a"), submitted("b", "c"))
    assert run(core, EngineLost(0, "silent")) == [("end", "a", "EngineError")]
    assert run(core, joined(1)) == [("send", 1, "b#2", "c#2")]


def test_a_task_that_waits_on_its_engine_has_begun():
    core = scheduler(hwm=1)
    run(core, joined(0), once("a"), waiting(0, "a"), once("b"))
    told = run(core, lost(0, "b", ("a", "b")))
    assert sorted(told) == [("end", "a", "EngineError"), ("end", "b", "EngineError")]


def test_what_is_given_back_unstarted_runs_elsewhere():
    core = scheduler(hwm=2)
    run(core, joined(0), once("a", "b"), EnginesStopped([0]))
    assert run(core, returned(0, "b"), joined(1)) == [("send", 1, "b")]


def test_what_did_not_reach_its_engine_is_sent_again():
    core = scheduler(hwm=2)
    run(core, joined(0), once("a", "b"))
    assert run(core, joined(0, held=[("a", 1)])) == [("send", 0, "b")]


def test_an_error_is_the_end_though_there_are_retries():
    core = scheduler()
    run(core, joined(0), once("a", retries=3))
    assert run(core, finished(0, raised("a"))) == [("end", "a", "ValueError")]


def test_an_unmet_dependency_is_the_end_as_the_task_had_begun():
    core = scheduler()
    run(core, joined(0), joined(1), once("a"))
    assert run(core, finished(0, unmet("a"))) == [("end", "a", "UnmetDependency")]


def test_a_silent_engine_keeps_the_tasks_that_it_may_begin():
    core = scheduler(hwm=None)
    run(core, joined(0), joined(1), once("a", "b", "c", "d"))
    first, second = list(core.engines[0].held)
    run(core, (0.1, finished(1, *core.engines[1].held)), (0.2, Ticked()))
    assert core.engines[0].recalled == {second}
    assert run(core, (1.5, Ticked())) == []
    assert list(core.engines[0].held) == [first, second]


@pytest.mark.fault(11)
def test_after_a_restart_a_task_that_no_engine_has_is_not_run_again():
    core = scheduler()
    tasks = recovered("a", "b", "c", at_most_once=True)
    told = run(core, tasks, joined(0, held=[("a", 1)]), (1.0, finished(0, done("a"))), (6.0, Ticked()))
    assert told == [("end", "a", "ok"), ("end", "b", "EngineError"), ("end", "c", "EngineError")]


@pytest.mark.fault(11)
def test_after_a_restart_an_engine_keeps_the_task_that_it_has():
    core = scheduler()
    run(core, recovered("a", at_most_once=True), joined(0, held=[("a", 1)]), (6.0, Ticked()))
    assert run(core, finished(0, done("a"))) == [("end", "a", "ok")]
