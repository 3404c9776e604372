"""After a restart, when it is known which engines were connected before it: who waits, and for how long."""

from __future__ import annotations

from typing import Any

import pytest
from stories import done, finished, joined, recovered, returned, run, scheduler, submitted

from engineroom.core.checks import check
from engineroom.core.events import AbortRequested, AwaitedEnginesEnded, EngineLost, TasksFailed, TasksRecovered, Ticked
from engineroom.core.explain import explain
from engineroom.core.tasks import TaskState
from engineroom.messages import ErrorInfo


def test_nobody_waits_any_longer_once_all_engines_are_back():
    core = scheduler()
    assert run(core, recovered("a", "b", "c", awaited=[0, 1]), (1.0, joined(0, held=[("b", 1)]))) == []
    assert run(core, (1.1, joined(1))) == [("send", 1, "a#2")]
    assert core.recovery_deadline is None
    assert core.next_deadline() == 5.0, "until then clients may say tasks again"
    assert run(core, finished(0, "b")) == [("send", 0, "c#2"), ("end", "b", "ok")]
    assert run(core, (5.0, Ticked())) == []
    assert core.next_deadline() is None


def test_an_engine_that_has_ended_is_not_waited_for():
    core = scheduler()
    run(core, recovered("a", "b", awaited=[0, 1]), joined(0))
    assert run(core, AwaitedEnginesEnded(["nobody"])) == []
    assert run(core, AwaitedEnginesEnded(["u1"])) == [("send", 0, "a#2")]
    assert core.recovery_deadline is None
    assert run(core, AwaitedEnginesEnded(["u1"])) == [], "it is said twice"


def test_if_no_engine_was_connected_before_nothing_is_waited_for():
    core = scheduler()
    run(core, recovered("a", awaited=[]))
    assert core.recovery_deadline is None
    assert run(core, joined(0)) == [("send", 0, "a#2")]


def test_new_engines_do_not_stand_in_for_those_that_are_missing():
    core = scheduler()
    assert run(core, recovered("a", awaited=[0]), joined(1), joined(0, "new")) == []
    assert run(core, (4.9, Ticked())) == []
    assert len(run(core, (5.0, Ticked()))) == 1


def test_an_engine_that_came_back_and_is_lost_again_is_not_waited_for():
    core = scheduler()
    run(core, recovered("a", "b", awaited=[0, 1]), joined(0, held=[("a", 1)]), EngineLost(0, "killed"))
    assert run(core, (1.0, joined(1))) == [("send", 1, "b#2")]


def test_a_task_that_names_its_engines_waits_for_these_only():
    core = scheduler(hwm=3)
    run(core, recovered("a", targets=(0, 7), awaited=[0, 1, 2]), recovered("b", targets=(0, 1), awaited=[0, 1, 2]))
    run(core, recovered("c", engine=0, awaited=[0, 1, 2]), recovered("d", awaited=[0, 1, 2]))
    [told] = run(core, (1.0, joined(0)))
    assert sorted(told[2:]) == ["a#2", "c#2"], "engine 7 was gone before"
    assert run(core, (1.1, joined(1))) == [("send", 1, "b#2")]
    assert run(core, (1.2, joined(2))) == [("send", 2, "d#2")]
    assert core.recovery_deadline is None


def test_if_nobody_knows_which_engines_there_were_a_task_waits_for_all_that_it_names():
    core = scheduler(hwm=2)
    assert run(core, recovered("a", targets=(0, 1)), joined(0)) == []
    assert run(core, (1.0, joined(1))) != []


def test_tasks_for_engines_that_are_gone_wait_for_others_with_their_numbers():
    core = scheduler()
    run(core, recovered("a", "b", engine=3, awaited=[]), recovered("c", targets=(4,), awaited=[]))
    assert core.recovery_deadline == 5.0
    run(core, recovered("d", awaited=[]), (1.0, joined(4)))
    assert core.tasks["c"].engine == 4
    assert run(core, (2.0, joined(3, "other"))) == [("send", 3, "a#2")]
    assert core.recovery_deadline is None
    core = scheduler()
    run(core, recovered("a", engine=3, awaited=[0]), recovered("c", targets=(4,), awaited=[0]), (1.0, joined(0)))
    assert run(core, (5.0, Ticked())) == [("end", "a", "EngineError"), ("end", "c", "ImpossibleDependency")]


def test_a_direct_task_that_came_meanwhile_still_waits_for_its_number():
    core = scheduler()
    run(core, recovered(awaited=[0, 1]), submitted("a", engine=1), joined(0), AwaitedEnginesEnded(["u1"]))
    assert core.recovery_deadline == 5.0, "the nanny starts another"
    assert run(core, (1.0, joined(1, "other"))) == [("send", 1, "a")]
    assert core.recovery_deadline is None


