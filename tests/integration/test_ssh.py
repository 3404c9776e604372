"""Engines on hosts that ssh reaches: through a real sshd, on this host and in two network namespaces."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import engine_of_a_killed_process, processes_of, wait_until
from support.hosts import Hosts, Namespaces, have_ssh_use

import engineroom as er

pytestmark = pytest.mark.slow


def make(parts: Hosts, folder: Path, ip: str = "127.0.0.1", **options: Any) -> er.Cluster:
    ssh_args = ["-F", str(parts.config), *options.pop("ssh_args", [])]
    return er.Cluster(engines="ssh", profile_dir=folder, controller_ip=ip, ssh_args=ssh_args, **options)


def test_engines_run_on_two_hosts_and_end_with_the_cluster(hosts: Namespaces, tmp_path: Path):
    with make(hosts, tmp_path, hosts.here, hosts={"host1": 2, "host2": 1}) as rc:
        assert sorted(rc[:].apply_sync(socket.gethostname)) == ["host1", "host1", "host2"]
        assert rc.load_balanced_view().map_sync(abs, range(-50, 0)) == list(range(50, 0, -1))
        key = rc.connection.key
        for process in psutil.process_iter(["cmdline"]):
            assert not any(key in word for word in process.info["cmdline"] or [])
        rc[:].apply_sync(print, "on the engine's log?")
    assert processes_of(tmp_path) == []


def mapped(array: Any) -> tuple[str, int, str]:
    """The host, the sum, and in which kind of memory the array lies."""
    base = array
    while getattr(base, "base", None) is not None:
        base = base.base
    return socket.gethostname(), int(array.sum()), type(base.obj).__name__


def test_the_engines_of_each_host_share_a_large_argument(hosts: Namespaces, tmp_path: Path):
    array = np.arange(1 << 20)
    with make(hosts, tmp_path, hosts.here, hosts={"host1": 2, "host2": 1}) as rc:
        found = rc[:].apply_sync(mapped, array)
    assert sorted(found) == [(host, int(array.sum()), "_OwnCopy") for host in ("host1", "host1", "host2")]


def test_engines_share_hosts_that_have_no_numbers(hosts: Namespaces, tmp_path: Path):
    with make(hosts, tmp_path, hosts.here, hosts="host1,host2", n=3) as rc:
        assert sorted(rc[:].apply_sync(socket.gethostname)) == ["host1", "host1", "host2"]


def test_a_host_behind_a_proxy_with_files_and_a_tunnel(hosts: Namespaces, tmp_path: Path):
    (tmp_path / "data").write_text("42")
    there = tmp_path / "there"
    there.mkdir()
    cluster = make(
        hosts,
        tmp_path / "profile",
        "127.0.0.1",  # host2 cannot reach that: it needs the tunnel
        hosts={"host2": 1},
        proxy_host="host1",
        tunnel=True,
        remote_dir=str(there),
        to_send=[(str(tmp_path / "data"), f"{there}/input")],
        to_fetch=[(f"{there}/output", str(tmp_path / "fetched"))],
    )
    assert "-J host1" in cluster.dry_run()

    def work() -> str:
        Path("output").write_text(Path("input").read_text() * 2)
        return socket.gethostname()

    with cluster as rc:
        assert rc[0].apply_sync(work) == "host2"
    assert (tmp_path / "fetched").read_text() == "4242"


VALUES = {"TOKEN": "s3cret", "QUOTES": """it's "$HOME" `x` \\n!""", "LINES": "one\ntwo\n"}


def test_values_of_the_environment_are_on_no_command_line(ssh_host: Hosts, tmp_path: Path):
    cluster = make(ssh_host, tmp_path, hosts={"near": 1}, environment=VALUES)
    assert "# through stdin: the key, and values for " in cluster.dry_run()
    with cluster as rc:
        assert rc[0].apply_sync(lambda names: {name: os.environ[name] for name in names}, list(VALUES)) == VALUES
        lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        assert any("--file=-" in line for line in lines)
        assert not any("s3cret" in line for line in lines)


def test_engines_end_when_their_ssh_is_killed(ssh_host: Hosts, tmp_path: Path):
    with make(ssh_host, tmp_path, hosts={"near": 1}) as rc:
        pid = rc[0].apply_sync(os.getpid)
        os.kill(rc.cluster.engine_set.pid, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(pid))
        wait_until(lambda: not rc.ids)
        assert not rc.cluster.engine_set.running
        assert "near: the engines ended with exit code -9" in rc.cluster.engine_set.explain()


def test_engines_end_when_the_process_that_started_them_is_killed(ssh_host: Hosts, tmp_path: Path):
    engine = engine_of_a_killed_process(
        f"engines='ssh', hosts='near', n=1, profile_dir={str(tmp_path)!r}, controller_ip='127.0.0.1',"
        f" ssh_args=['-F', {str(ssh_host.config)!r}]"
    )
    wait_until(lambda: not psutil.pid_exists(engine))
    wait_until(lambda: not processes_of(tmp_path))
    for path in (tmp_path / "security").iterdir():
        path.unlink()


