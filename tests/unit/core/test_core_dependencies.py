"""Tasks that depend on others, or on what an engine is like: stories."""

from __future__ import annotations

from typing import Any

import pytest
from stories import (
    done,
    finished,
    in_short,
    joined,
    outcome,
    raised,
    recovered,
    run,
    scheduler,
    submitted,
    unmet,
)

from engineroom.core import Scheduler
from engineroom.core.dependencies import TaskOutcome
from engineroom.core.events import (
    AbortRequested,
    EngineLeft,
    EngineLost,
    EnginesStopped,
    Event,
    OutcomesFound,
    TasksSubmitted,
    Ticked,
)
from engineroom.core.tasks import TaskState
from engineroom.messages import GraphDependency

OK = TaskOutcome(True, "u0")
FAILED = TaskOutcome(False, "u0", False, "failed: ValueError: no", ("x",), 1)


def on(*ids: str, all: bool = True, success: bool = True, failure: bool = False) -> GraphDependency:
    return GraphDependency(ids, all, success, failure)


def errors(core: Scheduler, event: Event, now: float | None = None) -> dict[str, str]:
    """The errors an event brings: by task, as text."""
    told = {}
    for action in core.handle(event, core.now if now is None else now):
        for one in getattr(action, "tasks", ()):
            if hasattr(one, "done") and one.done.error is not None:
                told[one.done.id] = f"{one.done.error.ename}: {one.done.error.evalue}"
    return told


# -------------------------------------------------------------------------------------------- after: when


def test_a_task_waits_until_all_it_depends_on_have_ended():
    assert run(
        scheduler(hwm=0),
        joined(0),
        submitted("a", "b"),
        submitted("c", after=on("a", "b")),
        finished(0, "b"),
        finished(0, "a"),
    ) == [("send", 0, "a", "b"), ("end", "b", "ok"), ("send", 0, "c"), ("end", "a", "ok")]


def test_any_of_several_is_enough_if_any_is_asked_for():
    assert run(
        scheduler(hwm=0),
        joined(0),
        submitted("a", "b"),
        submitted("c", after=on("a", "b", all=False)),
        finished(0, "b"),
    ) == [("send", 0, "a", "b"), ("send", 0, "c"), ("end", "b", "ok")]


def test_what_has_ended_before_is_remembered():
    core = scheduler()
    run(core, joined(0), submitted("a"), finished(0, "a"))
    assert run(core, submitted("b", after=on("a"))) == [("send", 0, "b")]


def test_a_dependency_on_nothing_is_met():
    assert run(scheduler(), joined(0), submitted("a", after=on(), follow=on())) == [("send", 0, "a")]


def test_what_the_core_does_not_know_is_asked_of_the_store():
    core = scheduler()
    assert run(core, joined(0), submitted("b", "c", after=on("old"))) == [("find", "old")], "once for all"
    assert run(core, OutcomesFound({"old": OK})) == [("send", 0, "b")]


def test_a_task_that_is_nowhere_is_named():
    core = scheduler()
    run(core, joined(0), submitted("b", after=on("nonsense")))
    [text] = errors(core, OutcomesFound({"nonsense": None})).values()
    assert text.startswith("InvalidDependency: task b can never run: it depends on nonsense, and there is no such")


@pytest.mark.fault(41)
def test_a_failure_makes_what_depends_on_it_impossible_with_the_path():
    core = scheduler()
    run(core, joined(0), submitted("a"), submitted("b", after=on("a")), submitted("c", after=on("b")))
    told = errors(core, finished(0, raised("a")))
    assert told["b"] == "ImpossibleDependency: task b can never run: it depends on a, which failed: ValueError: no"
    assert told["c"].endswith("it depends on b, which depends on a, which failed: ValueError: no")


def test_a_long_chain_falls_at_once_and_its_path_stays_short():
    core = scheduler()
    count = 20_000
    run(core, joined(0), submitted("t0"))
    for n in range(1, count):
        core.handle(submitted(f"t{n}", after=on(f"t{n - 1}")), 0.0)
    told = errors(core, finished(0, raised("t0")))
    assert len(told) == count
    last = told[f"t{count - 1}"]
    assert last.endswith(f"t{count - 7}, which depends on {count - 7} more, the last of which failed: ValueError: no")
    assert len(last) < 500