@pytest.mark.parametrize("more", [{}, {"engine": 0}])
def test_what_must_not_run_again_ends_when_all_are_back(more: Any):
    core = scheduler()
    run(core, recovered("once", at_most_once=True, awaited=[0, 1], **more))
    run(core, recovered("aborted", awaited=[0, 1], **more), AbortRequested(["aborted"]), joined(1))
    assert sorted(run(core, joined(0))) == [("end", "aborted", "TaskAborted"), ("end", "once", "EngineError")]
    assert core.recovery_deadline is None


def test_a_result_that_an_engine_kept_counts_though_all_others_are_back():
    core = scheduler()
    run(core, recovered("a", "b", awaited=[0]))
    assert run(core, joined(0, held=[("a", 1)])) == []
    assert run(core, finished(0, done("a"))) == [("send", 0, "b#2"), ("end", "a", "ok")]


def test_an_explanation_names_the_missing_engines():
    core = scheduler()
    run(core, recovered("a", awaited=[0, 4, 2]), joined(2))
    told = explain(core, ["a"], 2.0)["a"]
    assert told["details"]["missing"] == [0, 4]
    assert told["reason"].endswith("for 3.0 s more at most. Engines that have not come back: 0, 4")


def test_named_tasks_are_not_kept_in_mind_for_ever():
    core = scheduler()
    run(core, TasksRecovered(recovered("a", engine=0).tasks, 5.0, {"u0": 0}), joined(0))
    assert core.state.recovering_named == {}


def test_a_task_that_is_given_back_waits_for_an_argument_that_must_be_made_again():
    """Its result was lost with the controller: it had not been recorded."""
    core = scheduler()
    run(core, recovered("a", awaited=[0, 1]), recovered("b", inputs=("a",), awaited=[0, 1]))
    run(core, joined(0, held=[("b", 1)]))
    assert run(core, returned(0, "b")) == []
    assert run(core, joined(1)) != [], "a"
    assert core.tasks["b"].engine is None
    told = run(core, finished(core.tasks["a"].engine, done("a", 2)))
    assert ("end", "a", "ok") in told
    assert core.tasks["b"].engine is not None


def test_a_task_that_waits_again_can_be_aborted_and_ends_with_what_it_waits_for():
    core = scheduler()
    run(core, recovered("a", awaited=[0, 1]), recovered("b", "c", inputs=("a",), awaited=[0, 1]))
    run(core, joined(0, held=[("b", 1), ("c", 1)]), returned(0, "b", "c"))
    assert run(core, AbortRequested(["b"])) == [("end", "b", "TaskAborted")]
    assert set(run(core, TasksFailed(["a"], ErrorInfo("StoreError", "no")))) >= {("end", "c", "ImpossibleDependency")}


@pytest.mark.parametrize("awaited", [[0, 1], None])
def test_a_task_whose_engine_came_back_without_it_and_left_does_not_wait_for_ever(awaited):
    core = scheduler()
    run(core, recovered("once", engine=0, at_most_once=True, awaited=awaited))
    run(core, joined(0), EngineLost(0, "killed"), joined(1))
    check(core)
    assert core.recovery_deadline == 5.0, "the task waits, so there is a deadline"
    run(core, (5.0, Ticked()))
    assert core.task("once") is None
    check(core)


def test_a_task_runs_once_all_the_engines_that_it_names_are_back():
    core = scheduler()
    run(core, recovered("once", targets=(0, 1), at_most_once=True), recovered("a", targets=(0, 1)))
    run(core, joined(0))
    assert core.task("a").state is TaskState.RECOVERING
    run(core, joined(1))
    assert core.task("a").state is not TaskState.RECOVERING


def test_direct_tasks_from_before_the_restart_come_before_those_that_came_meanwhile():
    core = scheduler(hwm=10)
    run(core, recovered("a", "b", "c", "d", engine=0, awaited=[0]), submitted("e", engine=0))
    assert run(core, joined(0, held=[("a", 1)])) == [("send", 0, "b#2", "c#2", "d#2", "e")]


def test_direct_tasks_keep_their_order_when_their_engine_comes_back_later_than_known():
    core = scheduler(hwm=10)
    run(core, recovered("a", "b", engine=0, awaited=None), submitted("c", engine=0))
    assert run(core, joined(0), submitted("d", engine=0)) == [("send", 0, "a#2", "b#2", "c"), ("send", 0, "d")]
