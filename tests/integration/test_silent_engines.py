"""An engine of which nothing is heard gets no more tasks, and everybody who asks is told so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import wait_until

import engineroom as er

pytestmark = pytest.mark.slow


def top(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "engineroom.cli.engineroom", "top", "--once", f"--profile-dir={folder}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_silent_engine_is_shown_as_silent_and_since_when(tmp_path: Path):
    patient = ["--IPController.allowed_silence=900"]
    with er.Cluster(n=1, profile_dir=tmp_path, cluster_id="", controller_args=patient) as rc:
        engine = psutil.Process(rc.queue_status(0)["pid"])
        stopped = [engine.parent().parent().pid, engine.pid]  # the nanny, too: as if their host were cut off
        try:
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: rc.queue_status(0)["silent"] is not None)
            assert rc.queue_status(0)["silent"] >= 5.0
            waits = rc.load_balanced_view().apply_async(abs, -1)
            assert "1 of these engines are silent: 0" in rc.explain(waits).reason
            text = top(tmp_path)
            assert "1 engine, 0 busy, 1 silent" in text
            assert "silent: gets no more" in text
            assert json.loads(top(tmp_path, "--json"))["engines"][0]["silent"] >= 5.0
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        assert waits.get(timeout=60) == 1
        wait_until(lambda: rc.queue_status(0)["silent"] is None)