def test_a_retry_is_not_yet_a_failure():
    core = scheduler()
    run(core, joined(0), submitted("a", retries=1), submitted("b", after=on("a")))
    assert run(core, finished(0, raised("a"))) == [("send", 0, "a#2")]
    assert ("send", 0, "b") in run(core, finished(0, done("a", 2)))


def test_an_aborted_task_counts_as_failed():
    core = scheduler()
    run(core, submitted("a"), submitted("b", after=on("a")))
    told = errors(core, AbortRequested(["a"]))
    assert told["b"].endswith("it depends on a, which was aborted")


@pytest.mark.parametrize(
    ("wish", "first", "second", "expected"),
    [
        ({"success": False, "failure": True}, "bad", "bad", "runs"),
        ({"success": False, "failure": True}, "good", None, "impossible"),
        ({"success": True, "failure": True}, "bad", "good", "runs"),
        ({"all": False}, "bad", "good", "runs"),
        ({"all": False}, "bad", "bad", "impossible"),
        ({"all": False, "success": False, "failure": True}, "good", "bad", "runs"),
        ({"all": False, "success": False, "failure": True}, "good", "good", "impossible"),
        ({"all": False, "success": True, "failure": True}, "bad", None, "runs"),
    ],
)
def test_which_ends_count(wish: dict[str, bool], first: str, second: str | None, expected: str):
    core = scheduler(hwm=0)
    run(core, joined(0), submitted("a", "b"), submitted("c", after=on("a", "b", **wish)))
    for id, end in (("a", first), ("b", second)):
        assert core.tasks["c"].state is TaskState.WAITING
        if end is not None:
            run(core, finished(0, raised(id) if end == "bad" else id))
        if "c" not in core.tasks or core.tasks["c"].state is not TaskState.WAITING:
            break
    assert ("runs" if "c" in core.tasks else "impossible") == expected


def test_a_task_cannot_depend_on_itself():
    assert "depends on itself" in errors(scheduler(), submitted("a", after=on("a")))["a"]


@pytest.mark.fault(41)
def test_tasks_that_wait_for_each_other_end_at_once():
    core = scheduler()
    first, second = submitted("a", after=on("b")).tasks[0], submitted("b", after=on("a")).tasks[0]
    told = errors(core, TasksSubmitted("me", [first, second]))
    assert "depend on it" in told["b"]
    assert set(told) == {"a", "b"}, "nobody is to wait for what the store says of b: it is there"


def test_a_load_balanced_task_cannot_depend_on_a_direct_one_wherever_that_is():
    core = scheduler()
    run(core, joined(0), submitted("d", engine=0))
    assert "InvalidDependency" in errors(core, submitted("a", after=on("d")))["a"]
    run(core, finished(0, "d"))
    assert "InvalidDependency" in errors(core, submitted("b", after=on("d")))["b"], "remembered"
    run(core, submitted("c", after=on("older")))
    assert "InvalidDependency" in errors(core, OutcomesFound({"older": TaskOutcome(True, "u", True)}))["c"], "recorded"


def test_dependencies_must_be_met_in_time():
    core = scheduler()
    run(core, joined(0), submitted("a"), submitted("b", after=on("a"), timeout=5.0))
    assert core.next_deadline() == 5.0
    assert errors(core, Ticked(), now=5.0)["b"] == (
        "DependencyTimeout: task b waited 5 s for the tasks it depends on: 1 had not ended"
    )


def test_time_does_not_matter_once_they_are_met():
    core = scheduler()
    run(core, joined(0), submitted("a"), submitted("b", after=on("a"), timeout=5.0), finished(0, "a"))
    assert run(core, (5.0, Ticked())) == []
    assert core.tasks["b"].state is TaskState.HELD


def test_a_waiting_task_can_be_aborted():
    core = scheduler()
    run(core, joined(0), submitted("a"), submitted("b", after=on("a")))
    assert run(core, AbortRequested(["b"])) == [("end", "b", "TaskAborted")]
    assert run(core, finished(0, "a")) == [("end", "a", "ok")]


