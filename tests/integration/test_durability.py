"""The option `durability`: what an acknowledged task survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from conftest import wait_until

import engineroom as er


def test_full_is_passed_on_to_the_database_also_after_a_restart(fresh_cluster, monkeypatch):
    rc = fresh_cluster(n=1, durability="full")
    assert "--durability=full" in rc.cluster._controller_command(reuse=True).args
    result = rc.load_balanced_view().apply_async(abs, -1)
    assert result.get(60) == 1
    pid = rc.cluster.controller.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: rc.cluster.controller.pid != pid)
    assert rc.get_result(result.msg_ids).get(60) == [1]


def test_it_is_normal_or_full(tmp_path):
    with pytest.raises(er.ConfigError, match="'normal' or 'full'; got 'most'"):
        er.Cluster(n=1, profile_dir=tmp_path, durability="most")


@pytest.mark.parametrize("database", ["--dictdb", "--nodb", "--db-url=mongodb://nowhere/engineroom"])
def test_other_databases_cannot_promise_it(tmp_path, database):
    command = [sys.executable, "-m", "engineroom.controller", "--durability=full", database]
    done = subprocess.run([*command, f"--profile-dir={tmp_path}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "durability=full is for SQLite" in done.stderr
    assert "Traceback" not in done.stderr
