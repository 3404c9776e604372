"""Processes are killed at the worst moments; nothing is lost, and nothing is told twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from conftest import wait_until

import engineroom as er


def entry(ledger, number, gate=None):
    """One line in the ledger, and a moment of work; `gate`: a file that must be there before it ends."""
    import os
    import time

    handle = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{number}\n".encode())
    os.close(handle)
    time.sleep(0.005)
    while gate is not None and not os.path.exists(gate):
        time.sleep(0.005)
    return number


@pytest.mark.fault(11)
@pytest.mark.slow
def test_a_killed_controller_is_restarted_and_nothing_is_lost(fresh_cluster, tmp_path):
    rc = fresh_cluster(n=2)
    ledger = str(tmp_path / "ledger")
    with er.Client(rc.connection) as other:
        gate = tmp_path / "gate"
        finished = rc.load_balanced_view().apply_async(entry, ledger, -1)
        assert finished.wait(60)
        told = []
        mine = [rc.load_balanced_view().apply_async(entry, ledger, x) for x in range(200)]
        mine += [rc.load_balanced_view().apply_async(entry, ledger, x, str(gate)) for x in range(200, 300)]
        for result in mine:
            result.add_done_callback(told.append)
        theirs = other.load_balanced_view().map_async(entry, [ledger] * 200, range(1000, 1200))
        wait_until(lambda: sum(r.done() for r in mine) > 20)
        pid = rc.cluster.controller.pid
        os.kill(pid, signal.SIGKILL)
        gate.touch()
        wait_until(lambda: rc.cluster.controller.pid != pid)
        assert [r.get(60) for r in mine] == list(range(300))
        assert theirs.get(60) == list(range(1000, 1200))
        wait_until(lambda: len(told) >= 300)  # a thread of their own calls them
        assert len(told) == 300
        assert finished.get() == -1
        with open(ledger) as file:
            lines = [int(line) for line in file]
        assert set(lines) == {-1, *range(300), *range(1000, 1200)}
        assert rc.db_count({"state": "completed"}) == 501
        assert rc.db_count({"state": "pending"}) == 0
        assert rc.ids == [0, 1]
        assert rc[:].apply_sync(abs, -1) == [1, 1]


@pytest.mark.fault(11)
@pytest.mark.parametrize("too", ["nobody", "engine", "nanny"])
def test_queued_tasks_wait_no_longer_than_until_all_engines_are_back_or_dead(fresh_cluster, tmp_path, too):
    rc = fresh_cluster(n=2, controller_args=["--IPController.recovery_grace=900"])
    ledger, gate = str(tmp_path / "ledger"), tmp_path / "gate"
    view = rc.load_balanced_view(retries=3)
    mine = [view.apply_async(entry, ledger, x) for x in range(300)]
    wait_until(lambda: sum(r.done() for r in mine) > 20)
    [engine, _] = rc[:].apply_async(os.getpid).get(60)
    mine += [view.apply_async(entry, ledger, x) for x in range(300, 400)]
    mine += [view.apply_async(entry, ledger, x, str(gate)) for x in range(400, 600)]
    wait_until(lambda: sum(r.done() for r in mine) > 320)
    victims = {"engine": [engine], "nanny": [rc.cluster.engine_set.pid]}.get(too, [])
    pid = rc.cluster.controller.pid
    for victim in [pid, *victims]:
        os.kill(victim, signal.SIGKILL)
    gate.touch()
    assert [r.get(60) for r in mine] == list(range(600))
    assert rc.cluster.controller.pid != pid
    rc.wait_for_engines(2, timeout=60)


@pytest.mark.fault(11)
def test_tasks_for_one_engine_keep_their_order_when_the_controller_is_killed(fresh_cluster, tmp_path):
    rc = fresh_cluster(n=1, controller_args=["--hwm=2"])  # most wait in the controller
    gate, view = tmp_path / "gate", rc[0]
    view.apply_async(entry, str(tmp_path / "ledger"), 0, str(gate))
    read: list[er.AsyncResult] = []

    def push_and_read(numbers: range) -> None:
        for number in numbers:
            view.push({"latest": number}, block=False)
            read.append(view.apply_async(int, er.Reference("latest")))

    push_and_read(range(50))
    wait_until(lambda: rc._channel.is_all_accepted)
    push_and_read(range(50, 60))
    pid = rc.cluster.controller.pid
    os.kill(pid, signal.SIGKILL)
    push_and_read(range(60, 100))
    wait_until(lambda: rc.cluster.controller.pid != pid)
    push_and_read(range(100, 110))
    gate.touch()
    assert [result.get(60) for result in read] == list(range(110))


@pytest.mark.fault(11)
def test_a_client_that_comes_while_engines_are_on_their_way_back_counts_them(fresh_cluster):
    rc = fresh_cluster(n=3)
    pids, before = rc[:].apply_sync(os.getpid), rc.cluster.controller.pid
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: rc.cluster.controller.pid != before)
    try:
        with er.Client(rc.connection, timeout=60) as other:
            assert other.ids == [0, 1, 2]
            result = other[:].apply_async(os.getpid)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            assert result.get(60) == pids
            other.wait_for_engines(3, timeout=60)
            assert other.ids == [0, 1, 2]
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.fault(1)
def test_the_tasks_of_a_killed_client_are_found_by_another(rc, cluster, tmp_path):
    script = """
