"""`engineroom watch`, on a terminal and in a pipe, on a running cluster and on a file that a cluster writes."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from conftest import wait_until

import engineroom as er

COMMAND = [sys.executable, "-m", "engineroom.cli.engineroom", "watch"]
SECONDS = 60


def fail(x: int) -> int:
    raise ValueError(f"no good: {x}")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[er.Client]:
    """A client of a cluster that is named by --profile-dir."""
    folder = tmp_path_factory.mktemp("watched")
    with er.Cluster(n=2, profile_dir=folder / "profile_default") as rc:
        yield rc


class Watching:
    """The command, in a pipe."""

    def __init__(self, *options: str) -> None:
        self._read = b""
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        self.process = subprocess.Popen(
            [*COMMAND, *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    @property
    def out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def line(self) -> str:
        while b"\n" not in self._read:  # read here, as a file object would keep lines that `select` does not see
            assert select.select([self.out], [], [], SECONDS)[0], "nothing was printed"
            part = os.read(self.out.fileno(), 65536)
            assert part, "it has ended"
            self._read += part
        line, _, self._read = self._read.partition(b"\n")
        return line.decode() + "\n"

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """The exit code, and what it said to stderr."""
        self.process.send_signal(number)
        _, told = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, told

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def watch() -> Iterator[Any]:
    """Starts the command; afterwards it is killed if it still runs."""
    made: list[Watching] = []

    def start(*options: str) -> Watching:
        made.append(Watching(*options))
        return made[-1]

    yield start
    for one in made:
        one.kill()


def profile(rc: er.Client) -> str:
    return f"--profile-dir={rc.connection.profile_dir}"


def file(rc: er.Client) -> str:
    return f"--db-url={rc.connection.database.removeprefix('sqlite://')}"


@pytest.mark.parametrize("where", [profile, file])
def test_tasks_are_lines_of_json_as_they_change(watched: er.Client, watch: Any, tmp_path: Path, where: Any):
    gate, label = tmp_path / "gate", f"json-{where.__name__}"

    def wait_for(path):
        import os
        import time

        while not os.path.exists(path):
            time.sleep(0.01)

    query = json.dumps({"label": label})
    begun = watch(query, "--json", "--since=-1m", "--interval=0.1", where(watched))
    with (view := watched.load_balanced_view()).temp_flags(label=label):
        ar = view.apply_async(wait_for, str(gate))
        watched.load_balanced_view().apply_async(abs, -1)
        states = []
        while "running" not in states:
            record = json.loads(begun.line())
            assert record["msg_id"] == ar.msg_ids[0]
            states.append(record["state"])
        gate.touch()
        record = json.loads(begun.line())
        assert (record["state"], record["label"]) == ("completed", label)
        assert record["started"] < record["completed"]
        failed = view.apply_async(fail, 3)
        while (record := json.loads(begun.line()))["state"] != "failed":
            assert record["state"] in ("pending", "running")
    assert record["msg_id"] == failed.msg_ids[0]
    assert record["result_content"]["ename"] == "ValueError"
    assert begun.end() == (130, "")


def test_keys_and_a_limit(watched: er.Client, watch: Any):
    with (view := watched.load_balanced_view()).temp_flags(label="keys", metadata={"run": 7}):
        view.map(abs, range(3), chunksize=1).wait(SECONDS)
    begun = watch("--label=keys", "--json", "--keys=metadata.run,state", "--since=-1h", "--limit=2", profile(watched))
    out, told = begun.process.communicate(timeout=SECONDS)
    assert (begun.process.returncode, told) == (0, "")
    assert [set(json.loads(line)) for line in out.splitlines()] == [{"msg_id", "metadata.run", "state"}] * 2


def test_rows_in_a_pipe_are_whole_and_without_colours(watched: er.Client, watch: Any):
    with (view := watched.load_balanced_view()).temp_flags(label="row-\x1b[31m" + 100 * "x"):
        view.apply_async(fail, 1).wait(SECONDS)
    begun = watch("{'label': {'$glob': 'row-*'}}", "--since=-1h", "--state=failed", profile(watched))
    assert begun.line().split() == ["TIME", "STATE", "ID", "TASK", "ENGINE", "TOOK", "ERROR"]
    row = begun.line()
    assert 100 * "x" in row
    assert row.endswith("ValueError: no good: 1\n")
    assert "\x1b" not in row
    assert begun.end() == (130, "")


def test_a_reader_that_has_read_enough_ends_it_at_once(watched: er.Client, watch: Any):
    with (view := watched.load_balanced_view()).temp_flags(label="head"):
        view.apply_async(abs, 1).wait(SECONDS)
    begun = watch("--label=head", "--since=-1h", "--json", profile(watched))
    begun.line()
    begun.out.close()
    assert begun.process.wait(SECONDS) == 1
    assert begun.process.stderr is not None
    assert begun.process.stderr.read() == ""


def test_a_terminal(watched: er.Client):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    environment.pop("NO_COLOR", None)
    command = [*COMMAND, "--label=tty", "--interval=0.1", profile(watched)]
    process = subprocess.Popen(
        command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    seen = b""

    def shows(text: bytes) -> bool:
        nonlocal seen
        while select.select([ours], [], [], 0)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
        return text in seen

    try:
        wait_until(lambda: shows(b"Ctrl-C ends it"))
        with (view := watched.load_balanced_view()).temp_flags(label="tty"):
            view.apply_async(fail, 7).wait(SECONDS)
        wait_until(lambda: shows(b"ValueError: "))
        assert b"\x1b[31mfailed" in seen
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode(errors="replace"))
        rows = [line for line in shown.splitlines() if not line.startswith("Watching")]  # that names a path
        assert [line for line in rows if len(line) >= 120] == []
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
        assert not shows(b"Traceback")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_cluster_that_ends_is_told(watch: Any, tmp_path: Path):
    with er.Cluster(n=1, profile_dir=tmp_path / "profile_default") as rc:
        rc[0].apply_sync(abs, 1)
        begun = watch("--since=-1h", "--interval=0.1", profile(rc))
        begun.line()
    _, told = begun.process.communicate(timeout=SECONDS)
    assert begun.process.returncode == 1
    assert len(told.splitlines()) == 1
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["{'stat': 1}"], 2, "state"),
        (["{state"], 2, "a query is JSON or a Python dict"),
        (["--since=yesterday"], 2, "'yesterday' is not a time"),
        (["--interval=0"], 2, "more than 0"),
        (["--limit=-1"], 2, "--limit"),
        (["--keys=state"], 2, "--json"),
        (["--sate=failed"], 2, "--state"),
        (["--state=fialed"], 2, "--state expects"),
        (["--json", "--keys=nosuch"], 2, "nosuch"),
    ],
)
def test_mistakes_are_told_in_one_line(watched: er.Client, options: list[str], code: int, words: str):
    done = subprocess.run([*COMMAND, *options, profile(watched)], capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (code, "")
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr
