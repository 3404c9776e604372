"""Stories about tasks that depend on engines' properties: who is asked, when, and what follows from the answers."""

from __future__ import annotations

from stories import answered, changed, finished, joined, recovered, returned, run, scheduler, submitted

from engineroom.core.events import AbortRequested, EngineLost, Ticked
from engineroom.core.explain import explain
from engineroom.core.tasks import TaskState


def test_an_engine_is_asked_before_it_gets_a_task():
    core = scheduler()
    assert run(core, joined(0), submitted("a", depend=True)) == [("ask", 0, b"f")]
    assert run(core, answered(0)) == [("send", 0, "a")]
    assert run(core, finished(0, "a")) == [("end", "a", "ok")]


def test_each_engine_is_asked_once_however_many_tasks_there_are():
    core = scheduler()
    told = run(core, joined(0), joined(1), submitted(*(f"t{n}" for n in range(1000)), depend=True))
    told += run(core, submitted("later", depend=True))
    assert told == [("ask", 0, b"f"), ("ask", 1, b"f")]
    told = run(core, answered(0, "too small"), answered(1))
    assert told == [("send", 1, "t0")]
    assert run(core, finished(1, "t0")) == [("send", 1, "t1"), ("end", "t0", "ok")]


def test_what_no_engine_suits_waits_and_says_why():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", depend=True), answered(0, "its depend is false"))
    run(core, (1000.0, Ticked()))
    assert core.tasks["a"].state is TaskState.QUEUED
    told = explain(core, ["a"], 1000.0)["a"]
    assert told is not None
    assert "engine 0: its depend is false" in told["reason"]
    assert told["details"]["asked"] == [1]


def test_when_properties_change_the_engine_is_asked_again():
    core = scheduler()
    run(core, joined(0), submitted("a", depend=True), answered(0, "no"))
    assert run(core, changed(0)) == [("ask", 0, b"f")]
    assert run(core, answered(0)) == [("send", 0, "a")]
    assert run(core, changed(0)) == [], "nobody waits"


def test_an_answer_holds_until_properties_change():
    core = scheduler()
    run(core, joined(0), submitted("a", depend=True), answered(0), finished(0, "a"))
    assert run(core, submitted("b", depend=True)) == [("send", 0, "b")]


def test_a_question_under_way_is_not_repeated():
    core = scheduler()
    run(core, joined(0), submitted("a", depend=True))
    assert run(core, changed(0)) == [], "the answer will be about the new properties"


def test_a_new_engine_is_asked():
    core = scheduler()
    run(core, joined(0), submitted("a", depend=True), answered(0, "no"))
    assert run(core, joined(1)) == [("ask", 1, b"f")]
    assert run(core, answered(1)) == [("send", 1, "a")]


def test_an_engine_that_comes_again_is_asked_again_for_the_answer_may_have_been_lost():
    core = scheduler()
    run(core, joined(0), submitted("a", depend=True))
    assert run(core, joined(0)) == [("ask", 0, b"f")]


def test_an_engine_may_find_at_the_last_moment_that_a_task_does_not_suit_it_any_more():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", depend=True), answered(0), answered(1, "no"))
    told = run(core, answered(0, "no"), returned(0, "a"))
    assert told == [], "it waits again, and goes to nobody"
    assert run(core, changed(1), answered(1)) == [("ask", 1, b"f"), ("send", 1, "a")]


def test_tasks_with_other_functions_are_asked_about_apart():
    core = scheduler()
    run(core, joined(0), submitted("a", depend=True), answered(0, "no"))
    assert run(core, answered(0, "", b"g")) == []
    assert core.tasks["a"].state is TaskState.QUEUED


def test_an_aborted_task_is_asked_for_no_more():
    core = scheduler()
    run(core, joined(0), submitted("a", depend=True), answered(0, "no"))
    assert run(core, AbortRequested(["a"])) == [("end", "a", "TaskAborted")]
    assert run(core, changed(0), joined(1)) == []


def test_targets_hold_as_well_and_when_the_last_is_lost_the_task_is_impossible():
    core = scheduler()
    told = run(core, joined(0), joined(1), submitted("a", depend=True, targets=(1,)))
    assert told == [("ask", 1, b"f")]
    run(core, answered(1, "no"))
    assert run(core, EngineLost(1, "killed")) == [("end", "a", "ImpossibleDependency")]


def test_after_a_restart_an_engine_keeps_the_task_it_holds():
    core = scheduler()
    assert run(core, recovered("a", depend=True), joined(0, held=[("a", 1)])) == []
    assert core.tasks["a"].state is TaskState.HELD


def test_after_a_death_the_retry_goes_where_properties_allow_it():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", depend=True, retries=1), answered(0), answered(1, "no"))
    assert run(core, EngineLost(0, "killed", "a", True)) == []
    assert run(core, joined(2), answered(2)) == [("ask", 2, b"f"), ("send", 2, "a#2")]


def test_a_direct_task_goes_where_it_is_sent():
    core = scheduler()
    assert run(core, joined(0), submitted("a", engine=0, depend=True)) == [("send", 0, "a")]
