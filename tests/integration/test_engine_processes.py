"""Engines as processes: their cores, threads, input, children and end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import processes_of, wait_until

import engineroom as er
from engineroom.cores import usable_cores

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def threads_of(names):
    import os

    return [os.environ.get(name) for name in names]


def test_engines_share_the_cores_for_numerical_libraries(fresh_cluster, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    rc = fresh_cluster(n=2, database="none")
    share = str(max(1, usable_cores() // 2))
    assert rc[:].apply_sync(threads_of, VARIABLES) == [[share] * 3] * 2


def test_threads_can_be_chosen(fresh_cluster, monkeypatch):
    for name in VARIABLES:  # libraries that other tests use may have set some
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    rc = fresh_cluster(n=1, database="none", engine_args=["--threads=3"])
    assert rc[0].apply_sync(threads_of, VARIABLES) == ["3", "3", "3"]
    rc = fresh_cluster(n=1, database="none")
    assert rc[0].apply_sync(threads_of, VARIABLES[:2]) == ["5", None]


# ---------------------------------------------------------------------------------------------- forked processes


def test_a_process_that_a_task_forks_is_no_engine(rc):
    def fork():
        import os

        child = os.fork()
        if child == 0:
            print("from the child")
            return "the child comes to the end of the task"
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    result = rc[0].apply_async(fork)
    assert result.get(60) == 0
    assert result.stdout == "from the child\n"
    assert rc[0].apply_sync(lambda: 5) == 5


@pytest.mark.parametrize(("end", "code"), [("sys.exit(3)", 3), ("sys.exit('why')", 1), ("1 / 0", 1), ("exit()", 0)])
def test_a_forked_process_that_exits_does_not_end_the_task(rc, end, code):
    def fork(end):
        import os

        child = os.fork()
        if child == 0:
            exec(end, {"sys": sys})
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    result = rc[0].apply_async(fork, end)
    assert result.get(60) == code
    assert ("ZeroDivisionError" in result.stderr) == (end == "1 / 0")
    assert ("why" in result.stderr) == (end == "sys.exit('why')")


def test_a_forked_process_cannot_speak_for_its_engine(rc):
    def fork():
        import os

        from engineroom.on_engine.datapub import publish_data

        child = os.fork()
        if child == 0:
            try:
                publish_data({"x": 1})
            except RuntimeError as error:
                os._exit(7 if "forked" in str(error) else 8)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert rc[0].apply_sync(fork) == 7


def test_multiprocessing_works_in_tasks(rc):
    def many():
        import multiprocessing

        context = multiprocessing.get_context("fork")
        with context.Pool(2) as pool:
            found = pool.map(abs, [-1, -2, -3])
        process = context.Process(target=print, args=["from a process"])
        process.start()
        process.join()
        return found

    result = rc[0].apply_async(many)
    assert result.get(60) == [1, 2, 3]
    assert result.stdout == "from a process\n"


# ---------------------------------------------------------------------------------------------- input


@pytest.mark.parametrize(
    "code",
    [
        "input('name? ')",
        "__import__('getpass').getpass()",
        "__import__('sys').stdin.read()",
        "next(__import__('sys').stdin)",
        "breakpoint()",
        "__import__('pdb').set_trace()",
    ],
)
def test_a_task_that_reads_input_is_told_why_it_cannot(rc, code):
    with pytest.raises(er.RemoteError, match=r"cannot read input.*replay"):
        rc[0].execute(code).get(60)


def test_child_processes_of_tasks_have_empty_input(rc):
    assert rc[0].apply_sync(lambda: __import__("subprocess").check_output(["cat"])) == b""


# ---------------------------------------------------------------------------------------------- deaths


@pytest.mark.fault(35)
def test_a_task_that_closes_descriptors_is_the_one_to_blame(fresh_cluster):
    rc = fresh_cluster(n=1, database="none")
    lb = rc.load_balanced_view()

    def close(seconds):
        import os
        import time

        time.sleep(seconds)
        os.closerange(3, 256)

    around = [lb.apply_async(abs, -i) for i in range(20)]
    with lb.temp_flags(retries=10):
        guilty = lb.apply_async(close, 0.001)
    around += [lb.apply_async(abs, -i) for i in range(20)]
    with pytest.raises(er.EngineError, match=r"(closed its file descriptors|SIGABRT).*running on 3 engines"):
        guilty.get(60)
    assert [result.get(60) for result in around] == [*range(20), *range(20)]
    assert lb.apply_sync(abs, -5) == 5


@pytest.mark.fault(6)
def test_a_death_after_the_end_of_a_task_counts_for_it(fresh_cluster):
    rc = fresh_cluster(n=1, database="none")
    lb = rc.load_balanced_view()

    def die_soon():
        import os

        class Poison:
            def __reduce__(self):
                return os.getpid, ()

            def __del__(self):
                os.kill(os.getpid(), 9)

        return Poison()

    with lb.temp_flags(retries=10), pytest.raises(er.EngineError, match="running on 3 engines"):
        lb.apply_sync(die_soon)
    assert lb.apply_sync(abs, -5) == 5


@pytest.mark.fault(3)
def test_an_engine_that_gets_a_sigterm_which_is_not_its_nannys_is_replaced(fresh_cluster):
    rc = fresh_cluster(n=2)
    before = rc[:].apply_sync(os.getpid)
    os.kill(before[0], signal.SIGTERM)
    wait_until(lambda: before[0] not in {engine.pid for engine in rc._channel.engines})
    rc.wait_for_engines(2, timeout=60)
    assert rc.ids == [0, 1]
    after = rc[:].apply_sync(os.getpid)
    assert (after[1] == before[1], after[0] == before[0]) == (True, False)


@pytest.mark.fault(3)
def test_a_task_that_sends_its_engine_a_sigterm_dies_with_it_and_no_other_does(fresh_cluster):
    def end_engine():
        os.kill(os.getpid(), signal.SIGTERM)
        __import__("time").sleep(60)

    rc = fresh_cluster(n=2)
    view = rc.load_balanced_view()
    before = set(rc[:].apply_sync(os.getpid))
    rest = view.map_async(abs, range(-100, 0), chunksize=1)
    result = view.apply_async(end_engine)
    with pytest.raises(er.EngineError, match=r"while running task .*killed by signal 15 \(SIGTERM\)"):
        result.get(60)
    assert rest.get(60) == list(range(100, 0, -1))
    [record] = rc.db_query({"msg_id": result.msg_ids[0]})
    assert len(record["attempts"]) == 1
    assert "killed by signal 15" in record["attempts"][0]["cause"]
    wait_until(lambda: len(rc.ids) == 2)
    assert len(before & set(rc[:].apply_sync(os.getpid))) == 1


def test_an_exception_that_raises_when_it_is_looked_at_does_not_end_the_engine(rc):
    def hostile(what):
        class Meta(type):
            def __getattribute__(cls, name):
                if what == "class":
                    raise RuntimeError("no")
                return super().__getattribute__(name)

        class Hostile(Exception, metaclass=Meta):
            def __getattribute__(self, name):
                if what == "attributes":
                    raise RuntimeError("no")
                return super().__getattribute__(name)

            def __str__(self):
                if what in ("text", "exit"):
                    raise SystemExit(1) if what == "exit" else RuntimeError("no")
                return "text"

            __repr__ = __str__

        raise Hostile("look")

    pid = rc[0].apply_sync(os.getpid)
    for what in ("attributes", "text", "exit", "class"):
        with pytest.raises(er.RemoteError, match="Hostile"):
            rc[0].apply_sync(hostile, what)
        rc[0].push({"hostile": hostile}, block=True)
        for silent in (True, False):
            with pytest.raises(er.RemoteError, match=r"Hostile|IPython"):
                rc[0].execute(f"hostile({what!r})", silent=silent).get(60)
    assert rc[0].apply_sync(os.getpid) == pid


# ---------------------------------------------------------------------------------------------- the end


@pytest.fixture
def patience(monkeypatch, tmp_path):
    """All processes of a cluster that is started now wait a minute for each other at the end: machines may be busy."""
    folder = tmp_path / "patience"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "from engineroom.controller import loop\n"
        "from engineroom.engine.execution import ending\n"
        "from engineroom.engine.host import nanny\n"
        "ending.EXIT_SECONDS = nanny.STOP_SECONDS = loop.STOP_SECONDS = 60\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr("engineroom.launchers.local.STOP_SECONDS", 60.0)


@pytest.mark.fault(46)
def test_an_orderly_stop_runs_exit_functions_and_finalizers(patience, fresh_cluster, tmp_path):
    rc = fresh_cluster(n=2, database="none")

    rc[:].push({"folder": str(tmp_path)}, block=True)
    rc[:].execute(
        """
