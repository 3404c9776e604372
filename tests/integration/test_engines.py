"""Engines die, freeze, are interrupted and shut down; the cluster goes on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import hold, wait_until

import engineroom as er


def kill_self(number):
    os.kill(os.getpid(), number)
    time.sleep(30)


def segfault():
    import ctypes

    ctypes.string_at(0)


def leave(code):
    os._exit(code)


def quit_politely():
    import sys

    sys.exit(3)


@pytest.mark.fault(5, 9)
@pytest.mark.parametrize(
    ("death", "argument", "cause"),
    [
        (kill_self, signal.SIGKILL, "SIGKILL"),
        (segfault, None, "SIGSEGV"),
        (leave, 7, "code 7"),
        (leave, 0, "code 0"),
    ],
    ids=["killed", "segfault", "exit7", "exit0"],
)
def test_an_engine_that_dies_fails_its_task_and_is_replaced(rc, death, argument, cause):
    pid = rc[0].apply_sync(os.getpid)
    result = rc[0].apply_async(death, *([] if argument is None else [argument]))
    waiting = rc.load_balanced_view().map_async(abs, range(-20, 0))
    with pytest.raises(er.EngineError, match=f"engine 0 .*{cause}"):
        result.get(60)
    assert waiting.get(60) == list(range(20, 0, -1))
    rc.wait_for_engines(2, timeout=15)
    assert rc.ids == [0, 1]
    assert rc[0].apply_sync(os.getpid) != pid


def test_engines_look_for_garbage(rc):
    assert all(rc[:].apply_sync(gc.isenabled))


@pytest.mark.fault(9)
def test_sys_exit_in_a_task_is_an_error_of_the_task(rc):
    pid = rc[0].apply_sync(os.getpid)
    with pytest.raises(er.RemoteError) as caught:
        rc[0].apply_sync(quit_politely)
    assert caught.value.ename == "SystemExit"
    assert rc[0].apply_sync(os.getpid) == pid


@pytest.mark.fault(5)
def test_a_task_whose_engine_died_succeeds_when_retried(rc, tmp_path):
    def once(ledger):
        import os

        with open(ledger, "a") as file:
            file.write("x")
        if os.path.getsize(ledger) == 1:
            os._exit(1)
        return "survived"

    result = rc.load_balanced_view(retries=1).apply_async(once, str(tmp_path / "ledger"))
    assert result.get(60) == "survived"
    [record] = rc.db_query({"msg_id": result.msg_ids[0]}, keys=["attempts"])
    assert len(record["attempts"]) == 2
    assert "code 1" in record["attempts"][0]["cause"]
    rc.wait_for_engines(2, timeout=15)


@pytest.mark.fault(9)
def test_a_task_that_kills_every_engine_is_given_up(rc):
    with pytest.raises(er.EngineError, match="on 3 engines"):
        rc.load_balanced_view(retries=50).apply_async(leave, 1).get(60)
    rc.wait_for_engines(2, timeout=15)


@pytest.mark.fault(10)
def test_holding_the_gil_is_not_death(rc):
    def hold_the_gil():
        import ctypes

        ctypes.PyDLL(None).usleep(900_000)
        ctypes.PyDLL(None).usleep(900_000)
        return "alive"

    assert rc[0].apply_async(hold_the_gil).get(60) == "alive"
    assert rc.ids == [0, 1]


def test_an_interrupt_ends_a_running_task_and_nothing_else(rc):
    pids = rc[:].apply_sync(os.getpid)
    result = rc[:].apply_async(time.sleep, 30)
    wait_until(lambda: all(result.started))
    rc.send_signal("SIGINT", targets=0)
    rc.send_signal(signal.SIGINT, targets=[1])
    with pytest.raises(er.CompositeError, match="KeyboardInterrupt"):
        result.get(60)
    rc.send_signal("INT")  # idle engines have nothing to interrupt …
    with contextlib.suppress(er.RemoteError):  # … but the signal may come late
        rc[:].apply_sync(time.sleep, 0.1)
    assert rc[:].apply_sync(os.getpid) == pids
    with pytest.raises(ValueError, match="NOSUCH"):
        rc.send_signal("NOSUCH")


def test_engines_shut_down_when_asked(fresh_cluster):
    rc = fresh_cluster(n=3)
    running = rc[0].apply_async(time.sleep, 0.2)
    wait_until(lambda: running.started)
    rc.shutdown(targets=[0, 2], block=True)
    assert running.get(60) is None
    assert rc.ids == [1]
    assert rc.load_balanced_view().map_sync(abs, [-1, -2]) == [1, 2]
    rc.shutdown(hub=True)
    wait_until(lambda: not rc.cluster.controller.running)


def test_the_wait_for_a_busy_engine_has_a_limit_and_a_cancel_ends_it(fresh_cluster, gate):
    rc = fresh_cluster(n=2)
    running = rc[:].apply_async(hold, str(gate), "done")
    wait_until(lambda: all(running.started))
    with pytest.raises(TimeoutError, match="engine 0 leaves once what it runs has ended"):
        rc.shutdown(0, block=True, timeout=0.1)
    with pytest.raises(TimeoutError, match="engine 1 leaves once what it runs has ended"):
        rc.cluster.stop_engine_sync(1, timeout=0.1)
    assert not running.done()
    gate.touch()
    assert running.get(60) == ["done", "done"]
    wait_until(lambda: rc.ids == [])


@pytest.mark.fault(10)
@pytest.mark.slow
def test_a_stopped_engine_is_killed_and_replaced(fresh_cluster, gate):
    arguments = ["--IPController.allowed_silence=2", "--IPController.ping_interval=0.3"]
    rc = fresh_cluster(n=2, controller_args=arguments)
    pid = rc[0].apply_sync(os.getpid)
    result = rc[0].apply_async(hold, str(gate))
    wait_until(lambda: result.started)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(er.EngineError, match="stopped"):
        result.get(60)
    wait_until(lambda: not psutil.pid_exists(pid))
    rc.wait_for_engines(2, timeout=15)
    assert rc.ids == [0, 1]
    assert rc[0].apply_sync(os.getpid) != pid


#: An engine that no nanny watches: as if its nanny had been killed, and it had not.
LONE_ENGINE = """
import sys
import engineroom as er
from engineroom.config import EngineSettings, read_connection_file
from engineroom.engine.main import make_engine
from engineroom.engine.shared_page import SharedPage
from engineroom.ids import EngineUuid, NannyId

