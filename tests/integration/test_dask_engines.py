"""Engines on the workers of a real Dask cluster: distributed, with workers in processes of their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import processes_of, wait_until

import engineroom as er

distributed = pytest.importorskip("distributed", reason="distributed is not installed: pip install distributed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def dask() -> Iterator[Any]:
    """Two workers with two threads each, and two of the resource ROOM."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None, resources={"ROOM": 2}
    ) as made:
        yield made


def parents() -> int:
    """The worker that started this engine: engine, zygote, nanny, worker."""
    return psutil.Process().parent().parent().parent().pid


def make(dask: Any, folder: Path, n: int, **options: Any) -> er.Cluster:
    return er.Cluster(
        engines="dask", n=n, profile_dir=folder, controller_ip="127.0.0.1", address=dask.scheduler_address, **options
    )


def test_engines_run_on_workers_and_leave_nothing(dask: Any, tmp_path: Path):
    with make(dask, tmp_path, 3, dask_resources={"ROOM": 1}, engines_per_job=2) as rc:
        workers = {worker["pid"] for worker in dask.scheduler_info["workers"].values() if "pid" in worker}
        hosts = set(rc[:].apply_sync(parents))
        assert not workers or hosts <= workers
        assert os.getpid() not in hosts
        assert rc.load_balanced_view().map_sync(abs, range(-20, 0)) == list(range(20, 0, -1))
        rc.cluster.scale_sync(4)
        rc.wait_for_engines(4, timeout=60)
    wait_until(lambda: not processes_of(tmp_path))
    with distributed.Client(dask, set_as_default=False) as client:
        wait_until(lambda: not any(client.processing().values()))


def test_dask_that_does_not_answer_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engineroom.launchers.dask.CONNECT_SECONDS", 0.5)
    cluster = er.Cluster(engines="dask", n=1, profile_dir=tmp_path, controller_ip="127.0.0.1", address="tcp://127.0.0.1:9")
    threads = set(threading.enumerate())
    with pytest.raises(er.LaunchError, match=r"Dask's scheduler at tcp://127.0.0.1:9 does not answer"):
        cluster.start_cluster_sync()
    wait_until(lambda: not [thread.name for thread in set(threading.enumerate()) - threads])
    with pytest.raises(er.ConfigError, match="needs one of the options address and scheduler_file"):
        er.Cluster(engines="dask", n=1, profile_dir=tmp_path).dry_run()
