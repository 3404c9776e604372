"""Attempts that are cut short: a task has begun, and no outcome of it comes from its engine."""

from __future__ import annotations

from stories import joined, run, scheduler, started, submitted, waiting

from engineroom.core import Scheduler, actions
from engineroom.core.checks import check
from engineroom.core.events import AbortRequested, ControllerStopped, EngineLost, Event, TasksFailed
from engineroom.messages import ErrorInfo


def ending(core: Scheduler, event: Event) -> actions.Ended:
    """How the single task ends that an event ends."""
    [ended] = [e for a in core.handle(event, 5.0) if isinstance(a, actions.EndTasks) for e in a.tasks]
    check(core)
    return ended


def noted(ended: actions.Ended) -> list[tuple[int, float | None, float, str]]:
    """The attempts of an ended task: number, start, end, and what ended each."""
    return [(a.number, a.started, a.ended, a.ended_by) for a in ended.task.attempts or ()]


def test_a_task_that_dies_with_its_engine_keeps_its_start():
    core = scheduler()
    run(core, joined(0), submitted("a", retries=1), started(0, "a"), EngineLost(0, "killed", "a", known=True))
    run(core, joined(1), started(1, "a", 2.0, attempt=2))
    ended = ending(core, EngineLost(1, "killed", "a", known=True))
    assert noted(ended) == [(1, 1.0, 1.0, "death"), (2, 2.0, 5.0, "death")], "the clocks of two hosts may differ"
    assert (ended.done.started, ended.done.completed, ended.done.engine, ended.cut_short) == (2.0, 5.0, 1, True)


def test_a_task_that_was_killed_keeps_its_start():
    for killed, ename, ended_by in (
        (EngineLost(0, "it ran for too long", "a", known=True, overran=True), "TaskTimeout", "run_timeout"),
        (EngineLost(0, "killed", "a", known=True), "TaskAborted", "death"),
    ):
        core = scheduler()
        run(core, joined(0), submitted("a"), started(0, "a"))
        if ename == "TaskAborted":
            run(core, AbortRequested(["a"], running=True))
        ended = ending(core, killed)
        assert (ended.done.error.ename, ended.done.started, ended.cut_short) == (ename, 1.0, True)
        assert noted(ended) == [(1, 1.0, 5.0, ended_by)]
        assert (ended.done.engine, ended.done.error.engine_uuid) == (0, "u0")


def test_a_task_that_runs_when_the_cluster_stops_keeps_its_start():
    core = scheduler(hwm=2)
    run(core, joined(0), submitted("a", "b", "c"), started(0, "a"))
    told = core.handle(ControllerStopped("the cluster was stopped"), 5.0)
    ended = {e.done.id: e for action in told if isinstance(action, actions.EndTasks) for e in action.tasks}
    assert noted(ended["a"]) == [(1, 1.0, 5.0, "stop")]
    assert (ended["a"].done.started, ended["a"].done.engine, ended["a"].cut_short) == (1.0, 0, True)
    for id in "bc":
        assert (noted(ended[id]), ended[id].done.started, ended[id].done.engine) == ([], None, -1), "it never started"
        assert not ended[id].cut_short


def test_a_running_task_that_the_controller_cannot_record_keeps_its_start():
    core = scheduler()
    run(core, joined(0), submitted("a"), started(0, "a"))
    ended = ending(core, TasksFailed(["a"], ErrorInfo("StoreError", "the database is full")))
    assert noted(ended) == [(1, 1.0, 5.0, "controller")]


def test_a_task_that_waited_on_an_engine_names_the_task_that_it_died_with():
    core = scheduler()
    run(core, joined(0), submitted("outer"), started(0, "outer"), waiting(0, "outer"), submitted("inner"))
    told = core.handle(EngineLost(0, "killed", "inner", known=True), 5.0)
    said = {e.done.id: e.done.error.evalue for a in told if isinstance(a, actions.EndTasks) for e in a.tasks}
    assert "while running task inner: killed" in said["inner"]
    assert "while running task inner; task outer had begun there, and waited for other tasks: killed" in said["outer"]
