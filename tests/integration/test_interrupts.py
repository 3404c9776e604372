"""A task is cancelled, or has had its time: it is interrupted, and if it does not heed that, its engine is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from by_hand import Hand, by_hand
from stubborn import catch, hold_the_gil, ignore_for_ever, pid, sleep_for, spin_for, wrap

import engineroom as er
from engineroom.messages import (
    AttemptKey,
    Cancel,
    EngineDied,
    KillTask,
    NeedFunctions,
    Returned,
    SignalProcesses,
    Started,
    Stop,
)


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hand]:
    with by_hand(tmp_path_factory.mktemp("hand"), args=["--IPEngine.cancel_grace=0.3"]) as hand:
        yield hand


def cancel(hand: Hand, *ids: Any) -> list[AttemptKey]:
    hand.peers.send(hand.engine(), Cancel(list(ids)))
    return hand.next(Returned).tasks


def start(hand: Hand, function: Any, *args: Any, **options: Any) -> Any:
    """Send a task, and wait until it runs."""
    id = hand.call(function, *args, **options)
    hand.next(Started, lambda m: m.task == id)
    return id


@pytest.mark.parametrize("function", [sleep_for, spin_for])
def test_a_running_task_is_interrupted(hand: Hand, function: Any):
    id = start(hand, function, 60)
    assert cancel(hand, id) == []
    done = hand.outcome(id)
    assert (done.status, done.error.ename) == ("aborted", "TaskAborted")
    assert done.error.evalue == "cancelled while it was running"
    assert function.__name__ in done.error.traceback
    assert done.error.traceback.rstrip().endswith("TaskAborted: cancelled while it was running")


def test_a_cell_is_interrupted(hand: Hand):
    spec, function = hand.task(len)
    spec.kind, spec.function = "execute", b""
    for source in ("import time; time.sleep(60)", "get_ipython(); import time; time.sleep(60)"):
        spec.id, spec.payload = f"cell {source[:5]}", source.encode()
        hand.run((spec, function))
        hand.next(Started, lambda m: m.task == spec.id)
        cancel(hand, spec.id)
        assert hand.outcome(spec.id).status == "aborted"


def test_a_task_that_catches_the_interrupt_has_a_result(hand: Hand):
    id = start(hand, catch, 60)
    cancel(hand, id)
    assert hand.value(id) == "caught cancelled while it was running"


def test_a_task_that_raises_something_else_has_that_error(hand: Hand):
    id = start(hand, wrap, 60)
    cancel(hand, id)
    assert (hand.outcome(id).status, hand.outcome(id).error.ename) == ("error", "ValueError")


def test_tasks_that_have_not_started_are_given_back(hand: Hand):
    running = start(hand, sleep_for, 60)
    waiting = hand.run(hand.task(sleep_for, 60), hand.task(abs, -1), hand.task(abs, -2))
    assert cancel(hand, *waiting[:2]) == [AttemptKey(id, 1) for id in waiting[:2]]
    cancel(hand, running)
    assert hand.outcome(running).status == "aborted"
    assert hand.value(waiting[2]) == 2
    assert not set(waiting[:2]) & set(hand.outcomes)


def test_a_task_whose_function_is_missing_is_given_back(hand: Hand):
    spec, function = hand.task(sleep_for, 60)
    spec.function = b"unknown function"
    hand.run((spec, function))
    assert cancel(hand, spec.id) == [AttemptKey(spec.id, 1)]


@pytest.mark.fault(40)
def test_a_cancel_that_comes_too_late_hits_nobody(hand: Hand):
    ended = hand.call(abs, -1)
    assert hand.value(ended) == 1
    running = start(hand, sleep_for, 0.3)
    assert cancel(hand, ended, "unheard of") == []
    assert hand.value(running) == "slept"


@pytest.mark.fault(40)
def test_each_of_many_cancelled_tasks_ends_once_and_no_other_is_hurt(hand: Hand):
    """A task is announced after 20 to 40 ms: its cancel races with its end. The outcome is the one or the other."""
    ids = hand.run(*[hand.task(sleep_for, 0.04) for _ in range(40)])
    doomed = ids[::2]
    for id in doomed:
        hand.until(lambda id=id: hand.has_begun(id))
        assert cancel(hand, id) == []
    for id in ids:
        assert hand.outcome(id).status == "ok" or (id in doomed and hand.outcome(id).status == "aborted")


def test_a_users_interrupt_is_what_it_was(hand: Hand):
    id = start(hand, sleep_for, 60)
    hand.peers.send(hand.nanny, SignalProcesses(2, [hand.engine().uuid]))
    done = hand.outcome(id)
    assert (done.status, done.error.ename) == ("error", "KeyboardInterrupt")


def test_what_does_not_stop_is_killed(hand: Hand):
    before = hand.value(hand.call(pid))
    id = start(hand, ignore_for_ever)
    cancel(hand, id)
    engine = hand.engine()
    hand.peers.send(hand.nanny, KillTask(engine.uuid, "another task"))  # which it is not running: nothing happens
    hand.peers.send(hand.nanny, KillTask(engine.uuid, id))
    died = hand.next(EngineDied)
    assert (died.engine, died.running, died.exit_code, died.overran) == (engine.uuid, id, -9, False)
    assert "was cancelled and did not stop" in died.reason
    assert hand.value(hand.call(pid)) != before


@pytest.mark.parametrize("function", [sleep_for, spin_for])
def test_a_task_has_its_time_and_no_more(hand: Hand, function: Any):
    id = hand.call(function, 60, run_timeout=0.1)
    done = hand.outcome(id)
    assert (done.status, done.error.ename) == ("error", "TaskTimeout")
    assert done.error.evalue == "it ran for longer than its run_timeout of 0.1 s"


def test_tasks_that_keep_to_their_time_notice_nothing(hand: Hand):
    ids = hand.run(*[hand.task(abs, -n, run_timeout=5.0) for n in range(300)])
    assert [hand.value(id) for id in ids] == list(range(300))
    late, next_one = hand.run(hand.task(catch, 60, run_timeout=0.1), hand.task(sleep_for, 0.2))
    assert "run_timeout" in hand.value(late)
    assert hand.value(next_one) == "slept"


@pytest.mark.parametrize(("function", "args"), [(ignore_for_ever, ()), (hold_the_gil, (60,))])
def test_a_task_that_does_not_heed_its_time_is_killed(hand: Hand, function: Any, args: Any):
    engine = hand.engine()
    id = hand.call(function, *args, run_timeout=0.1)
    died = hand.next(EngineDied)
    assert (died.engine, died.running, died.overran, died.restarting) == (engine.uuid, id, True, True)
    assert died.reason == (
        "it ran for longer than its run_timeout of 0.1 s, and did not stop within 0.3 s of being interrupted, "
        "so its engine was killed"
    )
    assert hand.value(hand.call(abs, -1)) == 1


def test_a_dependency_function_that_hangs_is_interrupted(hand: Hand):
    checked = er.dependent(abs, sleep_for, 60)
    checked.timeout = 0.1
    done = hand.outcome(hand.call(checked, -1))
    assert (done.status, done.error.ename) == ("error", "DependencyTimeout")
    assert done.error.evalue == "the dependency function sleep_for of abs took longer than 0.1 s"
    assert "sleep_for" in done.error.traceback


def test_a_dependency_function_that_hangs_for_good_is_killed(hand: Hand):
    checked = er.dependent(abs, ignore_for_ever)
    checked.timeout = 0.1
    id = hand.call(checked, -1, run_timeout=60)
    died = hand.next(EngineDied)
    assert (died.running, died.overran) == (id, False)
    assert f"a dependency function of task {id} ran for longer than 0.1 s" in died.reason
    assert hand.value(hand.call(abs, -1)) == 1


def test_time_is_taken_again_after_a_dependency(hand: Hand):
    done = hand.outcome(hand.call(er.dependent(sleep_for, abs, -1), 60, run_timeout=0.1))
    assert done.error.ename == "TaskTimeout"


def test_unmet_is_said_of_tasks_that_can_go_elsewhere(hand: Hand):
    def never():
        return False

    for engine, status in ((-1, "unmet"), (0, "error")):
        done = hand.outcome(hand.call(er.dependent(abs, never), -1, engine=engine))
        assert (done.status, done.error.ename) == (status, "UnmetDependency")
        assert "never returned False on this engine, so abs was not called" in done.error.evalue


def test_an_engine_that_leaves_gives_back_what_it_had_parked(tmp_path: Path):
    with by_hand(tmp_path) as hand:
        spec, function = hand.task(abs, -1)
        spec.function = b"unknown function"
        hand.run((spec, function))
        hand.next(NeedFunctions)
        hand.peers.send(hand.engine(), Stop())
        assert hand.next(Returned).tasks == [AttemptKey(spec.id, 1)]