def test_after_a_restart_dependents_take_up_their_waiting():
    core = scheduler()
    run(core, recovered("a", "b"), recovered("c", after=on("a", "old")))
    assert run(core, joined(0, held=[("a", 1)])) == []
    assert run(core, (5.0, Ticked())) == [("find", "old")]
    assert run(core, OutcomesFound({"old": OK})) == []
    assert core.tasks["c"].state is TaskState.WAITING
    assert run(core, finished(0, "a")) == [("send", 0, "b#2"), ("end", "a", "ok")]
    assert core.tasks["c"].state is TaskState.QUEUED


# -------------------------------------------------------------------------------------------- follow: where


def test_a_task_follows_others_to_their_engine():
    core = scheduler(hwm=0)
    run(core, joined(0), joined(1), submitted("a"), submitted("b"))
    ran = core.tasks["b"].engine
    run(core, finished(ran, "b"))
    for n in range(4):
        assert run(core, submitted(f"c{n}", follow=on("b"))) == [("send", ran, f"c{n}")]


def test_all_that_it_follows_must_have_run_on_one_engine():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", "b"), submitted("c", follow=on("a", "b")))
    run(core, finished(0, "a"))
    assert "more than one engine" in errors(core, finished(1, "b"))["c"]


def test_it_may_follow_any_of_them():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", "b"), submitted("c", follow=on("a", "b", all=False)))
    assert run(core, finished(1, "b")) == [("send", 1, "c"), ("end", "b", "ok")]


def test_when_the_engine_it_follows_is_lost_it_is_impossible_even_if_another_takes_the_number():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a"), finished(0, "a"), submitted("busy", targets=(0,)))
    run(core, submitted("c", follow=on("a")))
    assert core.tasks["c"].state is TaskState.QUEUED
    told = errors(core, EngineLost(0, "killed"))
    assert "on which the tasks it follows ran" in told["c"]
    run(core, joined(0, uuid="new"))
    assert "on which the tasks it follows ran" in errors(core, submitted("d", follow=on("a")))["d"]


def test_when_the_engine_it_follows_is_lost_that_lacked_what_it_needs_it_is_impossible():
    core = scheduler(engine_grace=60.0)
    run(core, joined(0), submitted("a"), finished(0, "a"))
    assert run(core, submitted("c", follow=on("a"), resources={"gpu": 1})) == []  # engine 0 has no gpu: it waits
    told = errors(core, EngineLost(0, "killed"))
    assert "on which the tasks it follows ran" in told["c"]
    assert run(core, joined(0, uuid="another", gpu=1)) == []


def test_following_and_targets_must_both_hold():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a"), finished(0, "a"))
    assert "ImpossibleDependency" in errors(core, submitted("c", follow=on("a"), targets=(1,)))["c"]
    assert run(core, submitted("d", follow=on("a"), targets=(0, 1))) == [("send", 0, "d")]


def test_what_never_ran_cannot_be_followed():
    core = scheduler()
    run(core, submitted("a"), AbortRequested(["a"]))
    told = errors(core, submitted("c", follow=on("a", success=False, failure=True)))
    assert "none of the tasks it follows ran on an engine" in told["c"]


# -------------------------------------------------------------------------------------------- unmet: functional


def test_an_engine_that_refuses_a_task_never_sees_it_again():
    core = scheduler()
    assert run(core, joined(0), joined(1), submitted("a")) == [("send", 0, "a")]
    assert run(core, finished(0, unmet("a"))) == [("send", 1, "a#2")]
    told = errors(core, finished(1, unmet("a", 2)))
    assert told["a"].startswith("ImpossibleDependency: every engine that it may run on has raised UnmetDependency")


def test_a_refused_task_waits_for_the_engine_that_is_left():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a"), submitted("b"))
    assert run(core, finished(0, unmet("a"))) == [], "engine 1 is busy"
    assert run(core, joined(2)) == [("send", 2, "a#2")], "an engine that comes while it waits is tried"


def test_a_new_process_under_an_old_number_has_not_refused():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", targets=(0,), label="x"), submitted("b", targets=(1,)))
    run(core, submitted("c"))
    run(core, finished(0, "a"))
    run(core, finished(0, unmet("c")))
    run(core, EngineLeft(0))
    assert run(core, joined(0, uuid="another")) == [("send", 0, "c#2")]


