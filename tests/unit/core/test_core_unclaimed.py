"""After a restart: tasks with which engines come back before their clients say them again.

The controller was killed before it had recorded them. What the engines have of them counts.
"""

from __future__ import annotations

from typing import Any

import pytest
from stories import done, finished, joined, raised, recovered, returned, run, scheduler, submitted, unmet, waiting

from engineroom.core.dependencies import TaskOutcome
from engineroom.core.events import AbortRequested, EngineLeft, EngineLost, OutcomesFound, Ticked
from engineroom.core.tasks import TaskState


def restarted(*awaited: int, **settings: Any):
    """A scheduler that has just begun again, with nothing to recover."""
    core = scheduler(**settings)
    run(core, recovered(awaited=awaited or [0]))
    return core


def test_an_outcome_that_an_engine_has_counts_when_the_client_says_the_task_again():
    core = restarted()
    assert run(core, joined(0, held=[("a", 1), ("b", 1)]), finished(0, "a", "b")) == [("find", "a", "b")]
    assert run(core, submitted("a", "b", engine=0, former=True)) == [("end", "a", "ok"), ("end", "b", "ok")]
    assert core.engines[0].completed == 2


def test_direct_tasks_go_on_where_their_engine_is():
    core = restarted(hwm=4)
    run(core, joined(0, held=[("a", 1), ("b", 1)]), finished(0, "a"))
    told = run(core, submitted("a", "b", "c", engine=0, former=True))
    assert told == [("send", 0, "c"), ("end", "a", "ok")]
    assert run(core, finished(0, "b", "c")) == [("end", "b", "ok"), ("end", "c", "ok")]


def test_an_outcome_comes_after_the_client_has_said_the_task_again():
    core = restarted()
    run(core, joined(0, held=[("a", 3)]))
    assert run(core, submitted("a", former=True)) == []
    assert core.tasks["a"].engine == 0
    assert run(core, finished(0, done("a", 3))) == [("end", "a", "ok")]


def test_a_task_is_taken_from_nobody_who_has_not_named_it():
    core = restarted(0, 1)
    run(core, joined(0, held=[("a", 1)]), joined(1), finished(1, "a"))
    assert run(core, submitted("a", former=True)) == []
    assert core.tasks["a"].engine == 0


def test_a_direct_task_is_only_its_own_engines():
    core = restarted(0, 1)
    run(core, joined(0, held=[("a", 1)]), joined(1), finished(0, "a"))
    assert run(core, submitted("a", engine=1, former=True)) == [("send", 1, "a")]


def test_attempts_that_cannot_be_are_not_believed():
    core = restarted()
    run(core, joined(0, held=[("a", 1 << 40)]))
    assert run(core, submitted("a", former=True)) == [("send", 0, "a")]


@pytest.mark.parametrize("outcome", [raised("a"), unmet("a")])
def test_a_task_that_has_not_succeeded_there_is_tried_again_if_it_may_be(outcome):
    core = restarted(0, 1)
    run(core, joined(0, held=[("a", 1)]), joined(1), finished(0, outcome))
    assert run(core, submitted("a", retries=1, former=True)) == [("send", 1, "a#2")]


def test_its_error_is_told():
    core = restarted()
    run(core, joined(0, held=[("a", 1)]), finished(0, raised("a")))
    assert run(core, submitted("a", former=True)) == [("end", "a", "ValueError")]


def test_an_outcome_stays_when_its_engine_goes():
    core = restarted(0, 1)
    run(core, joined(0, held=[("a", 1), ("b", 1)]), joined(1), finished(0, "a"), EngineLost(0, "killed"))
    told = run(core, submitted("a", "b", engine=0, former=True))
    assert told == [("end", "b", "EngineError"), ("end", "a", "ok")]


@pytest.mark.parametrize("leaves", [EngineLost(0, "killed"), EngineLeft(0)])
def test_what_an_engine_had_begun_runs_on_another_when_it_goes(leaves):
    core = restarted(0, 1)
    run(core, joined(0, held=[("a", 1)]), joined(1), leaves)
    assert run(core, submitted("a", former=True)) == [("send", 1, "a")]


