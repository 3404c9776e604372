"""Engines in the actors of a real Ray: one head in processes of its own.

Ray is large (70 MB): `make test` does not install it. `make ray` does, and runs these tests.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import engine_of_a_killed_process, processes_of, wait_until

import engineroom as er

ray = pytest.importorskip("ray", reason="NOT TESTED: Ray is not installed; `make ray` installs it, and tests with it")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray with four CPUs, and two of the resource ROOM."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # paths of its sockets are long
    where = f"127.0.0.1:{free_port()}"
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=4"]
    command += ['--resources={"ROOM": 2}', "--include-dashboard=false", "--disable-usage-stats"]
    command += ["--node-ip-address=127.0.0.1", f"--port={where.rpartition(':')[2]}", f"--temp-dir={folder}"]
    command += ["--object-store-memory=80000000"]
    with (folder / "log").open("wb") as log:
        head = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    wait_until(lambda: "Ray runtime started" in (folder / "log").read_text(), timeout=90)
    yield where
    parts = psutil.Process(head.pid).children(recursive=True)
    head.terminate()
    head.wait(60)
    for part in parts:
        if part.is_running():
            part.kill()
    psutil.wait_procs(parts, 30)
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def not_connected() -> Iterator[None]:
    """Each test leaves this process without a Ray, and with the handlers of signals that it had."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is before


def make(address: str, folder: Path, n: int, **options: Any) -> er.Cluster:
    return er.Cluster(
        engines="ray", n=n, profile_dir=folder, controller_ip="127.0.0.1", address=address, **options
    )


def parents() -> str:
    """The command line of the worker that started this engine: engine, zygote, nanny, worker."""
    return " ".join(psutil.Process().parent().parent().parent().cmdline())


def test_engines_run_in_actors_scale_and_leave_nothing(address: str, tmp_path: Path):
    with make(address, tmp_path, 2, ray_resources={"ROOM": 0.5}, num_cpus=0.5) as rc:
        assert all("Room" in line for line in rc[:].apply_sync(parents))
        assert rc.load_balanced_view().map_sync(abs, range(-20, 0)) == list(range(20, 0, -1))
        key = rc.connection.key
        for process in psutil.process_iter(["cmdline"]):
            assert not any(key in word for word in process.info["cmdline"] or [])
        rc.cluster.scale_sync(3)
        rc.wait_for_engines(3, timeout=60)
        rc.cluster.scale_sync(1)
        wait_until(lambda: len(rc.ids) == 1)
        assert rc[:].apply_sync(abs, -1) == [1]
    wait_until(lambda: not processes_of(tmp_path))
    wait_until(lambda: free_of(address) == {"CPU": 4.0, "ROOM": 2.0}, timeout=60)


def free_of(address: str) -> dict[str, float]:
    """What this Ray has free, as another process sees it."""
    code = (
        f"import ray; ray.init({address!r}, log_to_driver=False, logging_level='ERROR')\n"
        "print({name: amount for name, amount in ray.available_resources().items() if name in ('CPU', 'ROOM')})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return dict(eval(done.stdout.splitlines()[-1]))


def test_actors_without_room_are_pending_and_say_so(address: str, tmp_path: Path):
    cluster = make(address, tmp_path, 6, engines_per_job=3, ray_resources={"ROOM": 2}, num_cpus=1, engine_timeout=15)
    with cluster.start_cluster_sync().connect_client_sync() as rc:
        try:
            rc.wait_for_engines(3, timeout=60)
            wait_until(lambda: cluster.engine_set.waiting == 3)
            assert cluster.engine_set.explain().startswith(
                "Ray: 1 of 2 actors are pending: each asks for CPU=1, ROOM=2; free: CPU=3"
            )
            cluster.scale_sync(9)
            assert sum(cluster.waiting_engines().values()) == 6
            cluster.scale_sync(6)  # what waits goes first
            wait_until(lambda: sum(cluster.waiting_engines().values()) == 3)
            assert len(rc.ids) == 3
            with pytest.raises(er.TimeoutError, match=r"actors are pending: each asks for CPU=1, ROOM=2"):
                cluster.wait_for_engines_sync(rc, 6)
        finally:
            cluster.stop_cluster_sync()
    wait_until(lambda: not processes_of(tmp_path))


def test_a_worker_of_ray_that_is_killed_takes_its_engines_along(address: str, tmp_path: Path):
    with make(address, tmp_path, 2, num_cpus=0.5) as rc:
        worker = rc[0].apply_sync(lambda: __import__("psutil").Process().parent().parent().parent().pid)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: len(rc.ids) == 1)
        wait_until(lambda: "Ray has lost the actor" in rc.cluster.engine_set.get_output())
        assert rc.cluster.engine_set.expected == 1
        assert rc[:].apply_sync(abs, -1) == [1]
    wait_until(lambda: not processes_of(tmp_path))


def test_engines_end_with_the_process_that_started_them(address: str, tmp_path: Path):
    engine = engine_of_a_killed_process(
        f"engines='ray', n=1, profile_dir={str(tmp_path)!r}, controller_ip='127.0.0.1', address={address!r}"
    )
    wait_until(lambda: not psutil.pid_exists(engine))
    wait_until(lambda: not processes_of(tmp_path))


def test_a_connection_of_the_users_own_stays(address: str, tmp_path: Path):
    ray.init(address, log_to_driver=False, logging_level="ERROR")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with make(address, tmp_path, 1) as rc:
            assert rc[0].apply_sync(abs, -1) == 1
        assert ray.is_initialized()
        assert ray.get(ray.remote(lambda: 1).remote()) == 1
    finally:
        ray.shutdown()


def test_engines_that_cannot_start_say_why(address: str, tmp_path: Path):
    with pytest.raises(er.LaunchError, match=r"Ray: exit code 1: .*there is no.*nonsense|Ray: exit code .*nonsense"):
        make(address, tmp_path, 1, engine_args=["--nonsense"]).start_and_connect_sync()
    wait_until(lambda: not processes_of(tmp_path))
