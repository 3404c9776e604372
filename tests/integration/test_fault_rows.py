"""Rows of docs/faults.md that no other test causes: clients, databases and hosts that fail at a bad moment."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import hold, processes_of, wait_until

import engineroom as er


def script(source: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of a user."""
    command = [sys.executable, "-c", source, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


SUBMITS_MANY = """
import signal, sys, engineroom as er
rc = er.Client(sys.argv[1])
view = rc.load_balanced_view(label="many")
print("begins", flush=True)
for number in range(10_000):
    view.apply_async(abs, -number)
signal.pause()  # until it is killed
"""


@pytest.mark.fault(2)
@pytest.mark.parametrize("recorded", [1, 1500])
def test_what_a_client_submitted_before_it_was_killed_is_recorded_whole_and_ends(rc, cluster, recorded):
    rc.purge_results(query={"label": "many"})
    with script(SUBMITS_MANY, cluster._connection_file()) as process:
        assert process.stdout.readline() == "begins\n"
        wait_until(lambda: rc.db_count({"label": "many"}) >= recorded)
        process.kill()

    def numbers_of(records: list[dict[str, Any]]) -> list[int]:
        return sorted(int(re.sub(r"\D", "", record["arguments"])) for record in records)

    def all_ended() -> list[dict[str, Any]]:
        """One look at all: what the client has sent may still be coming in, and those that end first come first."""
        found = rc.db_query({"label": "many"}, keys=["state", "arguments"])
        is_pending = any(record["state"] in ("pending", "running") for record in found)
        return [] if is_pending or numbers_of(found) != list(range(len(found))) else found

    records = wait_until(all_ended)
    assert len(records) >= recorded
    assert Counter(r["state"] for r in records) == {"completed": len(records)}
    numbers = numbers_of(records)
    assert numbers == list(range(len(numbers))), "the first ones, without a gap, each of them once"


WAITS_WITH_A_BAR = """
import sys, engineroom as er
rc = er.Client(sys.argv[1])
rc.session.name = "night"

def step(number, gate):
    import os, time
    while number == 5 and not os.path.exists(gate):
        time.sleep(0.01)
    return number

view = rc.load_balanced_view()
view.map_async(step, range(8), [sys.argv[2]] * 8, chunksize=1).wait_interactive()
"""


class Terminal(io.StringIO):
    """Where bars are shown."""

    def isatty(self) -> bool:
        return True


@pytest.mark.fault(4)
def test_the_bar_of_a_wait_that_was_killed_is_taken_up_where_it_was(fresh_cluster, tmp_path, monkeypatch):
    monkeypatch.delenv("IPP_NONINTERACTIVE", raising=False)
    rc, gate = fresh_cluster(n=2), tmp_path / "gate"
    with script(WAITS_WITH_A_BAR, rc.cluster._connection_file(), gate) as process:
        wait_until(lambda: rc.db_count({"function_name": "step", "state": "completed"}) == 7)
        process.kill()
    again = rc.session("night")
    screen = Terminal()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", screen)
        with pytest.raises(TimeoutError, match="7 of 8"):
            again.wait_interactive(timeout=0.5)
    assert "7/8" in screen.getvalue()
    gate.touch()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", screen)
        again.wait_interactive(timeout=60)
    assert "8/8" in screen.getvalue()
    assert again[0].get() == list(range(8))


QUEUED_MEMORY = "c.IPController.queued_memory = '8MB'\n"


@pytest.mark.fault(37)
def test_more_tasks_than_memory_has_room_for_wait_in_their_client_which_says_so(tmp_path, capsys):
    (tmp_path / "ipcontroller_config.py").write_text(QUEUED_MEMORY)
    go = tmp_path / "go"
    with er.Cluster(n=1, profile_dir=tmp_path) as rc:
        rc[0].apply_async(hold, str(go))
        view = rc.load_balanced_view()
        results = [view.apply_async(bytes.decode, b"%08d" % number * 256) for number in range(6000)]
        wait_until(lambda: "tasks wait until the controller has room" in capsys.readouterr().err)
        taken_in = rc.db_count({"state": "pending"})
        assert 2000 < taken_in < 6000, "a question does not wait; no task takes more than 4 KiB"
        go.touch()
        assert [result.get(60) for result in results] == [f"{number:08d}" * 256 for number in range(6000)]
        assert rc.db_count({"state": "completed"}) >= 6000


@pytest.mark.fault(37)
def test_tasks_that_a_task_waits_for_have_room(tmp_path):
    (tmp_path / "ipcontroller_config.py").write_text(QUEUED_MEMORY.replace("8MB", "100KB"))

    def outer(folder, go):
        while not os.path.exists(go):
            time.sleep(0.005)
        with er.Client(profile_dir=folder) as inner:
            return sum(inner.load_balanced_view().map_sync(abs, range(100)))

    go = tmp_path / "go"
    with er.Cluster(n=1, profile_dir=tmp_path) as rc:
        view = rc.load_balanced_view()
        nested = view.apply_async(outer, str(tmp_path), str(go))
        with view.temp_flags(after=nested):  # they cannot end before it
            others = [view.apply_async(abs, -number) for number in range(1000)]
        wait_until(lambda: rc._channel._window.is_shut)
        go.touch()
        assert nested.get(60) == sum(range(100))
        assert [result.get(60) for result in others] == list(range(1000))


@pytest.mark.fault(35)
def test_an_engine_whose_memory_grows_is_replaced_between_two_tasks(fresh_cluster):
    def leaks(number):
        import math

        math.leaked = [*getattr(math, "leaked", ()), b"x" * (8 << 20)]  # it outlives the task
        return number

    rc = fresh_cluster(n=1, engine_args=["--memory-limit=100MB"])
    view = rc.load_balanced_view(label="leaks", at_most_once=True)
    assert view.map_sync(leaks, range(40), chunksize=1) == list(range(40))
    records = rc.db_query({"label": "leaks"}, keys=["attempts", "engine_uuid", "engine_id"])
    assert [[attempt["cause"] for attempt in record["attempts"]] for record in records] == [["ok"]] * 40
    assert 2 < len({record["engine_uuid"] for record in records}) < 20
    assert {record["engine_id"] for record in records} == {0}


def test_an_engine_with_names_of_its_user_is_not_replaced(fresh_cluster):
    rc = fresh_cluster(n=1, engine_args=["--memory-limit=100MB"])
    rc[0].execute("large = bytes(120 << 20); large = large + b'x'", block=True)
    assert rc.load_balanced_view().map_sync(abs, range(-3, 0), chunksize=1) == [3, 2, 1]
    rc[0].execute("size = len(large)", block=True)
    assert rc[0]["size"] == (120 << 20) + 1


def wait_at_first(folder):
    with open(os.path.join(folder, "begun"), "a+") as file:
        file.write("x")
        file.seek(0)
        if len(file.read()) == 1:
            file.flush()
            time.sleep(60)
    return "done"


@pytest.mark.fault(48)
@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({"PBS_JOBID": "17"}, "preempted: its batch system ended its job (SIGTERM)"),
        ({"PBS_WALLTIME": "3"}, "preempted: the time limit of its job ends"),
    ],
)
def test_the_record_of_a_task_says_that_the_job_of_its_engine_ended(
    fresh_cluster, tmp_path, monkeypatch, variables, cause
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    rc = fresh_cluster(n=1)
    for name in variables:
        monkeypatch.delenv(name)
    result = rc.load_balanced_view().apply_async(wait_at_first, str(tmp_path))
    wait_until((tmp_path / "begun").exists)
    wait_until(lambda: rc.db_query({"msg_id": result.msg_ids[0], "state": "running"}, keys=["msg_id"]))
    if "PBS_WALLTIME" not in variables:
        engine = psutil.Process(rc.queue_status()[0]["pid"])
        engine.parent().parent().terminate()
    wait_until(lambda: not rc.ids)
    rc.cluster.start_engines_sync(1)
    assert result.get(60) == "done"
    [record] = rc.db_query({"msg_id": result.msg_ids[0]}, keys=["attempts"])
    causes = [attempt["cause"] for attempt in record["attempts"]]
    assert causes == [cause, "ok"]


STOPPED_CLIENT = """
import sys, engineroom as er
rc = er.Client(sys.argv[1])
result = rc.load_balanced_view(label="unread").map_async(lambda n: bytes(1000) + b"%d" % n, range(800), chunksize=1)
print("submitted", flush=True)
sys.stdin.readline()
values = result.get(60)
assert [int(value[1000:]) for value in values] == list(range(800))
print("all", flush=True)
"""


@pytest.mark.fault(7, 38)
def test_a_client_that_did_not_read_has_everything_though_the_engines_died_meanwhile(fresh_cluster):
    rc = fresh_cluster(n=2)
    command = [sys.executable, "-c", STOPPED_CLIENT, str(rc.cluster._connection_file())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "submitted\n"
        wait_until(lambda: rc.db_count({"label": "unread"}) >= 400)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: rc.db_count({"label": "unread", "completed": None}) == 0)
        known = rc.db_count({"label": "unread"})
        before = {engine.uuid for engine in rc._channel.engines}
        for engine in rc._channel.engines:
            os.kill(engine.pid, signal.SIGKILL)
        wait_until(lambda: len(rc.ids) == 2 and not before & {engine.uuid for engine in rc._channel.engines})
        process.send_signal(signal.SIGCONT)
        assert process.communicate("go\n", timeout=60)[0] == "all\n"
    assert known >= 400
    attempts = rc.db_query({"label": "unread"}, keys=["attempts"])
    assert len(attempts) == 800
    assert {len(record["attempts"]) for record in attempts} == {1}


@pytest.mark.fault(16)
def test_while_another_program_locks_the_database_results_arrive_and_records_follow(fresh_cluster):
    rc = fresh_cluster(n=1)
    file = Path(rc.connection.profile_dir) / "tasks.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        results = [rc.load_balanced_view(label="locked").apply_async(abs, -n) for n in range(50)]
        assert [r.get(60) for r in results] == list(range(50))
        assert not rc._channel.is_all_accepted, "nothing can have been recorded"
        other.execute("COMMIT")
    assert rc.db_count({"label": "locked", "state": "completed"}) == 50


@pytest.mark.fault(42)
def test_a_purge_takes_no_task_that_runs_and_no_value_that_a_client_has(rc, cluster, tmp_path):
    gate = tmp_path / "gate"
    running = rc[0].apply_async(hold, str(gate))
    ended = rc[1].apply_async(abs, -1)
    ended.get(60)
    with cluster.connect_client_sync() as other:
        known = other.get_result(ended.msg_ids, owner=False)
        assert known.get(60) == [1]
        waiting = other.get_result(running.msg_ids, owner=False)
        with pytest.raises(er.PendingTask):
            rc.purge_results(running)
        rc.purge_results(ended)
        gate.touch()
        assert waiting.get(60) == [None]
        assert known.get() == [1]
    with cluster.connect_client_sync() as third, pytest.raises(er.UnknownTask):
        third.get_result(ended.msg_ids, owner=False).get(60)


WORKS = """
import sys, time, engineroom as er
rc = er.Cluster(n=2, profile_dir=sys.argv[1]).start_and_connect_sync()
view = rc.load_balanced_view(retries=1, label="work")
results = [view.apply_async(lambda n: time.sleep(0.3 if n < 4 else 0.01) or n * n, n) for n in range(40)]
rc.wait(results[:1])
rc.db_count({})
print("works", flush=True)
time.sleep(60)
"""


@pytest.mark.fault(43)
@pytest.mark.slow
def test_after_a_restart_of_the_host_the_database_alone_is_enough(tmp_path):
    profile = tmp_path / "profile"
    with script(WORKS, profile) as process:
        assert process.stdout.readline() == "works\n"
        killed = [psutil.Process(process.pid), *processes_of(tmp_path)]
        for victim in killed:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
    wait_until(lambda: not processes_of(tmp_path))
    assert len(killed) >= 4, "the script, the controller, a nanny, and engines"
    for folder in ("security", "pid", "log"):
        shutil.rmtree(profile / folder)
    with er.Cluster(n=2, profile_dir=profile) as rc:
        wait_until(lambda: rc.db_count({"label": "work", "completed": None}) == 0)
        records = rc.db_query({"label": "work"}, keys=["msg_id", "state"])
        assert Counter(r["state"] for r in records) == {"completed": 40}
        assert sorted(rc.get_result([r["msg_id"] for r in records]).get(60)) == [n * n for n in range(40)]


@pytest.mark.fault(47)
def test_a_port_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "engineroom.controller", "--ip=127.0.0.1", f"--port={port}"]
        done = subprocess.run(
            [*command, f"--profile-dir={tmp_path / 'profile'}"], capture_output=True, text=True, timeout=60
        )
    assert done.returncode != 0
    assert str(port) in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