def test_what_an_engine_does_not_name_again_it_has_not():
    core = restarted()
    run(core, joined(0, held=[("a", 1), ("b", 1)]), finished(0, "a"), joined(0))
    assert run(core, submitted("b", "a", former=True)) == [("send", 0, "b"), ("end", "a", "ok")]


def test_what_it_gives_back_is_not_its_own():
    core = restarted()
    run(core, joined(0, held=[("a", 1)]), returned(0, "a"))
    assert run(core, submitted("a", former=True)) == [("send", 0, "a")]


def test_a_task_that_waits_for_others_takes_no_room():
    core = restarted()
    run(core, joined(0, held=[("a", 1)]), waiting(0, "a"))
    assert run(core, submitted("a", former=True), submitted("b")) == [("send", 0, "b")]


def test_it_can_be_aborted_when_it_is_known():
    core = restarted()
    run(core, joined(0, held=[("a", 1)]), submitted("a", former=True))
    assert run(core, AbortRequested(["a"], running=True)) == [("cancel", 0, "a")]


def test_nobody_asks_for_it_in_time():
    core = restarted()
    run(core, joined(0, held=[("a", 1), ("b", 1)]), finished(0, "a"))
    assert core.next_deadline() == 5.0
    assert run(core, (5.0, Ticked())) == [("cancel", 0, "b")]
    assert run(core, (7.0, Ticked())) == [("kill", 0, "b")]
    assert run(core, submitted("a", former=True)) == [("send", 0, "a")]


def test_what_ended_in_this_life_is_strange_at_once():
    core = restarted()
    run(core, joined(0), submitted("a"), finished(0, "a"))
    assert run(core, joined(0, held=[("a", 1), ("b", 1)])) == [("cancel", 0, "a"), ("find", "b")]


def test_what_was_cancelled_before_is_not_forgotten_when_the_time_is_over():
    core = restarted()
    run(core, joined(0), submitted("a"), finished(0, "a"), (4.0, joined(0, held=[("a", 1), ("b", 1)])))
    assert run(core, (5.0, Ticked())) == [("cancel", 0, "b")]
    assert run(core, (6.0, Ticked())) == [("kill", 0, "a"), ("kill", 0, "b")]


def test_what_the_store_knows_to_have_ended_is_dropped():
    core = restarted()
    run(core, joined(0, held=[("a", 1), ("b", 1), ("c", 1)]), finished(0, "a"))
    assert core.has_unclaimed_of("u0")
    found = {"a": TaskOutcome(True), "b": TaskOutcome(False), "c": None}
    assert run(core, OutcomesFound(found)) == [("cancel", 0, "b")]
    assert not core.has_unclaimed_of("u0")
    assert run(core, submitted("c", former=True)) == []
    assert core.tasks["c"].engine == 0
    assert run(core, (2.0, Ticked())) == [("kill", 0, "b")]


def test_the_store_is_asked_once():
    core = restarted()
    assert run(core, joined(0, held=[("a", 1)])) == [("find", "a")]
    assert run(core, finished(0, "a"), joined(0, held=[("a", 1)])) == []


@pytest.mark.parametrize("ends", [(0.0, submitted("a", "b", former=True)), (5.0, Ticked())])
def test_outcomes_wait_for_their_clients(ends):
    core = restarted()
    run(core, joined(0, held=[("a", 1), ("b", 1)]), finished(0, "a", "b"), finished(0, "a"))
    assert core.has_unclaimed_of("u0")
    run(core, ends)
    assert not core.has_unclaimed_of("u0")


# ------------------------------------------------------------------------------ the client is back before the engine


def test_a_task_that_is_said_again_waits_for_the_engines_that_may_have_it():
    core = restarted(0, 1)
    assert run(core, submitted("a", "b", former=True), joined(1)) == []
    assert core.tasks["a"].state is TaskState.RECOVERING
    assert run(core, joined(0, held=[("a", 1)])) == [("send", 1, "b#2")]
    assert run(core, finished(0, "a")) == [("end", "a", "ok")]