import atexit, os
from pathlib import Path

class Owner:
    def __init__(self, name):
        self.path = Path(folder) / f"{name}-{os.getpid()}"
    def __del__(self):
        self.path.write_text("finalized")

owner = Owner("finalizer")
atexit.register((Path(folder) / f"atexit-{os.getpid()}").write_text, "done")
atexit.register(lambda: 1 / 0)
""",
        block=True,
    )
    rc.shutdown(targets=[0], block=True)
    wait_until(lambda: len(list(tmp_path.glob("atexit-*"))) == len(list(tmp_path.glob("finalizer-*"))) == 1)
    rc.cluster.stop_cluster_sync()
    assert len(list(tmp_path.glob("atexit-*"))) == len(list(tmp_path.glob("finalizer-*"))) == 2


def test_exit_functions_that_never_end_do_not_hold_up_the_stop(fresh_cluster, monkeypatch):
    rc = fresh_cluster(n=1, database="none")

    def register():
        import atexit
        import os
        import time

        atexit.register(time.sleep, 600)
        return os.getpid()

    pid = rc[0].apply_sync(register)
    rc.cluster.stop_cluster_sync()
    wait_until(lambda: not psutil.pid_exists(pid))


@pytest.mark.fault(35)
def test_children_in_a_session_of_their_own_end_with_their_engine(fresh_cluster):
    rc = fresh_cluster(n=2, database="none")

    def start():
        import os
        import subprocess

        command = "sleep 600 & echo $!; exec sleep 600"
        child = subprocess.Popen(["sh", "-c", command], start_new_session=True, stdout=subprocess.PIPE, text=True)
        return os.getpid(), child.pid, int(child.stdout.readline())

    (first, *children), (_, *others) = rc[:].apply_sync(start)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not any(map(psutil.pid_exists, children)))
    assert all(map(psutil.pid_exists, others)), "of an engine that lives"
    rc.cluster.stop_cluster_sync()
    wait_until(lambda: not any(map(psutil.pid_exists, others)))


SCRIPT = """
import signal, sys, time
import engineroom as er
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored
cluster = er.Cluster(n=1, profile_dir=sys.argv[1], database="none")
cluster.start_and_connect_sync()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.fault(46)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_the_users_process_leaves_no_files(tmp_path, number):
    folder = tmp_path / "profile_default"
    script = subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], stdout=subprocess.PIPE, text=True)
    assert script.stdout.readline() == "ready\n"
    assert list((folder / "security").iterdir()) != []
    script.send_signal(number)
    script.wait(60)
    script.stdout.close()
    wait_until(lambda: list((folder / "security").iterdir()) == [])
    wait_until(lambda: not processes_of(tmp_path))