def test_another_process_finds_the_engines_and_stops_them(ssh_host: Hosts, tmp_path: Path):
    cluster = make(ssh_host, tmp_path, hosts="near", n=2)
    cluster.start_cluster_sync()
    try:
        with cluster.connect_client_sync() as rc:
            cluster.wait_for_engines_sync(rc, 2)
            found = er.Cluster.from_file(cluster.cluster_file)
            assert found.engine_set.running
            found.stop_engines_sync()
            wait_until(lambda: not rc.ids)
    finally:
        cluster.stop_cluster_sync()


@pytest.fixture
def own_ssh(ssh_host: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """`ssh` finds the configuration of the tests, as it finds that of a user."""
    have_ssh_use(ssh_host.config, tmp_path / "bin", monkeypatch)
    return ssh_host


def ssh_processes(folder: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])]


def test_a_client_and_an_engine_come_through_tunnels(own_ssh: Hosts, tmp_path: Path):
    profile = tmp_path / "profile"
    cluster = er.Cluster(n=0, profile_dir=profile, controller_ip="127.0.0.1")
    cluster.start_cluster_sync()
    key = own_ssh.folder / "id"
    file = f"{profile}/security/ipcontroller-{cluster.cluster_id}-engine.json"
    command = [sys.executable, "-m", "engineroom.engine", f"--profile-dir={profile}", f"--file={file}"]
    engine = subprocess.Popen([*command, "--ssh=root@near", f"--sshkey={key}"])
    try:
        with er.Client(cluster.connection, sshserver="near", sshkey=str(key)) as rc:
            assert rc.connection.url != cluster.connection.url
            rc.wait_for_engines(1, timeout=60)
            assert rc[0].apply_sync(abs, -1) == 1
        with pytest.raises(er.ConnectionFileError, match=r"ssh made no tunnel through nowhere.invalid: .*not resolve"):
            er.Client(cluster.connection, sshserver="nowhere.invalid")
        with pytest.raises(er.ConfigError, match="sshserver is a host that ssh knows"):
            er.Client(cluster.connection, sshserver="-oProxyCommand=touch")
    finally:
        cluster.stop_cluster_sync()
        assert engine.wait(60) == 0
    wait_until(lambda: not ssh_processes(own_ssh.config))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hosts": {"near": 1}, "ssh_args": ["-i", "none"]}, "near: ssh failed: .*Permission denied"),
        ({"hosts": {"near": 1}, "ssh_args": ["-o", "UserKnownHostsFile=/dev/null"]}, "Host key verification failed"),
        ({"hosts": {"no-such-host.invalid": 1}}, "ssh failed: .*not resolve hostname no-such-host.invalid"),
        ({"hosts": {"near": 1}, "remote_python": "/no/python"}, "exit code 127: .*/no/python"),
        ({"hosts": {"near": 1}, "remote_dir": "/no/such/folder"}, "the engines ended with exit code .*/no/such/folder"),
        ({"hosts": {"near": 1}, "to_send": [("/no/file", "there")]}, "`scp .*` failed: .*No such file"),
    ],
)
def test_what_is_wrong_is_said_at_once(ssh_host: Hosts, tmp_path: Path, options: dict[str, Any], said: str):
    if "-i" in options.get("ssh_args", ()):
        config = tmp_path / "config"
        config.write_text(ssh_host.config.read_text().replace(f"{ssh_host.folder}/id", "/nowhere/id"))
        options = {**options, "ssh_args": ["-F", str(config)]}
    with pytest.raises(er.LaunchError, match=said):
        make(ssh_host, tmp_path / "profile", **options).start_and_connect_sync()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "the launcher ssh needs the option hosts"),
        ({"hosts": {"near": 2}, "n": 3}, "n=3, but hosts has 2 engines in all"),
        ({"hosts": {"near": 0}}, "1 or more"),
        ({"hosts": "near:x"}, "hosts is a list like node1:4,node2:2"),
        ({"hosts": ["-oProxyCommand=touch"]}, "is no name of a host"),
        ({"hosts": ["near far"]}, "'near far' is no name of a host"),
        ({"hosts": ["near"], "user": "-oProxyCommand=touch x"}, "is no name of a user"),
        ({"hosts": ["near"], "proxy_host": "-F/dev/null"}, "is no name of a host: it is the option proxy_host"),
        ({"hosts": ["near"], "environment": {"A;B": "1"}}, "'A;B' is no name of a variable"),
    ],
)
def test_hosts_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any], said: str):
    with pytest.raises(er.ConfigError, match=said):
        er.Cluster(engines="ssh", profile_dir=tmp_path, **options).dry_run()