def test_direct_tasks_that_are_said_again_keep_their_order():
    core = restarted(hwm=10)
    run(core, submitted("a", "b", "c", engine=0, former=True), submitted("d", engine=0))
    assert run(core, joined(0, held=[("a", 1)])) == [("send", 0, "b#2", "c#2", "d")]


def test_those_of_the_store_come_first():
    core = scheduler(hwm=10)
    run(core, recovered("a", "b", engine=0, awaited=[0]), submitted("c", engine=0, former=True))
    assert run(core, joined(0, held=[("a", 1)])) == [("send", 0, "b#2", "c#2")]


def test_an_engine_that_is_back_has_not_got_what_it_has_not_named():
    core = restarted(0, 1, hwm=2)
    assert run(core, joined(0), submitted("a", engine=0, former=True)) == [("send", 0, "a")]


def test_nobody_waits_if_all_are_back():
    core = restarted(0)
    assert run(core, joined(0), submitted("a", former=True)) == [("send", 0, "a")]


def test_nobody_waits_for_what_was_never_said_before():
    core = restarted(0, 1)
    assert run(core, joined(0), submitted("a")) == [("send", 0, "a")]


def test_a_scheme_that_there_is_not_ends_a_task_also_now():
    core = restarted(0, 1)
    told = run(core, submitted("a", scheme="none", inputs=("b",), former=True))
    assert told == [("end", "a", "ConfigError"), ("release", "b")]


def test_what_is_said_again_waits_until_the_deadline():
    core = restarted(0, 1)
    run(core, submitted("a", former=True), submitted("b", engine=1, former=True), joined(0))
    assert run(core, (5.0, Ticked())) == [("send", 0, "a#2"), ("end", "b", "EngineError")]


def test_what_is_said_again_is_recorded_once_and_waits_for_others():
    core = restarted(0, 1)
    run(core, submitted("a", former=True), submitted("b", inputs=("a",), former=True), joined(0))
    assert run(core, joined(1)) == [("send", 0, "a#2")]
    told = run(core, finished(0, done("a", 2)))
    assert ("end", "a", "ok") in told
    assert core.tasks["b"].state is TaskState.HELD


# ------------------------------------------------------------------------------------------------- at most once


def test_what_runs_at_most_once_goes_on_where_it_is():
    core = restarted()
    run(core, joined(0, held=[("a", 1), ("b", 1)]), finished(0, "a"))
    told = run(core, submitted("a", "b", at_most_once=True, former=True))
    assert told == [("end", "a", "ok")]
    assert run(core, finished(0, "b")) == [("end", "b", "ok")]


def test_what_runs_at_most_once_waits_for_those_that_may_have_it():
    core = restarted(0, 1)
    run(core, submitted("a", "b", at_most_once=True, former=True), joined(1))
    assert run(core, joined(0, held=[("a", 1)])) == [("end", "b", "EngineError")]
    assert run(core, finished(0, "a")) == [("end", "a", "ok")]


@pytest.mark.parametrize("engine", [-1, 0])
def test_what_may_have_run_once_is_not_begun_when_nobody_has_it(engine: int):
    core = restarted()
    run(core, joined(0))
    told = run(core, submitted("a", engine=engine, at_most_once=True, inputs=("b",), former=True))
    assert told == [("end", "a", "EngineError"), ("release", "b")]
    assert run(core, (9.0, Ticked()), submitted("c", at_most_once=True, former=True)) == [("end", "c", "EngineError")]
    assert run(core, submitted("d", at_most_once=True)) == [("send", 0, "d")]


# ------------------------------------------------------------------------------------------------------- aborted


def test_what_was_aborted_stays_so():
    core = restarted()
    run(core, joined(0))
    assert run(core, submitted("a", "b", former=True, aborted=["a"])) == [("send", 0, "b"), ("end", "a", "TaskAborted")]


def test_an_engine_that_has_it_drops_it():
    core = restarted()
    run(core, joined(0, held=[("a", 1), ("b", 1)]), finished(0, "b"))
    told = run(core, submitted("a", "b", former=True, aborted=["a", "b"]))
    assert told == [("cancel", 0, "a"), ("end", "a", "TaskAborted"), ("end", "b", "TaskAborted")]
    assert run(core, (2.0, Ticked())) == [("kill", 0, "a")]
