"""A controller on another host, started through a real sshd in a network namespace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import processes_of, wait_until
from support.hosts import Namespaces, have_ssh_use

import engineroom as er

pytestmark = pytest.mark.slow


@pytest.fixture
def others(hosts: Namespaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Namespaces:
    """`ssh` finds the configuration of the tests, as it finds that of a user."""
    have_ssh_use(hosts.config, tmp_path / "bin", monkeypatch)
    return hosts


def make(folder: Path, **options: Any) -> er.Cluster:
    return er.Cluster(profile_dir=folder, **{"n": 1, "controller": "ssh", "controller_host": "host1", **options})


def test_the_controller_is_there_and_ends_with_the_cluster(others: Namespaces, tmp_path: Path):
    with make(tmp_path / "p") as rc:
        assert rc.connection.location == "host1"
        assert f"tcp://{others.addresses['host1']}:" in rc.connection.url
        assert rc.load_balanced_view().map_sync(abs, range(-20, 0)) == list(range(20, 0, -1))
        assert er.Cluster.from_file(rc.cluster.cluster_file).controller.running
    wait_until(lambda: not processes_of(tmp_path / "p"))
    assert not list((tmp_path / "p" / "security").glob("ipcontroller*"))


def test_it_ends_when_its_ssh_is_killed(others: Namespaces, tmp_path: Path):
    cluster = make(tmp_path / "p").start_cluster_sync()
    try:
        os.kill(cluster.controller.pid, signal.SIGKILL)
        wait_until(lambda: not [each for each in processes_of(tmp_path / "p") if "controller" in str(each)])
    finally:
        cluster.stop_cluster_sync()
    wait_until(lambda: not processes_of(tmp_path / "p"))


def test_the_value_of_a_variable_is_on_no_command_line(others: Namespaces, tmp_path: Path):
    url = "mongodb://me:s3cret@127.0.0.1:9/lab"
    cluster = make(tmp_path / "p", database=url)
    assert "s3cret" not in cluster.dry_run()
    with pytest.raises(er.EngineroomError, match="the controller did not start"):
        cluster.start_cluster_sync()
    wait_until(lambda: not processes_of(tmp_path / "p"))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"controller": "mpi"}, er.ConfigError, "controller='mpi': the launchers there are: local, ssh"),
        ({"controller_host": ""}, er.ConfigError, "needs both"),
        ({"controller": "local"}, er.ConfigError, "needs both"),
        ({"controller_host": "-oProxyCommand=touch"}, er.ConfigError, "is no name of a host"),
        ({"keep": True}, er.ConfigError, "keep=True is for a controller on this host"),
        ({"controller_host": "nowhere.invalid"}, er.EngineroomError, "did not start. Its log ends: .*not resolve"),
    ],
)
def test_what_makes_no_sense_is_refused(
    others: Namespaces, tmp_path: Path, options: dict[str, Any], error: type[Exception], said: str
):
    with pytest.raises(error, match=said):
        make(tmp_path / "p", **options).start_cluster_sync()


def test_the_command_line_shows_and_starts_it(others: Namespaces, tmp_path: Path):
    words = [sys.executable, "-m", "engineroom.cluster"]
    which = [f"--profile-dir={tmp_path / 'p'}"]
    start = [*words, "start", "-n", "1", "--controller=ssh", "--controller-host=host2", *which]
    shown = subprocess.run([*start, "--dry-run"], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("ssh -T -o BatchMode=yes host2 ")
    subprocess.run([*start, "--daemonize"], check=True, capture_output=True, timeout=100)
    with er.Client(profile_dir=tmp_path / "p") as rc:
        assert rc.connection.location == "host2"
        assert rc[:].apply_sync(abs, -1) == [1]
    stopped = subprocess.run([*words, "stop", *which], capture_output=True, text=True, timeout=100)
    assert (stopped.returncode, stopped.stderr) == (0, "")
    wait_until(lambda: not processes_of(tmp_path / "p"))
