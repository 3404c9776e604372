"""Replaying what a real cluster has recorded, by function and from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engineroom as er
from engineroom.testing import replay


def engineroom(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engineroom.cli.engineroom", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_a_recorded_history_is_replayed(fresh_cluster: Callable[..., Any], tmp_path: Path):
    database = tmp_path / "run.db"
    rc = fresh_cluster(n=2, database=f"sqlite://{database}")
    view = rc.load_balanced_view(label="naps")
    naps = [view.apply_async(time.sleep, 0.05) for _ in range(20)]
    failing = view.apply_async(int, "no number")
    with view.temp_flags(after=naps[:3]):
        last = view.apply_async(time.sleep, 0.05)
    rc[0].apply_async(time.sleep, 0.01).get(timeout=60)
    last.get(timeout=60)
    with pytest.raises(er.RemoteError):
        failing.get(timeout=60)
    rc.wait(naps, timeout=30)
    rc.cluster.stop_cluster_sync()

    course = replay(database, engines=8)
    assert (course.tasks, course.not_run) == (23, 0)
    assert course.recorded.engines == 2
    assert course.baseline.makespan < 1.1 * course.recorded.makespan, "who replays loses no time"
    assert course.replayed.makespan < 0.5 * course.baseline.makespan
    assert replay(f"sqlite://{database}", engines=8) == course

    done = engineroom("replay", str(database), "--engines=8", "--scheme=lru", "--since=-1h")
    assert done.returncode == 0, done.stderr
    assert "recorded" in done.stdout
    assert "8 engines, lru" in done.stdout
    assert "difference in makespan: -" in done.stdout
    assert "23 tasks" in done.stderr

    done = engineroom("replay", str(database), "--label=na*", "--json")
    shown = json.loads(done.stdout)
    assert shown["tasks"] == 22
    assert shown["difference"] == 0

    profile = f"--profile-dir={rc.cluster.profile_dir}"
    for arguments in (["--engines=-1"], ["nowhere.db"], ["--scheme=fastest", str(database)], [profile]):
        refused = engineroom("replay", *arguments)
        assert refused.returncode != 0
        assert "Traceback" not in refused.stderr, arguments
