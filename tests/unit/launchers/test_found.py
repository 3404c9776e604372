"""A process that another one started."""

from __future__ import annotations

import subprocess
import sys

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
