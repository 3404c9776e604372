"""What clients are told while, and after, a killed controller is started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil
import pytest
from conftest import wait_until

import engineroom as er
from engineroom.messages import Abort, Pin
from engineroom.stores import SQLiteDB


def kill_controller(cluster: er.Cluster) -> None:
    """Returns when another one has been started."""
    pid = cluster.controller.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: cluster.controller.pid != pid)


@contextlib.contextmanager
def no_controller(cluster: er.Cluster) -> Iterator[None]:
    """The controller has been killed, and is started again when the block ends."""
    with cluster._restarts.lock:
        os.kill(cluster.controller.pid, signal.SIGKILL)
        wait_until(lambda: not cluster.controller.running)
        yield


def note(path: str, number: int) -> int:
    """One line in a ledger."""
    with open(path, "a") as file:
        file.write(f"{number}\n")
    return number


def noted(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()]


def hold(path: str) -> None:
    """Run until a file is there."""
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.01)


def running_task(rc: er.Client) -> er.AsyncResult:
    """A task that goes on for long, and is recorded."""
    result = rc.load_balanced_view().apply_async(time.sleep, 600)
    wait_until(result.running)
    wait_until(lambda: rc._channel.is_all_accepted)
    return result


def ended_task(rc: er.Client) -> er.AsyncResult:
    """A task that has ended, and is recorded: what is not would be sent again."""
    result = rc.load_balanced_view().apply_async(abs, -1)
    assert result.get(60) == 1
    wait_until(lambda: rc._channel.is_all_accepted)
    return result


# ---------------------------------------------------------------------------------------------- what is lost


@pytest.mark.fault(11)
@pytest.mark.parametrize("database", ["memory", "none"])
def test_tasks_that_a_restart_has_cost_are_called_so(fresh_cluster, database):
    rc = fresh_cluster(n=1, database=database)
    ended = ended_task(rc)
    waiting = running_task(rc)
    kill_controller(rc.cluster)
    told = (
        rf"controller was restarted at \S+ \S+, and its database \({database}\) kept nothing.* Submit it again; in SQL"
    )
    with pytest.raises(er.UnknownTask, match=told):
        waiting.get(60)
    with er.Client(rc.connection) as other:
        for task in (ended, waiting):
            with pytest.raises(er.UnknownTask, match=told):
                other.get_result(task.msg_ids).get(60)
            assert "kept nothing" in other.explain(task).reason
    assert ended.get(0) == 1, "what has come stays"
    assert rc.load_balanced_view().apply_async(abs, -2).get(60) == 2


def test_what_memory_has_forgotten_is_told_by_all_that_name_tasks(fresh_cluster):
    rc = fresh_cluster(n=1, database="memory")
    ended = ended_task(rc)
    kill_controller(rc.cluster)
    for ask in (rc.result_status, rc.resubmit, rc.purge_results, rc.pin):
        with pytest.raises(er.UnknownTask, match=r"was restarted .* kept nothing"):
            ask(ended.msg_ids)


def test_a_file_forgets_nothing_and_an_unknown_task_is_just_that(fresh_cluster):
    rc = fresh_cluster(n=1, database="sqlite")
    ended = ended_task(rc)
    kill_controller(rc.cluster)
    with er.Client(rc.connection) as other:
        assert other.get_result(ended.msg_ids).get(60) == [1]
        with pytest.raises(er.UnknownTask, match="no such task: never submitted here, purged, or dropped") as caught:
            other.get_result("nobody-1").get(60)
        assert "restarted" not in str(caught.value)


def test_a_controller_that_is_not_the_second_says_nothing_of_restarts(memory_cluster):
    with memory_cluster.connect_client_sync() as rc:
        with pytest.raises(er.UnknownTask, match="never submitted here, purged, or dropped"):
            rc.get_result("nobody-1").get(60)
        with pytest.raises(er.UnknownTask, match=r"no such task: nobody-1$"):
            rc.result_status("nobody-1")


# ---------------------------------------------------------------------------------------------- in between


@pytest.mark.parametrize("database", ["sqlite", "none"])
def test_direct_tasks_are_answered_though_the_engines_have_still_to_come_back(fresh_cluster, database):
    rc = fresh_cluster(n=2, database=database)
    view = rc[:]
    engines = view.apply_sync(os.getpid)
    for _ in range(2):
        wait_until(lambda: rc._channel.is_all_accepted)
        pid = rc.cluster.controller.pid
        os.kill(pid, signal.SIGKILL)
        assert view.apply_sync(os.getpid) == engines
        assert rc.cluster.controller.pid != pid
        assert rc[1].apply_sync(os.getpid) == engines[1]
    assert rc.ids == [0, 1]


@pytest.mark.fault(12)
@pytest.mark.parametrize("kind", ["direct", "balanced"])
@pytest.mark.parametrize("count", [20, 50, 100])
def test_what_engines_have_begun_is_not_begun_again(fresh_cluster, tmp_path, kind, count):
    """The controller is killed while tasks come and end, so that some of both are not recorded."""

    rc, ledger = fresh_cluster(n=2), tmp_path / "ledger"
    view = rc[1] if kind == "direct" else rc.load_balanced_view()
    assert view.apply_sync(note, str(ledger), 0) == 0
    pid, results = rc.cluster.controller.pid, []
    while rc.cluster.controller.pid == pid:
        results.append(view.apply_async(note, str(ledger), len(results) + 1))
        if len(results) == count:
            os.kill(pid, signal.SIGKILL)
    numbers = list(range(1, len(results) + 1))
    assert [result.get(60) for result in results] == numbers
    assert (noted(ledger) if kind == "direct" else sorted(noted(ledger))) == [0, *numbers]


@pytest.mark.fault(12)
@pytest.mark.parametrize("once", [False, True])
def test_what_is_resubmitted_is_not_begun_twice(fresh_cluster, tmp_path, once):
    rc, ledger = fresh_cluster(n=2), tmp_path / "ledger"
    view = rc.load_balanced_view(at_most_once=once)
    first = view.apply_async(note, str(ledger), 0)
    assert first.get(60) == 0
    wait_until(lambda: rc._channel.is_all_accepted)
    with ThreadPoolExecutor() as threads:
        again = threads.submit(rc.resubmit, first.msg_ids)
        wait_until(lambda: len(noted(ledger)) == 2)
        kill_controller(rc.cluster)
        assert again.result(60).get(60) == [0]
    assert noted(ledger) == [0, 0]


@pytest.mark.fault(12)
@pytest.mark.parametrize("number", [1, 5])
def test_what_runs_at_most_once_and_has_ended_is_recorded(fresh_cluster, tmp_path, number):
    rc, ledger = fresh_cluster(n=1), tmp_path / "ledger"
    view = rc.load_balanced_view(at_most_once=True)
    results = [view.apply_async(note, str(ledger), each) for each in range(number)]
    assert [result.get(60) for result in results] == list(range(number))
    kill_controller(rc.cluster)
    ids = [id for result in results for id in result.msg_ids]
    wait_until(lambda: rc.db_count({"msg_id": {"$in": ids}, "state": "completed"}) == number)
    assert noted(ledger) == list(range(number))


@pytest.mark.fault(12)
def test_a_task_that_its_client_was_told_to_be_aborted_stays_so(fresh_cluster, tmp_path):
    rc, ledger, gate = fresh_cluster(n=1), tmp_path / "ledger", tmp_path / "gate"
    view = rc.load_balanced_view()
    busy = view.apply_async(hold, str(gate))
    wait_until(busy.running)
    waiting = view.apply_async(note, str(ledger), 1)
    waiting.cancel()
    with pytest.raises(er.TaskAborted):
        waiting.get(60)
    kill_controller(rc.cluster)
    gate.touch()
    busy.get(60)
    assert view.apply_sync(note, str(ledger), 2) == 2
    assert noted(ledger) == [2]
    [record] = rc.db_query({"msg_id": waiting.msg_ids[0]}, keys=["state"])
    assert record["state"] == "aborted"


def test_a_client_waits_for_the_controller_to_be_started_again(fresh_cluster):
    rc = fresh_cluster(n=1)
    path = rc.cluster._connection_file()
    with ThreadPoolExecutor() as threads:
        with no_controller(rc.cluster):
            found = [threads.submit(er.Client, given, timeout=30) for given in (path, rc.connection)]
            with pytest.raises(TimeoutError):
                found[0].result(0.4)
            with pytest.raises(TimeoutError):
                found[1].result(0.1)
        for future in found:
            with future.result(60) as other:
                other.wait_for_engines(1, timeout=30)
                assert other[:].apply_sync(abs, -1) == [1]


def test_the_user_is_told_that_a_controller_whose_files_are_gone_is_not_started_again(fresh_cluster, caplog):
    rc = fresh_cluster(n=1, database="none")
    file = rc.cluster._connection_file()
    content = file.read_bytes()
    file.unlink()
    os.kill(rc.cluster.controller.pid, signal.SIGKILL)
    wait_until(lambda: f"is not started again: {file}, its connection file, is gone" in caplog.text)
    file.write_bytes(content)  # by which the stop finds what the controller has left


def test_the_user_is_told_when_a_controller_has_ended_too_often(fresh_cluster, caplog):
    rc = fresh_cluster(n=1, database="none")
    deadline = time.monotonic() + 60
    while "the controller is not started again: it has ended 5 times in a row" not in caplog.text:
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.kill(rc.cluster.controller.pid, signal.SIGKILL)
        assert time.monotonic() < deadline
    assert not rc.cluster.controller.running


def test_a_client_follows_a_connection_file_to_another_address(cluster, tmp_path):
    path = tmp_path / "ipcontroller-client.json"
    dead = msgspec.structs.replace(cluster.connection, url=f"ipc://{er.config.socket_dir()}/nobody", pid=a_dead_pid())
    path.write_bytes(msgspec.json.encode(dead))
    with ThreadPoolExecutor() as threads:
        found = threads.submit(er.Client, path, timeout=30)
        with pytest.raises(TimeoutError):
            found.result(0.2)
        er.config.write_connection_file(path, cluster.connection)
        with found.result(60) as rc:
            assert len(rc.ids) == 2


@pytest.mark.fault(13)
@pytest.mark.parametrize("as_file", [True, False])
def test_a_controller_without_successor_is_lost(cluster, tmp_path, as_file):
    info = msgspec.structs.replace(cluster.connection, url=f"ipc://{er.config.socket_dir()}/nobody", pid=a_dead_pid())
    path = tmp_path / "ipcontroller-client.json"
    er.config.write_connection_file(path, info)
    told = rf"pid {info.pid}\) is not running any more, and none has taken its place within 0.3 s. Start a cluster"
    with pytest.raises(er.ControllerLost, match=told):
        er.Client(path if as_file else json.loads(path.read_text()), timeout=0.3)


def a_dead_pid() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


# ---------------------------------------------------------------------------------------------- engines come back


def test_all_queues_are_those_of_the_engines_that_have_come_back(fresh_cluster):
    rc = fresh_cluster(n=2)
    engine = psutil.Process(rc._channel.engines[1].pid)
    engine.suspend()
    try:
        kill_controller(rc.cluster)
        wait_until(lambda: len(rc.queue_status()) == 2)
        assert set(rc.queue_status()) == {0, "unassigned"}
        assert set(rc.queue_status(verbose=True)) == {0, "unassigned"}
        assert rc[:].targets == [0, 1], "engine 1 may come back"
        with pytest.raises(IndexError, match="there is no engine 1"):
            rc[:].queue_status()
    finally:
        engine.resume()
    wait_until(lambda: set(rc.queue_status()) == {0, 1, "unassigned"})
    assert set(rc[:].queue_status()) == {0, 1, "unassigned"}


# ---------------------------------------------------------------------------------------------- right after a kill


@pytest.mark.fault(11)
def test_a_resubmitted_task_outlives_a_controller_killed_after_its_answer(fresh_cluster):
    rc = fresh_cluster(n=1, database="sqlite")
    ended = ended_task(rc)
    busy = running_task(rc)  # what comes next waits, and is not written for having ended
    again = rc.resubmit(ended.msg_ids)
    with contextlib.closing(SQLiteDB.open_readonly(rc.cluster.connection.database.removeprefix("sqlite://"))) as file:
        assert file.get_record(again.msg_ids[0])["state"] == "pending", "it is answered once it is recorded"
    kill_controller(rc.cluster)
    assert rc.result_status(again.msg_ids)["pending"] == again.msg_ids
    rc.cancel(busy)
    assert again.get(60) in (1, [1])


def test_questions_about_tasks_that_are_sent_again_find_them(fresh_cluster):
    rc = fresh_cluster(n=1, database="sqlite")
    running_task(rc)
    with no_controller(rc.cluster):
        waiting = [rc.load_balanced_view().apply_async(abs, -n) for n in range(3)]
        pinned = rc._channel.request(Pin(waiting[0].msg_ids, None, True))
        aborted = rc._channel.request(Abort(waiting[1].msg_ids))
    assert pinned.result(60) == 1
    assert aborted.result(60) == 1
    with pytest.raises(er.TaskAborted):
        waiting[1].get(60)
