"""What the kernel says of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import wait_until

from engineroom.system import processes
from engineroom.system.processes import ProcessState, age_of, birth_of, boot_id, state_of


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        try:
            yield process
        finally:
            process.kill()


def becomes(pid: int, is_so: Callable[[ProcessState], bool]) -> None:
    wait_until(lambda: (state := state_of(pid)) is not None and is_so(state))


def test_a_process_runs_is_stopped_goes_on_and_ends(sleeper: subprocess.Popen[bytes]) -> None:
    state = state_of(sleeper.pid)
    assert state is not None
    assert state.parent == os.getpid()
    assert not state.has_ended
    for number, stopped in ((signal.SIGSTOP, True), (signal.SIGCONT, False)):
        sleeper.send_signal(number)
        becomes(sleeper.pid, lambda state, stopped=stopped: state.is_stopped == stopped)  # type: ignore[misc]
    sleeper.kill()
    becomes(sleeper.pid, lambda state: state.has_ended)
    sleeper.wait()
    left = state_of(sleeper.pid)
    assert left is None or left.born != state.born, "only another process may have its number now"


def test_who_was_born_later_has_a_later_time_of_birth(sleeper: subprocess.Popen[bytes]) -> None:
    ours, its = state_of(os.getpid()), state_of(sleeper.pid)
    assert ours is not None
    assert its is not None
    assert 0 < ours.born <= its.born


def test_all_processes_see_the_same_birth_until_the_end(sleeper: subprocess.Popen[bytes]) -> None:
    birth = birth_of(sleeper.pid)
    code = "import sys; from engineroom.system.processes import birth_of; print(birth_of(int(sys.argv[1])))"
    asked = subprocess.run([sys.executable, "-c", code, str(sleeper.pid)], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == birth != birth_of(os.getpid())
    assert birth_of(os.getpid()).startswith(boot_id())
    sleeper.kill()
    becomes(sleeper.pid, lambda state: state.has_ended)
    assert birth_of(sleeper.pid) == "", "it is not reaped yet"
    sleeper.wait()
    assert birth_of(sleeper.pid) != birth


def test_a_name_may_hold_anything(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "600"]) as process:
        try:
            becomes(process.pid, lambda state: not state.has_ended and state.parent == os.getpid())
        finally:
            process.kill()


def test_there_is_no_such_process() -> None:
    assert state_of(2**22 + 1) is None, "beyond the most that Linux allows"


def test_the_name_of_the_time_since_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert boot_id() == boot_id()
    monkeypatch.setattr(processes, "_BOOT_ID", tmp_path / "there is none")
    assert boot_id() == ""


def test_the_age_of_a_process_grows(sleeper: subprocess.Popen[bytes]):
    young, old = age_of(sleeper.pid), age_of(1)
    assert old > young
    wait_until(lambda: age_of(sleeper.pid) > young)
    sleeper.kill()
    sleeper.wait()
    assert age_of(sleeper.pid) == 0.0