def test_when_the_last_engine_that_has_not_refused_goes_it_is_impossible():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a"), submitted("b", targets=(1,)))
    run(core, finished(0, unmet("a")))
    assert "every engine" in errors(core, EngineLeft(1))["a"]


def test_refusals_do_not_use_up_retries():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", retries=1))
    run(core, finished(0, unmet("a")))
    assert run(core, finished(1, raised("a", 2))) == [("send", 1, "a#3")]


def test_refusals_are_kept_as_attempts():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a"), finished(0, unmet("a")))
    [action] = [a for a in core.handle(finished(1, done("a", 2)), 0.0) if hasattr(a, "tasks")]
    causes = [attempt.cause for attempt in action.tasks[0].task.attempts]
    assert causes == ["UnmetDependency: not here", "ok"]


def test_refusals_are_subject_to_the_timeout():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", timeout=1.0), submitted("b"))
    run(core, finished(0, unmet("a")))
    assert errors(core, Ticked(), now=1.0)["a"].startswith("DependencyTimeout: task a found no engine within 1 s")
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", timeout=1.0))
    told = [line for action in core.handle(finished(0, unmet("a")), 2.0) for line in in_short(action)]
    assert told == [("end", "a", "DependencyTimeout")]


def test_a_direct_task_cannot_go_elsewhere():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", engine=0))
    assert outcome(core, finished(0, unmet("a"))).error.ename == "UnmetDependency"


# -------------------------------------------------------------------------------------------- inputs: what


def test_a_result_taken_as_an_argument_is_wanted_until_its_taker_has_ended():
    core = scheduler()
    assert run(core, joined(0), submitted("a"), submitted("b", inputs=("a",))) == [("send", 0, "a")]
    assert core.wants("a")
    assert core.state.dependencies.wanted == {"a": 1}
    assert run(core, finished(0, "a")) == [("keep", "a"), ("send", 0, "b"), ("end", "a", "ok")]
    assert run(core, finished(0, "b")) == [("end", "b", "ok"), ("release", "a")]


def test_a_result_from_before_is_fetched_even_if_the_outcome_is_known():
    core = scheduler()
    run(core, joined(0), submitted("a"), finished(0, "a"))
    assert run(core, submitted("b", inputs=("a",))) == [("find", "a")]
    assert run(core, OutcomesFound({"a": OK})) == [("send", 0, "b")]


def test_a_failed_argument_makes_its_taker_impossible_and_releases_the_others():
    core = scheduler(hwm=0)
    run(core, joined(0), submitted("a", "b"), submitted("c", inputs=("a", "b")), finished(0, "a"))
    told = run(core, finished(0, raised("b")))
    assert ("end", "c", "ImpossibleDependency") in told
    assert told[-1][0] == "release"
    assert set(told[-1][1:]) == {"a", "b"}


# -------------------------------------------------------------------------------------------- resources


def test_a_task_goes_where_its_resources_are():
    core = scheduler(hwm=0)
    run(core, joined(0), joined(1, gpu=1), joined(2, gpu=2))
    for n in range(3):
        assert run(core, submitted(f"a{n}", resources={"gpu": 2})) == [("send", 2, f"a{n}")]
    assert run(core, submitted("b", resources={"gpu": 1})) == [("send", 1, "b")], "the least loaded that fits"


def test_without_such_an_engine_it_waits_for_a_while():
    core = scheduler(engine_grace=30.0)
    run(core, joined(0), submitted("a", resources={"gpu": 1}))
    assert core.next_deadline() == 30.0
    assert errors(core, Ticked(), now=30.0)["a"] == (
        "ImpossibleDependency: for 30 s there has been no engine with gpu=1"
    )
    run(core, submitted("b", resources={"gpu": 1}))
    assert run(core, joined(1, gpu=1)) == [("send", 1, "b")]


def test_when_the_only_such_engine_is_lost_another_may_come():
    core = scheduler(engine_grace=30.0)
    run(core, joined(0, gpu=1), submitted("a", resources={"gpu": 1}), submitted("b", resources={"gpu": 1}))
    run(core, (10.0, EngineLost(0, "killed", "a", True)))
    assert core.next_deadline() == 40.0
    assert run(core, (11.0, joined(0, uuid="new", gpu=1))) == [("send", 0, "b")]
    assert run(core, (40.0, Ticked())) == []