STARTING = """
import sys, time
import engineroom as er
cluster = er.Cluster(n=1, profile_dir=sys.argv[1], database="none")
print("starts", flush=True)
cluster.start_and_connect_sync()
time.sleep(600)
"""


@pytest.mark.fault(46)
@pytest.mark.parametrize("moment", [0.0, 0.05, 0.1, 0.2, 0.3, 0.4])
def test_a_process_that_is_killed_while_its_cluster_starts_leaves_no_engines(tmp_path, moment):
    script = subprocess.Popen([sys.executable, "-c", STARTING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert script.stdout.readline() == "starts\n"
    time.sleep(moment)
    script.kill()
    script.wait(60)
    script.stdout.close()
    wait_until(lambda: not processes_of(tmp_path), timeout=40)  # engines look for a controller for 60 s


@pytest.mark.fault(46)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("whom", ["supervisor", "controller"])
def test_a_signal_to_ipcluster_or_its_controller_leaves_no_files(tmp_path, number, whom):
    folder = tmp_path / "profile_default"
    arguments = ["start", "-n", "1", f"--profile-dir={folder}", "--", "--nodb"]
    command = [sys.executable, "-m", "engineroom.cli.ipcluster", *arguments]
    supervisor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert any("stops the cluster" in line for line in iter(supervisor.stdout.readline, ""))
    [path] = (folder / "security").glob("*-client.json")
    os.kill(json.loads(path.read_text())["pid"] if whom == "controller" else supervisor.pid, number)
    supervisor.wait(60)
    supervisor.stdout.close()
    wait_until(lambda: list((folder / "security").iterdir()) == [])
    wait_until(lambda: not processes_of(tmp_path))


def test_a_cluster_that_another_process_stops_is_not_started_again(tmp_path):
    folder = tmp_path / "profile_default"
    cluster = er.Cluster(n=2, profile_dir=folder, database="none")
    cluster.start_cluster_sync()
    named = [f"--profile-dir={folder}", f"--cluster-id={cluster.cluster_id}"]
    command = [sys.executable, "-m", "engineroom.cluster", "stop", *named]
    stopped = subprocess.run(command, capture_output=True, text=True)
    assert stopped.returncode == 0, stopped.stderr
    wait_until(lambda: not processes_of(tmp_path))
    assert [path.name for path in (folder / "security").iterdir()] == []
    cluster.stop_cluster_sync()
