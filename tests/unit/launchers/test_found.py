"""A process that another one started."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engineroom.launchers.found import FoundProcess


def test_a_process_that_its_parent_does_not_ask_for_has_ended():
    command = [sys.executable, "-c", "print(flush=True); input()", "marked"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # before, it may still be a copy of ours
        found = FoundProcess(process.pid, "marked")
        assert found.running
        assert not found.join(0)
        found.stop()
        assert not found.running
        assert found.join()
        assert process.wait() < 0


def test_a_process_that_has_just_been_started_is_found():
    """The kernel shows no command line while it puts the new program in the place of the copy of its parent."""
    for _ in range(100):
        with subprocess.Popen(["sleep", "61.5"]) as process:
            found = FoundProcess(process.pid, "61.5").running
            process.kill()
        assert found


def test_threads_of_the_kernel_are_nobodys(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("their command line is waited for"))
    assert not FoundProcess(2, "no program of ours").running  # 2: the parent of them all
