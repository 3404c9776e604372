"""What is kept, with a real controller: retention, pins, and the room on the disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import processes_of, wait_until

import engineroom as er
from engineroom.messages import GetFunction

Start = Callable[..., er.Client]


def half(x: float) -> float:
    return x / 2


def size_of(x: bytes) -> int:
    return len(x)


def test_records_beyond_a_number_go_while_tasks_run(fresh_cluster: Start) -> None:
    rc = fresh_cluster(retention={"count": 50, "interval": 0.05})
    view = rc.load_balanced_view()
    assert view.map_sync(half, range(600), chunksize=1) == [n / 2 for n in range(600)]
    wait_until(lambda: rc.db_count({}) == 50)


def test_a_result_that_was_let_go_says_so(fresh_cluster: Start) -> None:
    rc = fresh_cluster(retention={"payload_age": 0, "interval": 0.05})
    result = rc.load_balanced_view().apply_async(half, 3)
    assert result.get() == 1.5, "who waits has it, whatever is kept"
    id = result.msg_ids[0]
    wait_until(lambda: rc.db_query({"msg_id": id}, "result_buffers")[0]["result_buffers"] is None)
    assert rc.db_query({"msg_id": id})[0]["state"] == "completed"
    with rc.cluster.connect_client_sync() as other, pytest.raises(er.UnknownTask, match="not kept any more"):
        other.get_result(id).get(timeout=60)
    with pytest.raises(er.StoreError, match=r"arguments of task .* are not kept any more"):
        rc.resubmit(id)


def half_once(x: float, path: str) -> float:
    """Half of x, once a file is there."""
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.005)
    return x / 2


def test_pinned_records_stay(fresh_cluster: Start, tmp_path: Path) -> None:
    rc = fresh_cluster(retention={"count": 0, "interval": 0.05, "rules": []})
    view = rc.load_balanced_view()
    go = tmp_path / "go"
    held = view.apply_async(half_once, 1, str(go))
    with pytest.raises(ValueError, match="tasks or a query"):
        rc.pin()
    with pytest.raises(er.UnknownTask, match="no such task: nobody-1; nothing"):
        rc.pin("nobody-1")
    rc.pin(held)
    assert [record["msg_id"] for record in rc.db_query({"pinned": True}, "msg_id")] == held.msg_ids
    go.touch()
    assert held.get(60) == 0.5
    others = view.map_async(half, range(20), chunksize=1)
    others.get()
    wait_until(lambda: rc.db_count({}) == 1)
    assert rc.get_result(held.msg_ids[0]).get() == 0.5
    assert rc.unpin(query={"pinned": True}) == 1
    wait_until(lambda: rc.db_count({}) == 0)


def test_a_large_buffer_that_goes_to_all_engines_is_stored_once(fresh_cluster: Start) -> None:
    rc = fresh_cluster()
    path = Path(rc.cluster.connection.database.removeprefix("sqlite://"))
    block = os.urandom(20_000_000)
    rc[:].push({"block": block}, block=True)
    rc[:].push({"block": block}, block=True)
    assert rc.db_count({}) == 4
    taken = path.stat().st_size + path.with_name("tasks.db-wal").stat().st_size
    assert taken < 2.5 * len(block), "once in the file, and perhaps once in its log"
    assert rc.resubmit(rc.hub_history()[-1]).get(timeout=60) in (None, [None])
    rc.purge_results("all")
    wait_until(lambda: path.stat().st_size < 1_000_000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path, leave: int) -> None:
    """Take all but so many bytes of a file system."""
    disk = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - leave)


def megabyte() -> bytes:
    return os.urandom(1 << 20)


def megabyte_once(path: str) -> bytes:
    """A megabyte, once a file is there."""
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.005)
    return os.urandom(1 << 20)


@pytest.mark.fault(18)
def test_new_tasks_are_refused_before_the_disk_is_full(small_disk: Path, fresh_cluster: Start, tmp_path: Path) -> None:
    rc = fresh_cluster(database=f"sqlite://{small_disk}/tasks.db", retention={"min_free": "8MB"})
    view = rc.load_balanced_view()
    go = tmp_path / "go"
    running = [view.apply_async(megabyte_once, str(go)) for _ in range(2)]
    wait_until(lambda: rc.db_count({}) == 2)
    fill(small_disk / "ballast", 6_000_000)
    with pytest.raises(er.StoreFull, match=r"no room for new tasks: .* MB are free .*min_free"):
        view.apply_sync(half, 1)
    with pytest.raises(er.StoreFull):
        rc.resubmit(running[0])
    go.touch()
    assert [len(result.get()) for result in running] == [1 << 20] * 2
    wait_until(lambda: rc.db_count({"state": "completed"}) == 2)
    (small_disk / "ballast").unlink()
    assert view.apply_sync(half, 1) == 0.5
    with pytest.raises(er.StoreFull, match="this would take"):
        view.apply_sync(size_of, os.urandom(15_000_000))


@pytest.mark.fault(18)
def test_a_start_on_a_full_disk_says_so(small_disk: Path, tmp_path: Path) -> None:
    profile = small_disk / "profile_default"
    cluster = er.Cluster(n=1, profile_dir=profile)
    for name in ("security", "log", "pid"):
        (profile / name).mkdir(mode=0o700, parents=True)
    fill(small_disk / "ballast", 0)
    with pytest.raises(er.EngineroomError, match=r"exit code 1, and its log .* is empty: the disk is full"):
        cluster.start_and_connect_sync()
    command = [sys.executable, "-m", "engineroom.cli.ipcluster", "start", "-n", "1", f"--profile-dir={profile}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = f"cannot write {profile / 'pid' / 'ipcluster.pid'}: No space left on device"
    assert (ended.returncode, said in ended.stderr) == (1, True), ended.stderr
    assert list((profile / "pid").iterdir()) == []
    wait_until(lambda: not processes_of(tmp_path))


@pytest.mark.fault(18)
def test_a_full_disk_loses_nothing(small_disk: Path, fresh_cluster: Start, tmp_path: Path) -> None:
    rc = fresh_cluster(database=f"sqlite://{small_disk}/tasks.db", retention={"min_free": 0})
    view = rc.load_balanced_view()
    go = tmp_path / "go"
    running = [view.apply_async(megabyte_once, str(go)) for _ in range(4)]
    wait_until(lambda: rc.db_count({}) == 4)
    fill(small_disk / "ballast", 300_000)
    go.touch()
    values = [result.get() for result in running]
    with pytest.raises(er.StoreFull, match="full"):  # the writer has found out
        wait_until(lambda: view.apply_sync(half, 1) is None)
    (small_disk / "ballast").unlink()
    wait_until(lambda: _works(view))
    wait_until(lambda: rc.db_count({"state": "completed"}) >= 5)
    with rc.cluster.connect_client_sync() as other:
        assert [other.get_result(result.msg_ids[0]).get() for result in running] == values


@pytest.mark.fault(18)
def test_a_purge_needs_no_room_on_the_disk(small_disk: Path, fresh_cluster: Start) -> None:
    rc = fresh_cluster(database=f"sqlite://{small_disk}/tasks.db", retention={"min_free": 0})
    view = rc.load_balanced_view()
    assert len([result.get() for result in [view.apply_async(megabyte) for _ in range(8)]]) == 8
    path = small_disk / "tasks.db"
    wait_until(lambda: rc.db_count({"state": "completed"}) == 8)
    fill(small_disk / "ballast", 300_000)
    assert rc.purge_hub_results("all") == 8
    wait_until(lambda: path.stat().st_size < 1_000_000)
    assert view.apply_sync(half, 1) == 0.5


def _works(view: Any) -> bool:
    try:
        return bool(view.apply_sync(half, 1) == 0.5)
    except er.StoreError:
        return False


def test_a_database_that_is_moved_away_and_back(fresh_cluster: Start, tmp_path: Path) -> None:
    rc = fresh_cluster()
    view = rc.load_balanced_view()
    path = Path(rc.cluster.connection.database.removeprefix("sqlite://"))
    go = tmp_path / "go"
    held = view.apply_async(megabyte_once, str(go))
    wait_until(lambda: rc.db_count({}) == 1)
    path.rename(path.with_name("elsewhere.db"))
    go.touch()
    value = held.get()
    with pytest.raises(er.StoreError, match="is not there any more"):
        wait_until(lambda: view.apply_sync(half, 1) is None)
    path.with_name("elsewhere.db").rename(path)
    wait_until(lambda: _works(view))
    wait_until(lambda: rc.db_count({"state": "completed"}) >= 2)
    with rc.cluster.connect_client_sync() as other:
        assert other.get_result(held.msg_ids[0]).get() == value


def test_a_cluster_is_stopped_soon_though_its_database_is_gone(
    fresh_cluster: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("engineroom.cluster.cluster.LAST_TASKS_SECONDS", 0.1)
    rc = fresh_cluster()
    view = rc.load_balanced_view()
    assert view.apply_sync(half, 1) == 0.5
    path = Path(rc.cluster.connection.database.removeprefix("sqlite://"))
    for file in path.parent.glob(f"{path.name}*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(er.StoreError, match="is not there any more"):
        wait_until(lambda: view.apply_sync(half, 1) is None)
    view.apply_async(half, 2)
    rc.cluster.stop_cluster_sync()
    assert "may be lost: the controller has not accepted them" in capsys.readouterr().err


def test_a_result_that_is_damaged_is_not_called_unknown(fresh_cluster: Start) -> None:
    rc = fresh_cluster()
    view = rc.load_balanced_view()
    made = view.apply_async(bytes, 1 << 20)
    made.get()
    path = Path(rc.cluster.connection.database.removeprefix("sqlite://"))
    wait_until(lambda: rc.db_count({"state": "completed"}) == 1)
    shutil.rmtree(path.with_name(f"{path.name}-payloads"))
    with rc.cluster.connect_client_sync() as other, pytest.raises(er.StoreDamaged, match=r"cannot be had: .* damaged"):
        other.get_result(made.msg_ids[0]).get(30)


@pytest.mark.parametrize("database", ["sqlite", "memory"])
def test_functions_go_with_their_records_and_are_sent_again(fresh_cluster: Start, database: str) -> None:
    rc = fresh_cluster(database=database, retention={"interval": 0.05})
    view = rc.load_balanced_view()
    result = view.apply_async(half, 3)
    assert result.get() == 1.5
    kept = view.apply_async(size_of, b"abc")
    assert kept.get() == 3
    [record] = rc.db_query({"msg_id": result.msg_ids[0]})
    rc.purge_results(result)

    def is_gone() -> bool:
        try:
            return not rc._channel.ask(GetFunction(record["function"]))
        except KeyError:
            return True

    wait_until(is_gone)
    again = view.apply_async(half, 5)
    assert again.get() == 2.5, "the client still counts it as sent"
    [record] = rc.db_query({"msg_id": again.msg_ids[0]})
    assert (record["function_name"], is_gone()) == ("test_what_is_kept.half", False)
    assert rc.resubmit(kept).get() == 3


def test_no_task_loses_its_function_while_others_are_dropped(fresh_cluster: Start) -> None:
    rc = fresh_cluster(retention={"count": 3, "interval": 0.02})
    view = rc.load_balanced_view()
    for number in range(60):
        results = [view.apply_async(function, value) for function, value in ((half, number), (size_of, b"ab"))]
        with view.temp_flags(cache=True):
            results.append(view.apply_async(half, number % 3))
        assert [result.get(timeout=60) for result in results] == [number / 2, 2, number % 3 / 2]
    rc.purge_results("all")
    last = view.apply_async(half, 1)
    assert last.get() == 0.5
    [record] = rc.db_query({"msg_id": last.msg_ids[0]})
    assert rc._channel.ask(GetFunction(record["function"]))["name"] == "test_what_is_kept.half"


@pytest.mark.fault(20)
def test_a_damaged_result_is_named_and_the_others_are_sent(fresh_cluster: Start) -> None:
    rc = fresh_cluster()
    results = rc.load_balanced_view().map_async(half, range(5), chunksize=1)
    results.get()
    path = rc.cluster.connection.database.removeprefix("sqlite://")
    wait_until(lambda: rc.db_count({"state": "completed"}) == 5)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE tasks SET result_payload = x'00' WHERE msg_id = ?", results.msg_ids[2:3])
    connection.commit()
    connection.close()
    with rc.cluster.connect_client_sync() as other:
        with pytest.raises(er.StoreDamaged, match="is damaged"):
            other.get_result(results.msg_ids[2]).get(timeout=60)
        rest = [id for id in results.msg_ids if id != results.msg_ids[2]]
        fetched = other.get_result(results.msg_ids)
        with pytest.raises(er.StoreDamaged):
            fetched.get(timeout=60)
        assert [other.get_result(id).get(timeout=60) for id in rest] == [[0.0], [0.5], [1.5], [2.0]]
