"""Rare stories, most of which a simulation told first."""

from __future__ import annotations

from stories import done, finished, joined, outcome, raised, recovered, returned, run, scheduler, submitted

from engineroom.core.dependencies import TaskOutcome
from engineroom.core.events import AbortRequested, OutcomesFound, Ticked
from engineroom.messages import GraphDependency


def test_a_task_that_follows_others_still_does_when_it_is_tried_again_after_a_restart():
    core = scheduler()
    run(core, recovered("b", follow=GraphDependency(("a",)), retries=1), joined(0, held=[("b", 1)]), joined(1))
    assert run(core, finished(0, raised("b"))) == [("send", 0, "b#2")]
    assert run(core, returned(0, "b", attempt=2)) == [("send", 0, "b#2")]


def test_tasks_that_wait_for_each_other_are_found():
    core = scheduler()
    run(core, joined(0), submitted("a", after=GraphDependency(("b",))), submitted("b", after=GraphDependency(("c",))))
    assert run(core, submitted("c", after=GraphDependency(("a",)))) == [
        ("end", "c", "InvalidDependency"),
        ("end", "b", "ImpossibleDependency"),
        ("end", "a", "ImpossibleDependency"),
    ]


def test_a_task_that_others_named_before_it_was_known_may_depend_on_others():
    core = scheduler()
    run(core, joined(0), submitted("a", after=GraphDependency(("b",))))
    run(core, submitted("x"), submitted("b", after=GraphDependency(("x",))))
    assert run(core, finished(0, "x")) == [("send", 0, "b"), ("end", "x", "ok")]
    assert run(core, finished(0, "b")) == [("send", 0, "a"), ("end", "b", "ok")]
    run(core, OutcomesFound({"b": TaskOutcome(True, "u0")}))  # late news


def test_without_any_grace_a_cancelled_task_is_killed_at_once_but_not_for_ever():
    core = scheduler(cancel_grace=0.0)
    assert run(core, joined(0), submitted("a"), AbortRequested(["a"], True))[-1] == ("cancel", 0, "a")
    assert run(core, (1.0, Ticked())) == [("kill", 0, "a")]
    assert core.next_deadline() > 1.0
    assert outcome(core, finished(0, done("a"))).status == "ok"


def test_what_is_aborted_while_its_engine_is_on_its_way_back_may_be_running_there():
    core = scheduler()
    assert run(core, recovered("a", "b", "c"), AbortRequested(["a"]), AbortRequested(["b", "c"], True)) == []
    assert run(core, joined(0, held=[("a", 1)])) == [("recall", 0, "a")], "what runs goes on, and keeps its engine"
    assert run(core, joined(1, held=[("b", 1)])) == [("cancel", 1, "b")]
    assert run(core, (5.0, Ticked())) == [("end", "c", "TaskAborted"), ("kill", 1, "b")], "nobody came back with c"
    assert run(core, finished(0, "a")) == [("end", "a", "ok")]


def test_an_engine_that_comes_back_too_late_is_freed_of_what_others_do_now():
    core = scheduler(cancel_grace=2.0)
    run(core, recovered("a"), joined(1), (5.0, Ticked()))
    assert core.tasks["a"].engine == 1
    assert run(core, joined(0, held=[("a", 1)])) == [("cancel", 0, "a")]
    assert run(core, (7.0, Ticked())) == [("kill", 0, "a")], "if it is still at it"


def test_an_engine_that_cannot_answer_loses_what_it_has_not_begun():
    core = scheduler(hwm=None)
    run(core, joined(0), joined(1), submitted("a", "b", "c", "d"))
    first, second = list(core.engines[0].held)
    run(core, (0.1, finished(1, *core.engines[1].held)), (0.2, Ticked()))
    assert core.engines[0].recalled == {second}
    assert run(core, (1.5, Ticked())) == [("send", 1, f"{second}#2")]
    assert list(core.engines[0].held) == [first]
    assert run(core, (2.0, finished(0, first, second))) == [("end", first, "ok")], "news of an attempt given up"


def test_the_time_a_task_may_wait_goes_on_over_a_restart():
    core = scheduler()
    run(core, joined(0), recovered("a"), recovered("b", after=GraphDependency(("a",)), timeout=3.0))
    assert ("end", "b", "DependencyTimeout") in run(core, (5.0, Ticked()))


def test_waiting_for_resources_is_subject_to_the_timeout():
    core = scheduler()
    run(core, joined(0), submitted("a", resources={"gpu": 1}, timeout=1.0))
    assert run(core, (1.0, Ticked())) == [("end", "a", "DependencyTimeout")]
