"""A task that has failed is tried on other engines, as long as one is left: stories."""

from __future__ import annotations

from stories import answered, changed, finished, joined, raised, run, scheduler, submitted

from engineroom.core.events import EngineLeft, RecoveredTask, TasksRecovered, Ticked
from engineroom.core.explain import explain
from engineroom.messages import Attempt


def test_a_retry_avoids_the_engines_on_which_the_task_has_failed():
    core = scheduler()
    run(core, joined(0), joined(1), joined(2), submitted("a", retries=3), submitted("b", targets=(1,)))
    assert run(core, finished(0, raised("a"))) == [("send", 2, "a#2")], "engine 0 is free, and has failed"
    assert run(core, finished(2, raised("a", 2))) == [], "engine 1 is left, and busy"
    assert run(core, finished(1, "b"))[0] == ("send", 1, "a#3")


def test_a_retry_that_waits_for_an_engine_that_is_left_says_so():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", retries=1), submitted("b", targets=(1,)), finished(0, raised("a")))
    told = explain(core, ["a"], 0.0)["a"]
    assert "an engine on which it has not failed (1 engine excluded), which is busy" in told["reason"]
    assert told["details"]["failed_on"] == ["u0"]


def test_a_retry_may_run_anywhere_once_no_other_engine_is_left():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", retries=3), submitted("b", targets=(1,)))
    assert run(core, finished(0, raised("a"))) == []
    assert run(core, EngineLeft(1))[0] == ("send", 0, "a#2"), "the other engine went while it waited"
    run(core, joined(3))
    assert run(core, finished(0, raised("a", 2)))[0] != ("send", 0, "a#3"), "an engine that has come is tried next"


def test_a_retry_with_one_target_runs_there_again():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", retries=1, targets=(0,)))
    assert run(core, finished(0, raised("a"))) == [("send", 0, "a#2")]


def test_after_failing_everywhere_a_task_begins_anew():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", retries=9))
    run(core, finished(0, raised("a")))
    [(_, engine, _)] = run(core, finished(1, raised("a", 2)))
    [(_, other, _)] = run(core, finished(engine, raised("a", 3)))
    assert {engine, other} == {0, 1}


def test_a_retry_follows_the_properties_of_engines_before_it_avoids_one():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", depend=True, retries=1), answered(0), submitted("b", targets=(1,)))
    assert run(core, finished(0, raised("a"))) == [], "engine 1 has not answered yet"
    assert run(core, answered(1, "no"))[0] == ("send", 0, "a#2")


def test_a_retry_waits_for_no_engine_whose_properties_have_become_unsuitable():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", depend=True, retries=1), answered(0), answered(1))
    run(core, submitted("b", targets=(1,)))
    assert run(core, finished(0, raised("a"))) == []
    run(core, changed(1))
    assert run(core, answered(1, "no"))[0] == ("send", 0, "a#2")


def test_a_retry_after_a_restart_still_avoids_the_engine():
    core = scheduler()
    spec = submitted("a", retries=2).tasks[0]
    attempt = Attempt(1, 0, "u0", "node", 0.0, 1.0, "ValueError: no")
    run(core, TasksRecovered([RecoveredTask(spec, "me", attempts=[attempt])], 5.0), joined(0), joined(1))
    assert run(core, (6.0, Ticked())) == [("send", 1, "a#3")]
