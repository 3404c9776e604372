"""A host that is cut off from the network, and comes back: what it sends is lost, and nobody is told."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import processes_of, wait_until
from support.hosts import Namespaces

import engineroom as er

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def far_cluster(hosts: Namespaces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[er.Cluster]:
    """Two engines on host1, one on host2; a host is given up after two seconds."""
    tmp_path = tmp_path_factory.mktemp("far")
    cluster = er.Cluster(
        engines="ssh",
        hosts={"host1": 2, "host2": 1},
        profile_dir=tmp_path,
        controller_ip=hosts.here,
        controller_args=["--IPController.allowed_silence=2", "--IPController.ping_interval=0.5"],
        ssh_args=["-F", str(hosts.config)],
    )
    with cluster:
        yield cluster
    wait_until(lambda: not processes_of(tmp_path))


@pytest.fixture
def rc(far_cluster: er.Cluster, hosts: Namespaces) -> Iterator[er.Client]:
    """A client, with all engines there; afterwards they are there again."""
    with far_cluster.connect_client_sync() as client:
        client.wait_for_engines(3, timeout=60)
        try:
            yield client
        finally:
            hosts.mend("host1")
            client.wait_for_engines(3, timeout=60)


def work(item: int) -> tuple[int, str]:
    time.sleep(0.01)
    return item, socket.gethostname()


def note(folder: str, item: int) -> int:
    """Runs for a while, and leaves a mark."""
    time.sleep(0.5)
    with open(f"{folder}/{item}", "a") as file:
        file.write(f"{os.getpid()}\n")
    return item


def test_its_tasks_go_elsewhere_and_its_engines_come_back(rc: er.Client, hosts: Namespaces):
    view = rc.load_balanced_view()
    view.retries = 3
    results = view.map_async(work, range(900), chunksize=1)
    wait_until(lambda: results.progress > 30)
    hosts.cut("host1")
    wait_until(lambda: len(rc) == 1)
    hosts.mend("host1")
    wait_until(lambda: len(rc) == 3)
    values = results.get(timeout=60)
    assert [item for item, _ in values] == list(range(900))  # each once, in order
    assert set(Counter(host for _, host in values)) == {"host1", "host2"}
    assert sorted(rc[:].apply_sync(socket.gethostname)) == ["host1", "host1", "host2"]
    log = rc.cluster.profile_dir / "log"
    controllers = next(log.glob("ipcontroller*.log")).read_text()
    assert "on host1 has been silent" in controllers
    assert "the nanny on host1 is back" in controllers


def test_work_that_was_given_to_others_meanwhile_is_dropped(rc: er.Client, hosts: Namespaces, tmp_path: Path):
    view = rc.load_balanced_view()
    view.retries = 1
    folder = tmp_path / "marks"
    folder.mkdir()
    running = [view.apply_async(note, str(folder), item) for item in range(3)]
    wait_until(lambda: all(result.started for result in running))
    hosts.cut("host1")
    wait_until(lambda: len(list(folder.iterdir())) == 3)  # two ended there, and cannot say so
    assert [result.get(timeout=60) for result in running] == [0, 1, 2]
    hosts.mend("host1")
    wait_until(lambda: len(rc) == 3)
    assert sorted(len((folder / str(item)).read_text().splitlines()) for item in range(3)) == [1, 2, 2]
    assert [result.metadata["status"] for result in running] == ["ok", "ok", "ok"]
    assert rc[:].apply_sync(abs, -1) == [1, 1, 1]


def test_a_cut_that_nobody_notices_loses_nothing(rc: er.Client, hosts: Namespaces):
    results = rc.load_balanced_view().map_async(work, range(100), chunksize=1)
    wait_until(lambda: results.progress > 5)
    hosts.cut("host1")
    wait_until(lambda: results.progress > 15)
    hosts.mend("host1")
    assert [item for item, _ in results.get(timeout=60)] == list(range(100))
    assert len(rc) == 3


def test_a_host_that_is_cut_off_again_when_its_engines_are_back(rc: er.Client, hosts: Namespaces):
    for _ in range(2):
        hosts.cut("host1")
        wait_until(lambda: len(rc) == 1)
        hosts.mend("host1")
        wait_until(lambda: len(rc) >= 2)  # one of its engines is back; the nanny may not be
    hosts.cut("host1")
    wait_until(lambda: len(rc) == 1)


def test_a_nanny_that_is_killed_on_another_host_is_missed_before_it_is_silent(hosts: Namespaces, tmp_path: Path):
    cluster = er.Cluster(
        engines="ssh",
        hosts={"host1": 1, "host2": 1},
        profile_dir=tmp_path,
        controller_ip=hosts.here,
        controller_args=["--IPController.allowed_silence=900"],
        ssh_args=["-F", str(hosts.config)],
    )
    with cluster as rc:
        view = rc.load_balanced_view(retries=1)
        running = [view.apply_async(note, str(tmp_path), item) for item in range(2)]
        [nanny] = rc[0].apply_sync(lambda: [__import__("psutil").Process().parent().parent().pid])
        more = [view.apply_async(note, str(tmp_path), item) for item in range(2, 8)]
        os.kill(nanny, signal.SIGKILL)  # its engine ends with it
        wait_until(lambda: len(rc) == 1)
        assert [result.get(timeout=60) for result in running + more] == list(range(8))
    wait_until(lambda: not processes_of(tmp_path))


def test_an_engine_that_reaches_no_controller_says_what_it_tried_and_why(hosts: Namespaces, tmp_path: Path):
    cluster = er.Cluster(
        engines="ssh",
        hosts={"host2": 1},
        profile_dir=tmp_path,
        controller_ip="127.0.0.1",  # other hosts find another listener there, or none
        engine_args=["--timeout=1"],
        ssh_args=["-F", str(hosts.config)],
    )
    with pytest.raises(er.LaunchError) as raised:
        cluster.start_and_connect_sync()
    assert "the controller at tcp://127.0.0.1:" in str(raised.value)
    assert "did not answer for" in str(raised.value)
    assert "(connection refused); its engines on host2 stop" in str(raised.value)
