"""Engines claim tasks that are not theirs, many of them and again and again: it costs the core little."""

from __future__ import annotations

from stories import joined, run, scheduler, started, submitted

from engineroom.core import Scheduler, actions
from engineroom.core.events import AbortRequested, Ticked
from engineroom.core.handlers.cancellation import KILLS_AT_A_TIME


def due(core: Scheduler) -> int:
    """How many calls wait for their time."""
    return len(core.state.deadlines._heap)


def kills(core: Scheduler, now: float) -> list[str]:
    return [action.task for action in core.handle(Ticked(), now) if isinstance(action, actions.KillTask)]


def test_hellos_that_claim_strange_tasks_do_not_add_up():
    core = scheduler()
    claims = [(f"stray-{number}", 1) for number in range(50)]
    for _ in range(20):
        core.handle(joined(0, held=claims), 0.0)
    assert due(core) == 1


def test_strange_tasks_are_killed_in_parts():
    core = scheduler()
    claims = [f"stray-{number}" for number in range(2 * KILLS_AT_A_TIME + 1)]
    core.handle(joined(0, held=[(id, 1) for id in claims]), 0.0)
    told, now = [], 2.0
    while due(core):
        part = kills(core, now)
        assert len(part) <= KILLS_AT_A_TIME
        told += part
        now += 1.0
    assert told == claims


def test_a_strange_task_is_killed_in_time_however_often_its_engine_says_hello():
    core = scheduler()
    for now in (0.0, 0.5, 1.0, 1.5):
        assert run(core, (now, joined(0, held=[("stray", 1)]))) == [("cancel", 0, "stray")]
    assert run(core, (2.0, Ticked())) == [("kill", 0, "stray")]


def test_a_strange_task_that_the_engine_has_dropped_is_not_killed():
    core = scheduler()
    run(core, joined(0, held=[("stray", 1)]), (1.0, joined(0)))
    assert run(core, (9.0, Ticked())) == []


def test_cancelling_a_task_again_and_again_adds_no_more_kills():
    core = scheduler()
    run(core, joined(0), submitted("a"), started(0, "a"))
    for _ in range(20):
        core.handle(AbortRequested(["a"], running=True), 1.0)
        core.handle(joined(0, held=[("a", 1)]), 1.0)
    assert due(core) == 1
    assert kills(core, 3.0) == ["a"]
    assert kills(core, 5.0) == ["a"], "until it has ended"
    assert due(core) == 1
