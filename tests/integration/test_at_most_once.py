"""Tasks that run at most once, on real engines that are killed and controllers that are started again."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest
from conftest import wait_until

import engineroom as er


def note(ledger, number):
    """One line in the ledger, and a moment of work."""
    import os
    import time

    handle = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{number}\n".encode())
    os.close(handle)
    time.sleep(0.01)
    return number


def note_and_die(ledger, number):
    import os

    note(ledger, number)
    os._exit(1)


def lines(ledger) -> Counter[int]:
    if not ledger.exists():
        return Counter()
    return Counter(int(line) for line in ledger.read_text().splitlines())


@pytest.mark.fault(5)
def test_a_task_whose_engine_dies_ends_with_an_error_and_ran_once(rc, tmp_path):
    ledger = tmp_path / "ledger"
    view = rc.load_balanced_view(at_most_once=True)
    with pytest.raises(er.EngineError, match="code 1"):
        view.apply_async(note_and_die, str(ledger), 1).get(60)
    rc.wait_for_engines(2, timeout=30)
    assert lines(ledger) == {1: 1}
    [record] = rc.db_query({"msg_id": view.history[-1]}, keys=["state", "attempts", "header"])
    assert (record["state"], len(record["attempts"])) == ("failed", 1)


@pytest.mark.fault(6)
def test_whatever_is_killed_no_task_is_run_twice(fresh_cluster, tmp_path):
    rc = fresh_cluster(n=2)
    ledger = tmp_path / "ledger"
    view = rc.load_balanced_view(at_most_once=True)
    results = [view.apply_async(note, str(ledger), number) for number in range(150)]
    for progress in (10, 40, 70):
        wait_until(lambda progress=progress: sum(lines(ledger).values()) > progress)
        engines = rc._channel.engines
        if engines:
            os.kill(engines[0].pid, signal.SIGKILL)
    rc.wait(results, timeout=60)
    runs = lines(ledger)
    assert max(runs.values()) == 1, "nothing ran twice"
    for number, result in enumerate(results):
        if (error := result.exception()) is None:
            assert result.get() == number
            assert runs[number] == 1
        else:
            assert isinstance(error, er.EngineError)
    failed = sum(result.exception() is not None for result in results)
    assert failed < 30, "only what the engines ran, or may have run, has failed"


@pytest.mark.fault(11)
@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "memory"])
def test_a_restarted_controller_starts_no_task_again(fresh_cluster, tmp_path, database):
    rc = fresh_cluster(n=2, database=database)
    ledger = tmp_path / "ledger"
    view = rc.load_balanced_view(at_most_once=True)
    results = [view.apply_async(note, str(ledger), number) for number in range(100)]
    wait_until(lambda: sum(lines(ledger).values()) > 20)
    pid = rc.cluster.controller.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: rc.cluster.controller.pid != pid)
    rc.wait(results, timeout=60)
    assert all(result.done() for result in results)
    assert max(lines(ledger).values()) == 1
    errors = [result.exception() for result in results]
    for number, error in enumerate(errors):
        if error is None:
            assert results[number].get() == number
        else:
            assert isinstance(error, er.EngineError | er.UnknownTask)
    assert rc.load_balanced_view(at_most_once=True).apply_sync(abs, -7) == 7


def test_a_direct_view_has_the_flag_too(rc):
    with rc[0].temp_flags(at_most_once=True) as view:
        assert view.apply_sync(abs, -1) == 1


def test_retries_contradict_it(rc):
    view = rc.load_balanced_view(at_most_once=True, retries=2)
    with pytest.raises(er.ConfigError, match="retries=2"):
        view.apply_async(abs, -1)
    with pytest.raises(er.ConfigError, match="True or False"):
        view.at_most_once = "yes"


def test_an_error_is_the_end(rc):
    with pytest.raises(ZeroDivisionError):
        rc.load_balanced_view(at_most_once=True).apply_sync(divmod, 1, 0)


def test_what_has_not_begun_goes_to_another_engine(fresh_cluster):
    rc = fresh_cluster(n=1)
    view = rc.load_balanced_view(at_most_once=True)
    running = view.apply_async(time.sleep, 600)
    waiting = [view.apply_async(abs, -number) for number in range(3)]
    wait_until(running.running)
    os.kill(rc._channel.engines[0].pid, signal.SIGKILL)
    with pytest.raises(er.EngineError, match="SIGKILL"):
        running.get(60)
    assert [result.get(60) for result in waiting] == [0, 1, 2]
