"""Tasks that wait for other tasks of their own cluster: their engine has room for others meanwhile."""

from __future__ import annotations

from stories import finished, joined, raised, run, scheduler, submitted, waiting

from engineroom.core.events import AbortRequested, EngineLeft, EngineLost
from engineroom.core.explain import explain


def test_an_engine_whose_task_waits_gets_one_more():
    core = scheduler()
    assert run(core, joined(0), submitted("outer"), submitted("inner", "next")) == [("send", 0, "outer")]
    assert run(core, waiting(0, "outer")) == [("send", 0, "inner")]
    assert run(core, finished(0, "inner")) == [("send", 0, "next"), ("end", "inner", "ok")]
    assert run(core, waiting(0), finished(0, "next")) == [("end", "next", "ok")]
    assert run(core, finished(0, "outer")) == [("end", "outer", "ok")]


def test_waits_may_be_nested():
    core = scheduler()
    run(core, joined(0), submitted("a"), submitted("b"), submitted("c"), waiting(0, "a"))
    assert run(core, waiting(0, "a", "b")) == [("send", 0, "c")]
    run(core, submitted("d"))
    assert run(core, finished(0, "c"), waiting(0, "a"), finished(0, "b")) == [
        ("send", 0, "d"),
        ("end", "c", "ok"),
        ("end", "b", "ok"),
    ]


def test_once_the_task_goes_on_there_is_no_more_room():
    core = scheduler()
    run(core, joined(0), submitted("outer"), waiting(0, "outer"), waiting(0))
    assert run(core, submitted("b")) == []


def test_a_direct_task_for_the_waiting_engine_is_sent():
    core = scheduler()
    run(core, joined(0), submitted("outer"), submitted("inner", engine=0))
    assert run(core, waiting(0, "outer")) == [("send", 0, "inner")]


def test_a_task_that_the_engine_does_not_hold_gives_no_room():
    core = scheduler()
    run(core, joined(0), submitted("a"), submitted("b"))
    assert run(core, waiting(0, "stray", "b"), waiting(7, "a")) == []


def test_an_engine_that_comes_back_says_anew_which_tasks_wait():
    core = scheduler()
    run(core, joined(0), submitted("outer"), waiting(0, "outer"), submitted("inner"))
    again = joined(0, held=[("outer", 1), ("inner", 1)])
    assert run(core, again, submitted("next")) == []
    assert run(core, waiting(0, "outer"), finished(0, "inner")) == [("send", 0, "next"), ("end", "inner", "ok")]


def test_a_waiting_task_that_ends_does_not_count_any_more():
    core = scheduler()
    run(core, joined(0), submitted("outer"), waiting(0, "outer"))
    assert run(core, finished(0, raised("outer")), submitted("b"), submitted("c")) == [
        ("end", "outer", "ValueError"),
        ("send", 0, "b"),
    ]


def test_the_death_of_an_engine_ends_the_waiting_task_and_the_one_inside():
    core = scheduler()
    run(core, joined(0), submitted("outer"), submitted("inner"), submitted("ahead"), waiting(0, "outer"), joined(1))
    told = run(core, EngineLost(0, "killed", "inner", True))
    assert ("end", "outer", "EngineError") in told
    assert ("end", "inner", "EngineError") in told


def test_an_engine_that_leaves_gives_both_to_others():
    core = scheduler()
    run(core, joined(0), submitted("outer"), submitted("inner"), waiting(0, "outer"), EngineLeft(0))
    assert run(core, joined(1)) == [("send", 1, "outer#2")]


def test_a_waiting_task_can_be_cancelled():
    core = scheduler()
    run(core, joined(0), submitted("outer"), waiting(0, "outer"))
    assert ("cancel", 0, "outer") in run(core, AbortRequested(["outer"], running=True))


def test_explain_says_that_engines_wait():
    core = scheduler()
    run(core, joined(0), submitted("outer"), submitted("inner"), submitted("queued"), waiting(0, "outer"))
    told = explain(core, ["outer"], 0.0)["outer"]
    assert told is not None
    assert "it has begun on engine 0 (node, pid 1), and waits for other tasks" in told["reason"]
    told = explain(core, ["queued"], 0.0)["queued"]
    assert told is not None
    assert "On 1 of these engines tasks wait for other tasks (outer)" in told["reason"]
    assert told["details"]["waiting"] == {0: ["outer"]}
    told = explain(core, ["inner"], 0.0)["inner"]
    assert told is not None
    assert "it is running on engine 0" in told["reason"]
