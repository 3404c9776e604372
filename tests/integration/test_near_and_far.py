"""A cluster that other hosts reach: on the controller's host all talk to it through its socket, on others by TCP."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import processes_of, wait_until
from support.hosts import Namespaces

import engineroom as er

pytestmark = pytest.mark.slow


def talks_by_tcp() -> bool:
    """Whether this process has a TCP connection that is in use."""
    import psutil

    return any(each.status == psutil.CONN_ESTABLISHED for each in psutil.Process().net_connections("tcp"))


def test_near_and_far_engines_work_together_and_survive_the_controller(hosts: Namespaces, tmp_path: Path):
    data = np.arange(1_000_000.0)
    with er.Cluster(n=1, profile_dir=tmp_path, controller_ip="*") as rc, contextlib.ExitStack() as at_the_end:
        file = tmp_path / "security" / f"ipcontroller-{rc.cluster.cluster_id}-engine.json"
        words = [sys.executable, "-m", "engineroom.engine", f"--profile-dir={tmp_path}", f"--file={file}", "--n=1"]
        far = at_the_end.enter_context(subprocess.Popen([*hosts.command("host1"), *words]))
        at_the_end.callback(far.terminate)
        rc.wait_for_engines(2, timeout=60)
        path = rc.connection.socket
        assert path is not None
        assert path.is_socket()
        assert rc.connection.url.startswith("tcp://")
        assert set(zip(rc[:].apply_sync(socket.gethostname), rc[:].apply_sync(talks_by_tcp), strict=True)) == {
            ("host1", True), (socket.gethostname(), False),
        }  # fmt: skip
        assert rc[:].apply_sync(np.sum, data) == [data.sum()] * 2
        arrays = [data + each for each in range(6)]  # on their way while the controller is killed
        sums = [(array.sum(), rc[id].apply_async(np.sum, array)) for array in arrays for id in rc.ids]
        os.kill(rc.connection.pid, signal.SIGKILL)
        assert [task.get(timeout=60) for _, task in sums] == [value for value, _ in sums]
        assert len(rc.ids) == 2
        assert path.is_socket()
    wait_until(lambda: not processes_of(tmp_path))
    assert not path.exists()


@pytest.mark.parametrize(("ip", "has_socket"), [("127.0.0.1", False), ("*", True)])
def test_who_asks_for_the_loopback_address_gets_tcp(ip: str, has_socket: bool, tmp_path: Path):
    with er.Cluster(n=1, profile_dir=tmp_path, controller_ip=ip) as rc:
        assert rc[0].apply_sync(talks_by_tcp) is not has_socket
        assert (rc.connection.socket is not None) is has_socket