import sys, time, engineroom as er
rc = er.Client(sys.argv[1])
view = rc.load_balanced_view(label="orphans")
results = [view.apply_async(lambda x: __import__("time").sleep(0.02) or x, x) for x in range(20)]
rc.result_status(sum([r.msg_ids for r in results], []))
print("submitted", flush=True)
time.sleep(60)
"""
    path = cluster._connection_file()
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "submitted\n"
        process.kill()
        process.wait()
    ids = [r["msg_id"] for r in rc.db_query({"label": "orphans"}, keys=["msg_id"])]
    assert rc.get_result(ids).get(60) == list(range(20))


def test_a_killed_nanny_is_replaced_with_its_engines_under_their_numbers(fresh_cluster):
    rc = fresh_cluster(n=2)
    before = rc.ids
    nanny, view = rc.cluster.engine_set.pid, rc.load_balanced_view(retries=3)
    uuids = {engine.uuid for engine in rc._channel.engines}
    os.kill(nanny, signal.SIGKILL)
    accepted = []

    def is_replaced() -> bool:
        accepted.append(view.apply_async(abs, -len(accepted)))  # all the while
        return rc.ids == before and not uuids & {engine.uuid for engine in rc._channel.engines}

    wait_until(is_replaced)
    assert rc[:].apply_sync(abs, -1) == [1, 1]
    assert [task.get(60) for task in accepted] == list(range(len(accepted)))


def test_engines_whose_nanny_has_just_been_killed_count_when_a_cluster_is_scaled(fresh_cluster):
    rc = fresh_cluster(n=2)
    os.kill(rc.cluster.engine_set.pid, signal.SIGKILL)
    rc.cluster.scale_sync(3)
    wait_until(lambda: rc.queue_status().keys() == {0, 1, 2, "unassigned"})
    assert rc.cluster.started_engines() == 3


def test_a_view_of_an_engine_whose_nanny_was_killed_says_that_some_are_starting(fresh_cluster):
    rc = fresh_cluster(n=2)
    rc.cluster._restarts.allowed = False  # nobody starts them again, for as long as we look
    os.kill(rc.cluster.engine_set.pid, signal.SIGKILL)
    wait_until(lambda: not rc.ids)
    with pytest.raises(IndexError, match=r"there are none, and 2 are starting: wait for them with client\.wait_for_"):
        rc[0]
    with pytest.raises(er.NoEnginesRegistered, match="there are no engines; 2 are starting: wait for them"):
        rc[:].apply(abs, -1)
    wait_until(lambda: not rc._channel.starting)
    with pytest.raises(er.NoEnginesRegistered, match="engines; start some with `ipcluster engines -n 4 --profile-dir="):
        rc[:].apply(abs, -1)


@pytest.mark.fault(14)
def test_a_second_cluster_on_one_database_is_refused(fresh_cluster, tmp_path):
    rc = fresh_cluster(n=0)
    with pytest.raises(er.StoreBusy, match=f"process {rc.connection.pid}"):
        er.Cluster(n=0, profile_dir=rc.connection.profile_dir, database="sqlite").start_cluster_sync()