IN_A_CGROUP = """
import os, sys, engineroom as er
with open(sys.argv[1], "w") as procs:
    procs.write(str(os.getpid()))
rc = er.Cluster(n=1, profile_dir=sys.argv[2]).start_and_connect_sync()
error = rc.load_balanced_view().apply_async(lambda: len(bytearray(b"x") * (1 << 30))).exception()
print(type(error).__name__, error, flush=True)
view = rc.load_balanced_view(retries=9)
again = view.apply_async(lambda: len(bytearray(b"x") * (1 << 30)))
name = type(again.exception()).__name__
[record] = rc.db_query({"msg_id": again.msg_ids[0]}, keys=["attempts"])
print(name, "after", len(record["attempts"]), "attempts", flush=True)
rc.wait_for_engines(1, timeout=30)
print(rc[0].apply_sync(abs, -7), flush=True)
rc.cluster.stop_cluster_sync()
"""


@pytest.fixture
def small_cgroup():
    """The file to which a process writes its id to have no more than 500 MB of memory, with all its children."""
    version2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    base = Path("/sys/fs/cgroup") if version2 else Path("/sys/fs/cgroup/memory")
    group = base / f"engineroom-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.max" if version2 else "memory.limit_in_bytes")).write_text(str(500 << 20))
        if version2:
            (group / "memory.swap.max").write_text("0")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"a cgroup with a memory limit cannot be made here: {error}")
    yield group / "cgroup.procs"
    wait_until(lambda: not (group / "cgroup.procs").read_text())
    wait_until(lambda: _removed(group))


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


@pytest.mark.fault(8)
def test_an_engine_that_took_too_much_memory_is_named_as_such(small_cgroup, tmp_path):
    with script(IN_A_CGROUP, small_cgroup, tmp_path / "profile") as process:
        said = process.communicate(timeout=90)[0]
    assert said.startswith("EngineError")
    assert "memory ran out" in said
    assert "peak memory" in said
    assert "Start fewer engines" in said
    assert "EngineError after 2 attempts" in said, "nine retries would take down nine more engines"
    assert said.endswith("7\n"), "another engine took its place"
