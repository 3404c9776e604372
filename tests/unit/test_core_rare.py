"""Rare stories, most of which a simulation told first."""

from __future__ import annotations

from stories import done, finished, joined, outcome, raised, recovered, returned, run, scheduler, submitted

from engineroom.core.events import AbortRequested, OutcomesFound, Ticked
from engineroom.core.graph import Outcome
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
    run(core, OutcomesFound({"b": Outcome(True, "u0")}))  # late news


def test_without_any_grace_a_cancelled_task_is_killed_at_once_but_not_for_ever():
    core = scheduler(cancel_grace=0.0)
    assert run(core, joined(0), submitted("a"), AbortRequested(["a"], True))[-1] == ("cancel", 0, "a")
    assert run(core, (1.0, Ticked())) == [("kill", 0, "a")]
    assert core.next_deadline() > 1.0
    assert outcome(core, finished(0, done("a"))).status == "ok"
