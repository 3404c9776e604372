"""Cancelling, time limits and dependency functions in a cluster: what the user sees."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest
from conftest import wait_until
from stubborn import catch, hold_the_gil, ignore_for_ever, sleep_for, spin_for

import engineroom as er


def begun(result: er.AsyncResult) -> er.AsyncResult:
    wait_until(lambda: result.started)
    return result


@pytest.mark.parametrize("function", [sleep_for, spin_for])
def test_a_running_task_is_cancelled_and_its_engine_lives(rc: er.Client, function: Any):
    pids = rc[:].apply_sync(os.getpid)
    lb = rc.load_balanced_view(targets=[0])
    results = [begun(lb.apply_async(function, 60)), begun(rc[1].apply_async(function, 60))]
    for result in results:
        result.cancel()
        with pytest.raises(er.TaskAborted, match="cancelled while it was running"):
            result.get(60)
        assert result.cancelled()
    assert rc[:].apply_sync(os.getpid) == pids
    assert rc.db_query({"msg_id": results[0].msg_ids[0]}, keys=["state"])[0]["state"] == "aborted"


def test_a_cell_is_cancelled(rc: er.Client):
    result = begun(rc[0].execute("import time; time.sleep(60)", block=False))
    result.cancel()
    with pytest.raises(er.TaskAborted):
        result.get(60)


def test_a_task_that_catches_the_interrupt_has_its_result(rc: er.Client):
    result = begun(rc.load_balanced_view().apply_async(catch, 60))
    result.cancel()
    assert result.get(60).startswith("caught")
    assert not result.cancelled()


def test_a_task_that_does_not_stop_is_killed_and_the_engine_is_back(fresh_cluster: Any):
    rc = fresh_cluster(n=1)
    pid = rc[0].apply_sync(os.getpid)
    lb = rc.load_balanced_view()
    result = begun(lb.apply_async(ignore_for_ever))
    waiting = lb.apply_async(abs, -1)
    result.cancel()
    with pytest.raises(er.TaskAborted):
        result.get(60)
    assert waiting.get(60) == 1
    assert rc.ids == [0]
    assert rc[0].apply_sync(os.getpid) != pid


def test_a_task_has_its_time_and_no_more(rc: er.Client):
    result = rc.load_balanced_view(run_timeout=0.1).apply_async(sleep_for, 60)
    with pytest.raises(er.TaskTimeout, match=r"longer than its run_timeout of 0\.1 s"):
        result.get(60)
    assert rc.load_balanced_view(run_timeout=30).apply_sync(abs, -1) == 1


def test_a_task_that_does_not_heed_its_time_is_killed(fresh_cluster: Any):
    rc = fresh_cluster(n=1, engine_args=["--IPEngine.cancel_grace=0.2"])
    result = rc.load_balanced_view(run_timeout=0.1).apply_async(hold_the_gil, 60)
    with pytest.raises(er.TaskTimeout, match=r"run_timeout of 0\.1 s, and did not stop within 0\.2 s"):
        result.get(20)
    assert rc.load_balanced_view().apply_async(abs, -1).get(20) == 1


@pytest.mark.fault(40)
def test_each_task_has_one_outcome_whenever_it_is_cancelled(rc: er.Client):
    """Before it is sent, in the queue, as it starts, while it runs, as it ends, and after."""
    chance = random.Random(3)
    lb = rc.load_balanced_view()
    results = []
    for _ in range(150):
        results.append(lb.apply_async(time.sleep, chance.choice([0, 0.001, 0.03, 0.06])))
        if chance.random() < 0.5:
            chance.choice(results).cancel()
        if chance.random() < 0.1:
            chance.choice(results).wait(0.05)
    rc.wait(results, timeout=30)
    for result in results:
        if result.cancelled():
            with pytest.raises(er.TaskAborted):
                result.get()
        else:
            assert result.get() is None
    assert rc.ids == [0, 1]


# ---------------------------------------------------------------------------------------------- dependency functions


def is_engine(number: int) -> bool:
    task = er.current_task()
    return task is not None and task.engine_id == number


def test_a_task_goes_to_the_engine_where_its_dependency_holds(rc: er.Client):
    @er.depend(is_engine, 1)
    @er.require("os")
    def where() -> Any:
        return er.current_task().engine_id  # type: ignore[union-attr]

    assert [rc.load_balanced_view().apply_sync(where) for _ in range(4)] == [1] * 4


def test_what_no_engine_has_is_impossible(rc: er.Client):
    def never() -> None:
        raise AssertionError

    missing = er.require("no_such_module_anywhere")(never)
    with pytest.raises(er.ImpossibleDependency, match="UnmetDependency"):
        rc.load_balanced_view().apply_async(missing).get(60)
    with pytest.raises(er.KernelError, match=r"UnmetDependency.*no_such_module_anywhere"):
        rc[0].apply_async(missing).get(60)


def test_a_dependency_function_that_hangs_or_raises_ends_its_task(rc: er.Client):
    hanging = er.dependent(abs, sleep_for, 60)
    hanging.timeout = 0.1
    with pytest.raises(er.DependencyTimeout, match=r"sleep_for of abs took longer than 0\.1 s"):
        rc.load_balanced_view().apply_async(hanging, -1).get(60)
    with pytest.raises(er.RemoteError, match="TypeError"):
        rc.load_balanced_view().apply_async(er.dependent(abs, sleep_for, "no number"), -1).get(60)
