"""Engines as workers of dask."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

import engineroom as ipp

try:
    import distributed
except ImportError:
    distributed = None

needs_dask = pytest.mark.skipif(
    distributed is None, reason="distributed is not installed (pip install distributed): become_dask is not tested"
)

#: dask leaves warnings of its own
pytestmark = pytest.mark.filterwarnings("ignore")


@needs_dask
@pytest.mark.slow
def test_engines_become_workers_of_dask_and_stay_engines(tmp_path):
    with ipp.Cluster(n=2, profile_dir=tmp_path / "profile_dask", database="none") as rc:
        pids = set(rc[:].apply_sync(os.getpid))
        dask = rc.become_dask()
        try:
            assert isinstance(dask, distributed.Client)
            dask.wait_for_workers(2, timeout=30)
            names = {worker["name"] for worker in dask.scheduler_info()["workers"].values()}
            assert names == {"engine-0", "engine-1"}
            assert dask.gather(dask.map(lambda x: x * x, range(20))) == [x * x for x in range(20)]
            assert set(dask.run(os.getpid).values()) == pids
            assert rc.become_dask() is dask, "nothing is started twice"
            assert rc[:].apply_sync(os.getpid) == rc[:].apply_sync(os.getpid), "they run tasks as before"
            rc.stop_dask(0)
            assert {worker["name"] for worker in dask.scheduler_info()["workers"].values()} <= {"engine-0", "engine-1"}
            assert dask.submit(os.getpid, pure=False).result(60) in pids
        finally:
            rc.stop_dask()
        assert dask.status == "closed"
        rc.stop_dask()
        again = rc.become_distributed(0, nthreads=2)
        assert list(again.nthreads().values()) == [2]
        rc.stop_distributed()
        assert set(rc[:].apply_sync(os.getpid)) == pids


WRONG: dict[str, tuple[Callable[[ipp.Client], Any], str]] = {
    "port": (lambda rc: rc.become_dask(port=-1), "port is a number from 0"),
    "nanny": (lambda rc: rc.become_dask(nanny="yes"), "nanny is True or False"),
    "scheduler_args": (lambda rc: rc.become_dask(scheduler_args=3), "scheduler_args is a dict"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_named(cluster: ipp.Cluster, name: str):
    call, said = WRONG[name]
    with cluster.connect_client_sync() as rc, pytest.raises(ipp.ConfigError, match=said):
        call(rc)


def test_without_dask_the_error_says_what_to_install(cluster: ipp.Cluster, monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    with cluster.connect_client_sync() as rc:
        with pytest.raises(ImportError, match="pip install distributed"):
            rc.become_dask()
        rc.stop_dask()
