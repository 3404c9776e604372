"""Engines whose job must end: they get no more tasks, and what they still run goes elsewhere at no cost."""

from __future__ import annotations

from stories import done as done_at
from stories import finished, joined, run, scheduler, started, submitted

from engineroom.core import Scheduler, actions
from engineroom.core.checks import check
from engineroom.core.events import EngineLeft, EngineLost, EnginesStopped, Event, TasksFinished
from engineroom.messages import TaskDone

PREEMPTED = EnginesStopped([0], preempted="the walltime of its job (60 s) ends")
CAUSE = "preempted: the walltime of its job (60 s) ends"


def attempts(core: Scheduler, event: Event) -> list[tuple[int, str, str]]:
    """The attempts of the single task that an event ends."""
    [ended] = [e for a in core.handle(event, 9.0) if isinstance(a, actions.EndTasks) for e in a.tasks]
    check(core)
    return [(a.number, a.ended_by, a.cause) for a in ended.task.attempts or ()]


def done(attempt: int) -> TasksFinished:
    return TasksFinished(1, [TaskDone("a", attempt, "ok", 2.0, 3.0)])  # type: ignore[arg-type]


def test_what_an_engine_finishes_before_it_leaves_counts():
    core = scheduler(hwm=2)
    run(core, joined(0), joined(1), submitted("a", "b"))
    assert run(core, PREEMPTED) == [("stop", 0)]
    assert run(core, submitted("c", "d")) == [("send", 1, "c")]
    assert run(core, finished(0, "a"), EngineLeft(0)) == [("end", "a", "ok")]


def test_what_an_engine_must_leave_runs_elsewhere_without_a_retry():
    core = scheduler(hwm=1)
    run(core, joined(0), submitted("a"), started(0, "a"), PREEMPTED)  # retries=0
    assert run(core, EngineLeft(0)) == []
    assert run(core, joined(1)) == [("send", 1, "a#2")]
    assert attempts(core, done(2)) == [(1, "preemption", CAUSE), (2, "task", "ok")]


def test_so_does_what_an_engine_runs_that_is_killed_at_the_end():
    core = scheduler(hwm=1)
    run(core, joined(0), submitted("a"), started(0, "a"), PREEMPTED)
    assert run(core, EngineLost(0, "killed by signal 9", "a", known=True), joined(1)) == [("send", 1, "a#2")]
    assert attempts(core, done(2)) == [(1, "preemption", CAUSE), (2, "task", "ok")]


def test_what_an_engine_cuts_short_that_is_told_to_leave_is_an_attempt_and_costs_no_retry():
    core = scheduler(hwm=1)
    run(core, joined(0), submitted("a"), started(0, "a"))
    assert run(core, EngineLeft(0), joined(1)) == [("send", 1, "a#2")]
    assert attempts(core, done(2)) == [(1, "preemption", "it left"), (2, "task", "ok")]


def test_a_direct_task_that_is_cut_short_so_says_that_it_ran():
    core = scheduler()
    run(core, joined(0), submitted("a", engine=0), started(0, "a"))
    [ended] = [e for a in core.handle(EngineLeft(0), 5.0) if isinstance(a, actions.EndTasks) for e in a.tasks]
    assert ended.done.error is not None
    assert "was lost while running task a: it left" in ended.done.error.evalue
    assert [attempt.ended_by for attempt in ended.task.attempts or ()] == ["preemption"]


def test_preemptions_do_not_count_as_deaths():
    core = scheduler(hwm=1)
    run(core, joined(0), submitted("a"))
    for number in range(5):  # more than the limit of deaths
        run(core, started(number, "a", attempt=number + 1), EnginesStopped([number], preempted="x"))
        run(core, EngineLeft(number), joined(number + 1))
    assert run(core, started(5, "a", attempt=6), finished(5, done_at("a", 6))) == [("end", "a", "ok")]


def test_a_direct_task_says_that_its_engine_was_preempted():
    core = scheduler()
    run(core, joined(0), submitted("a", engine=0), started(0, "a"), PREEMPTED)
    told = core.handle(EngineLeft(0), 5.0)
    [ended] = [e for a in told if isinstance(a, actions.EndTasks) for e in a.tasks]
    assert ended.done.error is not None
    assert CAUSE in ended.done.error.evalue