# -------------------------------------------------------------------------------------------- schemes by task


def test_pure_says_what_it_cannot_honour():
    core = scheduler(scheme="pure")
    told = errors(core, submitted("a", retries=2, targets=(0,)))
    assert "'pure' decides nothing for single tasks, so it cannot honour retries, targets" in told["a"]
    assert run(core, joined(0), submitted("b", label="x")) == [("send", 0, "b")]
    assert run(core, joined(1), submitted("c", scheme="lru", retries=1)) == [("send", 1, "c")]


def test_an_unknown_scheme_is_named_and_the_nearest_too():
    told = errors(scheduler(), submitted("a", scheme="plainrandm"))
    assert "there is no scheme 'plainrandm': did you mean 'plainrandom'?" in told["a"]


def test_each_task_may_have_its_scheme():
    core = scheduler(hwm=0)
    run(core, joined(0), joined(1))
    sent = [run(core, submitted(f"t{n}", scheme="lru"))[0][1] for n in range(6)]
    assert sent == [0, 1, 0, 1, 0, 1]


# -------------------------------------------------------------------------------------------- cancelling


def test_a_running_task_is_interrupted_then_killed():
    core = scheduler(cancel_grace=2.0)
    run(core, joined(0), submitted("a"))
    assert run(core, AbortRequested(["a"], True)) == [("cancel", 0, "a")]
    assert run(core, (2.0, Ticked())) == [("kill", 0, "a")]
    assert run(core, EngineLost(0, "killed", "a", True)) == [("end", "a", "TaskAborted")]
    assert core.next_deadline() is None or run(core, (4.0, Ticked())) == []


def test_a_task_that_heeds_its_interruption_is_aborted():
    core = scheduler()
    run(core, joined(0), submitted("a"), AbortRequested(["a"], True))
    stopped = done("a")
    stopped.status = "aborted"
    assert run(core, finished(0, stopped)) == [("end", "a", "aborted")]
    assert run(core, (100.0, Ticked())) == []


def test_a_task_that_ends_before_it_hears_has_ended_well():
    core = scheduler()
    run(core, joined(0), submitted("a"), AbortRequested(["a"], True))
    assert run(core, finished(0, "a")) == [("end", "a", "ok")]


def test_a_cancelled_task_is_not_retried():
    core = scheduler()
    run(core, joined(0), submitted("a", retries=3), AbortRequested(["a"], True))
    assert run(core, finished(0, raised("a"))) == [("end", "a", "ValueError")]


def test_cancelling_twice_asks_twice_and_ends_once():
    core = scheduler()
    run(core, joined(0), submitted("a"), AbortRequested(["a"], True), AbortRequested(["a"], True))
    assert run(core, finished(0, "a")) == [("end", "a", "ok")]
    assert run(core, AbortRequested(["a"], True)) == []


def test_a_task_that_overran_has_timed_out_and_may_be_retried():
    core = scheduler()
    run(core, joined(0), submitted("a", retries=1, run_timeout=1.0))
    lost = EngineLost(0, "it ran for more than 1 s", "a", True, True)
    run(core, lost)
    assert run(core, joined(0, uuid="v")) == [("send", 0, "a#2")]
    assert outcome(core, lost).error.ename == "TaskTimeout"


def test_stopped_engines_are_not_waited_for():
    core = scheduler()
    run(core, joined(0), submitted("a"), submitted("b", targets=(0,)), EnginesStopped([0]))
    told: dict[str, Any] = errors(core, EngineLeft(0))
    assert "none of the engines it may run on is there" in told["b"]


def test_a_task_whose_targets_are_gone_is_told_what_to_do():
    core = scheduler()
    run(core, joined(0), submitted("a", targets=(0,), retries=3))
    told: dict[str, Any] = errors(core, EngineLost(0, "killed", "a", True))
    assert "does not wait for others to take these numbers, whatever its retries: give it more targets" in told["a"]
    run(core, joined(0), submitted("b"), finished(0, "b"), joined(1), EngineLeft(0))
    assert "targets" not in errors(core, submitted("c", follow=on("b")))["c"]
