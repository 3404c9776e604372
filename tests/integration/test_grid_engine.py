"""Engines as jobs of a real Grid Engine: start, work, wait, end; nothing is left in the queue."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import hold, processes_of, wait_until
from support.grid_engine import GridEngine

import engineroom as er

pytestmark = pytest.mark.slow


def job_and_task(_: int) -> tuple[str, str]:
    return os.environ["JOB_ID"], os.environ["SGE_TASK_ID"]


def make(folder: Path, n: int, **options: object) -> er.Cluster:
    return er.Cluster(
        engines="sge",
        n=n,
        profile_dir=folder,
        controller_ip="127.0.0.1",
        poll_seconds=0.3,
        **options,  # type: ignore[arg-type]
    )


def test_an_array_of_jobs_starts_engines(grid_engine: GridEngine, tmp_path: Path):
    with make(tmp_path, 3, engines_per_job=2, walltime="10m", queue="all.q") as rc:
        jobs = rc[:].apply_sync(job_and_task, 0)
        assert sorted(task for _, task in jobs) == ["1", "1", "2"]
        assert len({job for job, _ in jobs}) == 1
        assert rc.cluster.engine_set.running
        assert rc.load_balanced_view().map_sync(abs, range(-50, 0)) == list(range(50, 0, -1))
    wait_until(lambda: grid_engine.queue == "")
    wait_until(lambda: not processes_of(tmp_path))


def test_a_job_that_waits_is_explained_and_cancelled(grid_engine: GridEngine, tmp_path: Path):
    cluster = make(tmp_path, 2, engine_timeout=3.0, extra_lines=["#$ -h"])
    with pytest.raises(TimeoutError, match=r"Grid Engine job \d+: 2 of 2 pending for \d+ s"):
        cluster.start_and_connect_sync()
    assert grid_engine.queue == ""


def test_a_refused_job_is_told_in_its_own_words(grid_engine: GridEngine, tmp_path: Path):
    with pytest.raises(er.LaunchError, match=r"Grid Engine did not take the job: .*Job was rejected because job"):
        make(tmp_path, 2, queue="fast.q").start_cluster_sync()


def test_a_controller_is_a_job_and_ends_in_order(grid_engine: GridEngine, tmp_path: Path):
    cluster = er.Cluster(
        controller="sge", engines="local", n=1, profile_dir=tmp_path, controller_ip="127.0.0.1", database="sqlite",
        controller_options={"poll_seconds": 0.3},
    )  # fmt: skip
    with cluster as rc:
        running = rc.load_balanced_view().apply_async(hold, str(tmp_path / "never"))
        wait_until(lambda: running.started)
        assert grid_engine.queue
    assert grid_engine.queue == ""
    wait_until(lambda: not processes_of(tmp_path))
    with er.Cluster(n=0, profile_dir=tmp_path, database="sqlite", cluster_id="after") as rc:
        assert rc.db_query({"msg_id": running.msg_id}, keys=["state"])[0]["state"] == "aborted"
