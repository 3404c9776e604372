"""A controller on a host with several addresses, of which other hosts reach some."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from conftest import processes_of, wait_until
from support.hosts import Namespaces

import engineroom as er

pytestmark = pytest.mark.slow

#: An address of this host, told to others, that host1 and host2 have no route to; and one where nobody listens.
NO_ROUTE, NOBODY = "203.0.113.7", "127.0.0.9"


def make(others: Namespaces, folder: Path, **options: object) -> er.Cluster:
    given = {"controller_ip": "*", "controller_location": NO_ROUTE, **options}
    return er.Cluster(engines="ssh", profile_dir=folder, ssh_args=["-F", str(others.config)], **given)


def test_engines_and_clients_find_the_address_that_they_reach(hosts: Namespaces, tmp_path: Path):
    args = ["--IPController.allowed_silence=2", "--IPController.ping_interval=0.5"]
    engine_args = ["--log-level=INFO"]
    with make(
        hosts, tmp_path, hosts={"host1": 1, "host2": 1}, controller_args=args, engine_args=engine_args
    ) as rc:
        info = rc.connection
        port = info.url.rpartition(":")[2]
        assert info.url == f"tcp://{NO_ROUTE}:{port}"
        assert f"tcp://{hosts.here}:{port}" in info.other_urls
        assert not any("127.0.0" in url for url in info.urls)
        assert sorted(rc[:].apply_sync(socket.gethostname)) == ["host1", "host2"]
        file = tmp_path / "security" / f"ipcontroller-{rc.cluster.cluster_id}-client.json"
        code = f"import engineroom as er; print(er.Client({str(file)!r}).ids)"  # a client on another host
        there = subprocess.run(
            [*hosts.command("host2"), sys.executable, "-c", code], capture_output=True, text=True, timeout=60
        )
        assert there.stdout.strip() == "[0, 1]", there.stderr
        hosts.cut("host1")
        wait_until(lambda: len(rc.ids) < 2, timeout=60)
        hosts.mend("host1")
        rc.wait_for_engines(2, timeout=60)
        log = next((tmp_path / "log").glob("ipengine*host1.log")).read_text()
        assert f"the controller is reached at {hosts.here}:{port}" in log
    wait_until(lambda: not processes_of(tmp_path))


def test_who_reaches_none_says_what_came_of_each(hosts: Namespaces, tmp_path: Path):
    cluster = make(hosts, tmp_path, hosts={"host1": 1}, engine_args=["--timeout=2"], controller_ip="127.0.0.1")
    cluster.start_controller_sync()
    try:
        file = tmp_path / "security" / f"ipcontroller-{cluster.cluster_id}-engine.json"
        info = msgspec.json.decode(file.read_bytes(), type=er.config.ConnectionInfo)
        port = info.url.rpartition(":")[2]
        others = (f"tcp://{NOBODY}:{port}", f"tcp://{hosts.here}:{port}")
        info = msgspec.structs.replace(info, url=f"tcp://{NO_ROUTE}:{port}", other_urls=others)
        file.write_bytes(msgspec.json.encode(info))
        said = (
            rf"the controller at tcp://{NO_ROUTE}:{port} did not answer for \d+ s \("
            rf"tcp://{NO_ROUTE}:{port}: network is unreachable; "
            rf"tcp://{NOBODY}:{port}: connection refused; tcp://{hosts.here}:{port}: connection refused\); "
            r"its engines on host1 stop"
        )
        cluster.start_engines_sync()
        with cluster.connect_client_sync() as rc, pytest.raises(er.LaunchError, match=said):
            cluster.wait_for_engines_sync(rc, 1)
        log = next((tmp_path / "log").glob("ipengine*host1.log")).read_text()
        assert re.search(said, log)
        with pytest.raises(er.TimeoutError, match=rf"tcp://{NOBODY}:{port}: connection refused"):
            er.Client(msgspec.structs.replace(info, pid=0), timeout=1)
    finally:
        cluster.stop_cluster_sync()
    wait_until(lambda: not processes_of(tmp_path))


def test_an_interface_is_listened_on_alone(hosts: Namespaces, tmp_path: Path):
    with make(hosts, tmp_path, hosts={"host1": 1}, controller_ip=hosts.interface, controller_location="") as rc:
        assert rc.connection.urls == (f"tcp://{hosts.here}:{rc.connection.url.rpartition(':')[2]}",)
        assert rc[:].apply_sync(socket.gethostname) == ["host1"]
    with pytest.raises(er.EngineroomError, match=r"cannot listen on tcp://eth99:\*.* Choose another with --ip="):
        make(hosts, tmp_path, hosts={"host1": 1}, controller_ip="eth99").start_cluster_sync()
    wait_until(lambda: not processes_of(tmp_path))
