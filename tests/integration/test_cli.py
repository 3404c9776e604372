"""The commands, as a user runs them: real processes, a profile of their own, and nothing left behind."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pty
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import wait_until

import engineroom as er
from engineroom.cli import ipengine
from engineroom.cluster.found_cluster import FoundCluster
from engineroom.config import connection_file, read_connection_file
from engineroom.stores import open_store

BIN = Path(sys.executable).parent
#: longer than a stop takes whose supervisor hangs
SECONDS = 60.0


class Shell:
    """Runs commands with an IPYTHONDIR and a folder of sockets of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "IPYTHONDIR": str(folder), "TMPDIR": str(folder), "PYTHONFAULTHANDLER": "1"}
        for name in ("COLUMNS", "IPP_PROFILE_DIR", "IPP_CLUSTER_ID"):
            self.env.pop(name, None)

    def __call__(self, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        with subprocess.Popen(
            [BIN / command[0], *command[1:]], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                told = process.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # stderr then says where it is
                raise AssertionError((command, *process.communicate(), self.logs())) from None
        done = subprocess.CompletedProcess(command, process.returncode, *told)
        assert done.returncode == code, (command, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        if "please report it" in done.stderr:
            warnings.warn(f"HANG: {done.stderr}{self.logs()}", stacklevel=2)
        return done

    def here(self, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """The same in this process. For commands whose process is not the point: to start one takes the most time."""
        tool = importlib.import_module(f"engineroom.cli.{command[0]}")
        stdout, stderr = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            for name in ("COLUMNS", "IPP_PROFILE_DIR", "IPP_CLUSTER_ID"):
                patch.delenv(name, raising=False)
            patch.setenv("IPYTHONDIR", str(self.folder))
            patch.setattr("tempfile.tempdir", str(self.folder))
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
                ended = tool.main(list(command[1:]))
        done = subprocess.CompletedProcess(command, ended, stdout.getvalue(), stderr.getvalue())
        assert done.returncode == code, done
        return done

    def json(self, *command: str) -> Any:
        return json.loads(self.here(*command).stdout)

    def client(self, profile: str = "default") -> er.Client:
        return er.Client(profile_dir=self.folder / f"profile_{profile}")

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("IPYTHONDIR") == str(self.folder) and process.status() != "zombie":
                    found.append(process)
        return found

    def logs(self) -> str:
        """The ends of all logs. Processes that run are ended, and their logs say where they were."""
        found = self.processes()
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGABRT)
        psutil.wait_procs(found, timeout=5)
        return "\n".join(f"--- {path}\n{path.read_text()[-5000:]}" for path in self.folder.rglob("log/*.log"))

    def left_files(self) -> list[Path]:
        return [p for p in self.folder.rglob("*") if p.is_socket() or p.parent.name in ("security", "pid")]


def once_there(path: str) -> str:
    """Returns once a file is there."""
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.005)
    return "there"


@pytest.fixture
def shell() -> Iterator[Shell]:
    """A shell; afterwards no process, socket, connection file or pid file may be there."""
    folder = Path(tempfile.mkdtemp(prefix="er-cli-"))
    shell = Shell(folder)
    try:
        yield shell
        try:
            wait_until(lambda: not shell.processes())
        except AssertionError:
            raise AssertionError(f"processes are left: {shell.processes()}\n{shell.logs()}") from None
        assert shell.left_files() == []
    finally:
        for process in shell.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        shutil.rmtree(folder)


def fails(x: int) -> int:
    raise ValueError(f"no good: {x}")


def talks(x: int) -> int:
    print("hello from", x)
    return x


def test_a_cluster_is_started_used_extended_and_stopped(shell: Shell) -> None:
    started = shell("ipcluster", "start", "-n", "2", "--daemonize").stdout
    assert "2 engines ready" in started
    assert "engineroom.Client()" in started

    header, row = shell("ipcluster", "list").stdout.splitlines()
    assert header.split() == ["PROFILE", "CLUSTER", "ID", "RUNNING", "ENGINES", "LAUNCHER"]
    assert row.split() == ["default", "''", "yes", "2", "local"]
    (described,) = shell.json("ipcluster", "list", "-o", "json")
    assert set(described) == {"cluster", "controller", "engines"}
    assert er.Cluster.from_dict(described).controller.running  # type: ignore[union-attr]

    again = shell.here("ipcluster", "start", "-n", "2", "--daemonize", code=10)
    assert "running already" in again.stderr

    with shell.client() as rc:
        view = rc.load_balanced_view()
        assert view.map_sync(talks, range(3)) == [0, 1, 2]
        with view.temp_flags(label="fit-1"):
            failed = view.apply(fails, 7)
        failed.wait(SECONDS)

    tasks = shell("engineroom", "tasks").stdout.splitlines()
    assert tasks[0].split() == ["ID", "STATE", "TASK", "ENGINE", "SUBMITTED", "TOOK", "ERROR"]
    assert len(tasks) == 5
    assert "fit-1: " in tasks[1]
    assert "ValueError: no good: 7" in tasks[1]
    (record,) = shell.json("engineroom", "tasks", '{"state": "failed"}', "--json")
    assert record["label"] == "fit-1"
    assert record["result_content"]["ename"] == "ValueError"
    assert shell.json("engineroom", "tasks", "{'label': 'fit-1', 'submitted': {'$gt': '-1h'}}", "--json") == [record]
    assert shell.json("engineroom", "tasks", "--label=fit-*", "--state", "failed", "--json") == [record]
    assert len(shell.json("engineroom", "tasks", "--limit", "2", "--sort", "-submitted", "--json")) == 2

    short = tasks[1].split()[0]
    shown = shell("engineroom", "show", short).stdout
    assert record["msg_id"] in shown
    assert "no good: 7" in shown
    assert shell.json("engineroom", "show", record["msg_id"], "--json")["msg_id"] == record["msg_id"]

    top = shell.json("engineroom", "top", "--once", "--json")
    assert [engine["engine_id"] for engine in top["engines"]] == [0, 1]
    assert top["completed"] == 4
    assert top["unassigned"] == 0
    assert [failure["label"] for failure in top["failures"]] == ["fit-1"]
    assert "\x1b" not in shell.here("engineroom", "top").stdout

    assert "the cluster has 3" in shell("ipcluster", "engines", "-n", "1").stdout
    (described,) = shell.json("ipcluster", "list", "-o", "json")
    assert sum(engines["n"] for engines in described["engines"].values()) == 3

    assert "Stopped" in shell("ipcluster", "stop").stdout
    assert shell.processes() == []
    assert shell.json("ipcluster", "list", "-o", "json") == []
    assert "not running" in shell.here("ipcluster", "stop", code=11).stderr
    assert "No cluster is running" in shell.here("ipcluster", "stop", "--all").stdout

    # the memory outlives the cluster
    assert shell.json("engineroom", "tasks", "--state=failed", "--json") == [record]
    assert "no cluster is running" in shell.here("engineroom", "tasks").stderr
    assert "is not running" in shell.here("engineroom", "top", "--once", code=1).stderr


def foreground(shell: Shell, *options: str) -> tuple[subprocess.Popen[str], list[str]]:
    """`ipcluster start` in the foreground, ready; and what it said."""
    process = subprocess.Popen(
        [BIN / "ipcluster", "start", *options],
        env={**shell.env, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if "Ctrl-C stops" in line:
            return process, said
    raise AssertionError(f"it ended: {said}")


def nap() -> None:
    time.sleep(60)


@pytest.mark.fault(46)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_a_cluster_in_the_foreground(shell: Shell, number: int) -> None:
    process, _ = foreground(shell, "-n", "1", "--profile=night")
    with shell.client("night") as rc:
        rc.load_balanced_view().apply(nap)
        wait_until(lambda: rc.queue_status()[0]["tasks"] == 1)
    process.send_signal(number)
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert "1 task had not finished" in said
    assert "Stopped." in said
    (record,) = shell.json("engineroom", "tasks", "--json", "--profile=night")
    assert record["state"] == "aborted"


@pytest.mark.parametrize("is_daemon", [True, False])
def test_a_program_starts_a_cluster_and_attaches_to_it(shell: Shell, is_daemon: bool) -> None:
    options = ["-n", "1", "--json", *(["--daemonize"] if is_daemon else [])]
    started = subprocess.Popen(
        [BIN / "ipcluster", "start", *options],
        env=shell.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert started.stdout is not None
    line = started.stdout.readline()
    assert [json.loads(line)] == shell.json("ipcluster", "list", "--json")
    cluster = er.Cluster.from_dict(json.loads(line))
    with cluster.connect_client_sync() as rc:
        assert rc[0].apply_sync(talks, 3) == 3
    assert json.loads(shell("ipcluster", "stop", "--json").stdout)["stopped"]
    out, err = started.communicate(timeout=SECONDS)
    assert (started.returncode, out) == (0, "")
    assert "1 engine ready" in err


@pytest.mark.parametrize("is_daemon", [True, False])
def test_a_stop_says_how_many_records_could_not_be_written(shell: Shell, is_daemon: bool) -> None:
    options = ["--daemonize"] if is_daemon else []
    started = subprocess.Popen(
        [BIN / "ipcluster", "start", "-n", "1", *options],
        env=shell.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: connection_file(shell.folder / "profile_default").exists())
    with shell.client() as rc:
        rc.wait_for_engines(1, timeout=SECONDS)
        view = rc.load_balanced_view()
        go = shell.folder / "go"
        held = view.apply_async(once_there, str(go))
        wait_until(lambda: rc.db_count({}) == 1)
        for path in (shell.folder / "profile_default").glob("tasks.db*"):
            path.unlink()
        go.touch()
        assert held.get(SECONDS) == "there"
        stopped = shell("ipcluster", "stop") if is_daemon else None
        if stopped is None:
            started.send_signal(signal.SIGINT)
        told = started.communicate(timeout=SECONDS)
        said = stopped.stderr if stopped is not None else told[0]
        assert "ipcluster: 1 record of tasks could not be written before the end. " in said
        with pytest.raises(er.ControllerLost, match="but for the last 1, which could not be written"):
            rc.queue_status()


def test_a_supervisor_that_hangs_says_where_and_is_killed(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    shell("ipcluster", "start", "-n", "1", "--daemonize")
    found = FoundCluster(shell.folder / "profile_default")
    supervisor, log = found.supervisor, found.files.log_of("ipcluster")
    assert supervisor is not None
    supervisor.signal("SIGUSR1")
    wait_until(lambda: "_look_after" in log.read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engineroom.cluster.found_cluster.STOP_SECONDS", 0)
        assert "Stopped after" in shell.here("ipcluster", "stop").stdout
    assert f"(pid {supervisor.pid}) had not ended after 0 s, and was killed" in caplog.text
    assert str(log) in caplog.text


def test_processes_that_somebody_has_suspended_are_stopped_in_order(shell: Shell) -> None:
    shell("ipcluster", "start", "-n", "1", "--daemonize")
    found = FoundCluster(shell.folder / "profile_default")
    assert found.supervisor is not None
    for process in (found.supervisor, *found.processes):
        process.signal("SIGSTOP")
    assert "Stopped after" in shell("ipcluster", "stop").stdout
    assert "Stopped." in found.files.log_of("ipcluster").read_text()


def test_what_is_killed_is_started_again(shell: Shell) -> None:
    shell("ipcluster", "start", "-n", "1", "--daemonize")

    def pids() -> tuple[int, int]:
        (described,) = shell.json("ipcluster", "list", "-o", "json")
        return described["controller"]["pid"], *(nanny["pid"] for nanny in described["engines"].values())

    controller, nanny = pids()
    os.kill(controller, signal.SIGKILL)
    wait_until(lambda: pids()[0] != controller)
    file = connection_file(shell.folder / "profile_default")  # the new controller writes it when it listens
    wait_until(lambda: read_connection_file(file).pid == pids()[0])
    with shell.client() as rc:
        rc.wait_for_engines(1, timeout=SECONDS)
        assert rc.load_balanced_view().apply(talks, 1).get(SECONDS) == 1
    os.kill(nanny, signal.SIGKILL)
    wait_until(lambda: pids()[1] != nanny)
    with shell.client() as rc:
        rc.wait_for_engines(1, timeout=SECONDS)
        assert rc.load_balanced_view().apply(talks, 2).get(SECONDS) == 2
    shell.here("ipcluster", "stop", "--all")


def test_files_of_a_killed_cluster_are_told_and_cleaned(shell: Shell) -> None:
    shell("ipcluster", "start", "-n", "1", "--daemonize")
    assert "Nothing to clean. 1 cluster in use." in shell.here("ipcluster", "clean").stdout
    wait_until(lambda: [process.kill() for process in shell.processes()] == [])
    assert "no (stale)" in shell.here("ipcluster", "list").stdout
    assert shell.left_files() != []
    assert "removed" in shell("ipcluster", "clean", "--all").stdout
    assert shell.left_files() == []
    assert shell.here("ipcluster", "list").stdout.splitlines()[1:] == []


def test_no_task_matches_names_the_other_databases_of_the_profile(shell: Shell) -> None:
    folder = shell.folder / "profile_default"
    folder.mkdir()
    open_store(f"sqlite://{folder}/tasks.db").close()
    assert "Beside" not in shell.here("engineroom", "tasks").stderr
    open_store(f"sqlite://{folder}/tasks-2.db").close()
    said = shell.here("engineroom", "tasks", "--state=failed").stderr
    assert "No task matches." in said
    assert "Beside this database there is tasks-2.db" in said
    assert f"`engineroom tasks --db-url={folder}/tasks-2.db`" in said


def test_clean_removes_sockets_on_which_nobody_listens_and_says_whose(shell: Shell) -> None:
    shell("ipcluster", "start", "-n", "0", "--daemonize", "--profile=live")
    shell("ipcluster", "start", "-n", "0", "--daemonize", "--profile=killed")
    sockets = {path.parent.parent.name: Path(json.loads(path.read_text())["url"].removeprefix("ipc://"))
               for path in shell.folder.rglob("ipcontroller-client.json")}  # fmt: skip
    live, killed = sockets["profile_live"], sockets["profile_killed"]
    pid = json.loads(next(shell.folder.rglob("profile_live/security/ipcontroller-client.json")).read_text())["pid"]
    wait_until(lambda: [p.kill() for p in shell.processes() if "killed" in shlex.join(p.cmdline())] == [])
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as ended:
        foreign, nobodys = live.with_name("foreign"), live.with_name("nobodys")
        listener.bind(str(foreign))
        listener.listen()
        ended.bind(str(nobodys))  # it never listens
        assert "Nothing to clean" in shell.here("ipcluster", "clean", "--profile=another", "--force").stdout
        assert (killed.is_socket(), nobodys.is_socket()) == (True, True)
        said = shell.here("ipcluster", "clean").stdout
        assert killed.is_socket()
        assert f"removed {nobodys}, a socket of a cluster whose connection file is gone: nobody listens" in said
        assert (live.is_socket(), foreign.is_socket()) == (True, True)
        assert not nobodys.exists()
        said = shell.here("ipcluster", "clean", "--profile=killed").stdout
        assert f"removed {killed}" in said
        assert not killed.exists()
        # where the processes cannot be seen, as from another container: the socket still answers
        for path in shell.folder.rglob("profile_live/security/*.json"):
            path.write_text(path.read_text().replace(str(pid), str(2**22 + 1)))
        shell.here("ipcluster", "clean", "--profile=live", "--force")
        assert live.is_socket()
    foreign.unlink()
    wait_until(lambda: [process.kill() for process in shell.processes()] == [])
    shell.here("ipcluster", "clean", "--all")
    assert shell.left_files() == []


def test_a_killed_cluster_does_not_hinder_the_next(shell: Shell) -> None:
    shell("ipcluster", "start", "-n", "1", "--daemonize")
    wait_until(lambda: [process.kill() for process in shell.processes()] == [])
    assert "1 engine ready" in shell("ipcluster", "start", "-n", "1", "--daemonize").stdout
    assert "Stopped after" in shell("ipcluster", "stop").stdout
    shell.here("ipcluster", "clean")  # the socket of the first
    assert shell.left_files() == []


@pytest.mark.fault(47)
def test_why_a_daemon_could_not_start(shell: Shell) -> None:
    done = shell("ipcluster", "start", "-n", "1", "--daemonize", "--", "--hwm=x", code=1)
    assert "--hwm expects an int, not 'x'" in done.stdout


@pytest.mark.fault(14)
def test_two_controllers_cannot_share_a_database(shell: Shell) -> None:
    shell("ipcluster", "start", "-n", "0", "--daemonize")
    first = shell.client().connection.pid
    assert f"pid {first}" in shell("ipcontroller", code=1).stderr
    assert f"process {first}" in shell("ipcontroller", "--cluster-id=b", code=12).stderr
    shell.here("ipcluster", "stop")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("ipcontroller --hwm=x", 2, "--hwm expects an int, not 'x'"),
        ("ipcontroller --port=x --ip=127.0.0.1", 2, "--port expects an int"),
        ("ipcontroller --port=65536 --ip=127.0.0.1", 2, "--port must not be greater than 65535; got 65536"),
        ("ipengine --threads=-2", 2, "--threads must not be less than -1; got -2"),
        ("ipcontroller --nodbb", 2, "Did you mean --nodb?"),
        ("ipcontroller --ip=no.such.host.invalid", 1, "cannot listen on tcp://no.such.host.invalid"),
        ("ipcontroller --profile-dir=/proc/none", 1, "cannot write in the profile's folder /proc/none"),
        ("ipcontroller --profile=a/b", 1, "a profile's name"),
        ("ipcontroller extra", 2, "unexpected argument"),
        ("ipengine -n 0", 2, "1 or more"),
        ("ipengine -n x", 2, "-n expects an int"),
        ("ipengine --file=/none --timeout=0.1", 1, "there is no connection file /none"),
        ("ipcluster strat", 2, "Did you mean start?"),
        ("ipcluster start -n", 2, "-n needs a value"),
        ("ipcluster start -n=-1", 2, "number of engines"),
        ("ipcluster start --engines=teleport", 1, "the launchers there are"),
        ("ipcluster list -o yaml", 2, "-o expects any of"),
        ("ipcluster engines -n 1", 1, "is not running"),
        ("engineroom tasks", 1, "no task database"),
        ("engineroom tasks {", 2, "a query is JSON or a Python dict"),
        ("engineroom tasks --state=lost", 2, "--state expects any of"),
        ("engineroom tasks {'submitted':{'$gt':'-99999999999d'}}", 2, "is not a time"),
        ("engineroom tasks {'submitted':{1:2}}", 2, "keys are strings"),
        ("engineroom tasks {'state':'done'}", 2, "there is no state"),
        ("engineroom tasks --profile-dir=/etc/passwd", 1, "/etc/passwd"),
        ("engineroom show", 2, "MSG_ID"),
        ("engineroom show a b c", 2, "unexpected MSG_ID: 'b' and 1 more"),
        (f"engineroom explain {'x ' * 100_003}", 2, "unexpected MSG_ID: 'x' and 2 more; one command takes 100,000 at"),
        ("engineroom top", 1, "is not running"),
    ],
)
def test_mistakes_are_told_in_one_line(shell: Shell, command: str, code: int, words: str) -> None:
    is_server = command.startswith(("ipcontroller", "ipengine"))  # these set up the logging of their process
    done = (shell if is_server else shell.here)(*command.split(), code=code)
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_engine_says_what_it_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(ipengine, "NOTICE_SECONDS", 0.0)
    engine = ipengine.IPEngine(url_file=str(tmp_path / "none.json"), timeout=0.1)
    with pytest.raises(er.ConnectionFileError, match="there is no connection file"):
        engine._wait_for_file()
    assert caplog.messages == [f"there is no {tmp_path}/none.json yet: waiting up to 0.1 s for a controller"]


@pytest.mark.parametrize("tool", ["ipcluster", "ipcontroller", "ipengine", "engineroom"])
def test_version_is_the_version_alone(shell: Shell, tool: str) -> None:
    assert shell(tool, "--version").stdout == f"{er.__version__}\n"
    assert "Examples" in shell.here(tool, "--help").stdout
    assert shell.here(tool, "--help-all").stdout.startswith("Usage: ")


def test_without_a_command_there_is_help(shell: Shell) -> None:
    for tool in ("ipcluster", "engineroom"):
        assert shell.here(tool).stdout == shell.here(tool, "--help").stdout


def reports(path: str) -> None:
    print("begun", flush=True)
    while not os.path.exists(path):
        time.sleep(0.01)
    print("ended")


def test_a_task_that_runs_is_shown_and_followed(shell: Shell, tmp_path: Path) -> None:
    shell("ipcluster", "start", "-n", "2", "--daemonize")
    end = tmp_path / "end"
    with shell.client() as rc:
        view = rc.load_balanced_view(label="report")
        view.map_sync(abs, range(3), chunksize=1)
        result = view.apply_async(reports, str(end))
        [id] = result.msg_ids
        wait_until(lambda: result.stdout == "begun\n" and rc.db_count({"state": "running"}))

        row = next(line for line in shell.here("engineroom", "tasks").stdout.splitlines() if "running" in line)
        assert "report: test_cli.reports" in row
        assert row.rstrip().endswith("…"), "how long it has been running"
        assert len(shell.json("engineroom", "tasks", "--state=running", "--json")) == 1
        shown = shell.here("engineroom", "show", id).stdout
        assert "running" in shown.splitlines()[0]
        assert "begun" in shown
        top = shell.json("engineroom", "top", "--once", "--json")
        [engine] = [engine for engine in top["engines"] if engine["running"]]
        assert (engine["running"]["msg_id"], engine["running"]["label"]) == (id, "report")
        assert engine["memory"] > 1 << 20
        [progress] = top["progress"]
        assert (progress["label"], progress["ended"], progress["total"]) == ("report", 3, 4)
        assert progress["seconds_left"] > 0
        lines = shell.here("engineroom", "top", "--once").stdout
        assert f"report: test_cli.reports ({id})" in lines
        assert "3 of 4" in lines

        following = subprocess.Popen(
            [BIN / "engineroom", "show", id, "--follow"], env=shell.env, stdout=subprocess.PIPE, text=True
        )
        assert following.stdout is not None
        for line in following.stdout:
            if line == "begun\n":
                break
        end.touch()
        rest = following.stdout.read()
        assert rest.startswith("ended\n")
        assert "completed" in rest
        assert following.wait(SECONDS) == 0
        following.stdout.close()
    shell.here("ipcluster", "stop")


def test_top_in_a_terminal_redraws_and_ends_with_q(shell: Shell) -> None:
    shell("ipcluster", "start", "-n", "1", "--daemonize")
    ours, theirs = pty.openpty()
    top = subprocess.Popen(
        [BIN / "engineroom", "top", "--interval=0.05"],
        env={**shell.env, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen = b""

    def frames() -> int:
        nonlocal seen
        with contextlib.suppress(OSError):  # the other end is closed
            while select.select([ours], [], [], 0)[0]:
                seen += os.read(ours, 65536)
        return seen.count(b"\x1b[H")

    wait_until(lambda: frames() >= 3)
    assert b"\x1b[2J" not in seen, "clearing the screen flickers"
    os.write(ours, b"?")
    wait_until(lambda: frames() and b"sort the engines by" in seen)
    os.write(ours, b"\x1b[A")  # an arrow key closes the list of keys, and does not end the command
    os.write(ours, b"s")
    wait_until(lambda: frames() and b"engines by rate" in seen)
    os.write(ours, b"p")
    wait_until(lambda: frames() and b"paused" in seen)
    assert top.poll() is None
    os.write(ours, b"q")
    assert top.wait(SECONDS) == 0
    wait_until(lambda: frames() and b"\x1b[?1049l" in seen)
    os.close(ours)
    shell.here("ipcluster", "stop")


def test_the_reference_is_what_the_commands_say(shell: Shell) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "engineroom.cli.reference"], capture_output=True, text=True, env=shell.env, check=True
    ).stdout
    page = Path(__file__).parents[2] / "docs" / "cli.md"
    assert page.read_text() == made, "run `python -m engineroom.cli.reference > docs/cli.md`"
