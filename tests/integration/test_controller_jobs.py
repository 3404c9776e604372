"""A controller as a job of a real Slurm with two nodes: it starts, waits, ends; nothing is left in the queue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import processes_of, wait_until
from support.slurm import Slurm, jobs_of_a_killed_process

import engineroom as er

pytestmark = pytest.mark.slow

LATER = ["#SBATCH --begin=now+1hour"]


@pytest.fixture
def make(slurm: Slurm, tmp_path: Path) -> Iterator[Any]:
    """Makes clusters whose controller is a job of Slurm; at the end nothing is left in the queue or running."""
    made: list[er.Cluster] = []

    def one(n: int = 1, **options: Any) -> er.Cluster:
        given = {"engines": "slurm", "poll_seconds": 0.3, **options}
        if given["engines"] != "slurm":
            del given["poll_seconds"]
        cluster = er.Cluster(
            controller="slurm",
            n=n,
            profile_dir=tmp_path / "p",
            controller_ip="127.0.0.1",
            **given,  # type: ignore[arg-type]
        )
        made.append(cluster)
        return cluster

    yield one
    for cluster in made:
        cluster.stop_cluster_sync()
    wait_until(lambda: not slurm.queue)
    wait_until(lambda: not processes_of(tmp_path))


def node_of_job(_: int = 0) -> str:
    return os.environ["SLURMD_NODENAME"]


def test_a_controller_and_engines_as_jobs(make: Any, slurm: Slurm, tmp_path: Path):
    with make(n=2, walltime="10m", controller_options={"walltime": "20m"}) as rc:
        assert rc.load_balanced_view().map_sync(abs, range(-100, 0)) == list(range(100, 0, -1))
        jobs = slurm.ask("squeue", "-h", "--array", "-o", "%j %l").splitlines()
        assert sorted(jobs) == ["engineroom 10:00", "engineroom 10:00", "engineroom-controller 20:00"]
        files = list((tmp_path / "p" / "security").glob("ipcontroller*"))
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        cluster = rc.cluster
        assert cluster.controller.running
        assert cluster.controller.explain() == ""
        found = er.Cluster.from_file(cluster.cluster_file).controller
        assert found.running
        assert found.to_dict()["job_id"] == cluster.controller.job_id
        with pytest.raises(RuntimeError, match=f"its controller is the slurm job {found.job_id}"):
            make(n=0, cluster_id=cluster.cluster_id).start_cluster_sync()
    assert slurm.queue == []
    assert not list((tmp_path / "p" / "security").glob("ipcontroller*"))
    assert not list((tmp_path / "p" / "log").glob("*.env"))


def test_a_job_that_waits_is_explained_and_cancelled(make: Any, slurm: Slurm):
    cluster = make(engine_timeout=4.0, controller_options={"extra_lines": LATER})
    with pytest.raises(
        TimeoutError, match=r"did not run within 4 s. Slurm job \d+: 1 of 1 pending for \d+ s \(BeginTime"
    ):
        cluster.start_and_connect_sync()
    assert slurm.queue == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"queue": "fast"}, "Slurm did not take the job: .*invalid partition specified: fast"),
        ({"setup": ["echo no such module", "exit 7"]}, r"did not start. Slurm job .*FAILED.*ends: no such module"),
    ],
)
def test_a_job_that_fails_is_told(options: dict[str, Any], said: str, make: Any, slurm: Slurm):
    with pytest.raises(er.LaunchError, match=said):
        make(n=0, controller_options=options).start_cluster_sync()
    assert slurm.queue == []


def test_a_controller_that_is_killed_leaves_its_records(make: Any, slurm: Slurm):
    cluster = make(engines="local", database="sqlite", controller_options={"poll_seconds": 0.3})
    rc = cluster.start_and_connect_sync()
    done = rc.load_balanced_view().apply_async(abs, -7)
    assert done.get(timeout=60) == 7
    wait_until(lambda: rc.db_query({"msg_id": done.msg_id, "state": "completed"}, keys=["msg_id"]))  # it is stored
    os.kill(cluster.connection.pid, signal.SIGKILL)
    wait_until(lambda: not cluster.controller.running)
    assert "1 ended (FAILED" in cluster.controller.explain()
    cluster.stop_cluster_sync()
    with make(n=0, engines="local", database="sqlite") as rc:
        assert rc.get_result(done.msg_id).get(timeout=60) == 7


def test_the_jobs_end_with_the_process_that_wanted_them(slurm: Slurm, tmp_path: Path):
    cluster = f"controller='slurm', engines='slurm', n=1, profile_dir={str(tmp_path)!r}"
    assert jobs_of_a_killed_process(slurm, cluster) == 2
    wait_until(lambda: slurm.queue == [])
    wait_until(lambda: not processes_of(tmp_path))
    assert not list((tmp_path / "security").iterdir())


def test_the_command_line_starts_and_stops(slurm: Slurm, tmp_path: Path):
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "engineroom.cluster", *words, f"--profile-dir={tmp_path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    try:
        assert "1 engine ready" in run(
            "start", "--controller=slurm", "--controller-option", "walltime=30m", "-n1", "--ip=127.0.0.1", "--daemonize"
        )
        assert slurm.ask("squeue", "-h", "-o", "%j %l").strip() == "engineroom-controller 30:00"
    finally:
        run("stop")
    assert slurm.queue == []
    wait_until(lambda: not processes_of(tmp_path))