connection = read_connection_file(sys.argv[1])
make_engine(connection, EngineUuid("lone"), NannyId(""), SharedPage(), EngineSettings(), {}).run()
"""


def test_an_engine_without_a_nanny_that_is_stopped_is_lost_and_comes_back(fresh_cluster, gate):
    arguments = ["--IPController.allowed_silence=2", "--IPController.ping_interval=0.3"]
    rc = fresh_cluster(n=1, controller_args=arguments)
    [file] = Path(rc.cluster.profile_dir).glob("security/*engine.json")
    lone = subprocess.Popen([sys.executable, "-c", LONE_ENGINE, str(file)], stdout=subprocess.DEVNULL)
    try:
        rc.wait_for_engines(2, timeout=20)
        both = rc.load_balanced_view()
        with both.temp_flags(retries=1):
            results = [both.apply_async(hold, str(gate)) for _ in range(2)]
        wait_until(lambda: all(result.started for result in results))
        lone.send_signal(signal.SIGSTOP)
        wait_until(lambda: rc.ids == [0])
        gate.touch()
        assert [result.get(60) for result in results] == [None, None]
        assert {result.engine_id for result in results} == {0}, "the other engine has run both"
        lone.send_signal(signal.SIGCONT)
        rc.wait_for_engines(2, timeout=20)
        assert rc.ids == [0, 1]
        assert rc[1].apply_async(os.getpid).get(60) == lone.pid
        lone.kill()
        wait_until(lambda: rc.ids == [0])
    finally:
        lone.kill()
        lone.wait()


def test_a_cluster_is_awaited(tmp_path):
    async def main() -> list[int]:
        async with er.Cluster(n=1, profile_dir=str(tmp_path / "profile")) as rc:
            result = rc.load_balanced_view().map_async(abs, [-1, -2])
            return await result

    assert asyncio.run(main()) == [1, 2]
