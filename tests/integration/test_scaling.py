"""Clusters that grow and shrink: when they are told, and by themselves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from conftest import processes_of, wait_until
from support.slurm import Slurm

import engineroom as er

pytestmark = pytest.mark.slow

QUICK = {"minimum": 1, "maximum": 3, "target": 0.5, "idle": 1.0, "interval": 0.1}


def nap(item: int) -> int:
    time.sleep(0.2)
    return item


def test_a_cluster_has_as_many_engines_as_it_is_told(tmp_path: Path):
    with er.Cluster(n=1, profile_dir=tmp_path) as rc:
        cluster = rc.cluster
        cluster.scale_sync(3)
        cluster.scale_sync(3)  # two are just starting: no others are started
        rc.wait_for_engines(3, timeout=60)
        running = rc.load_balanced_view().map_async(nap, range(9), chunksize=1)
        cluster.scale_sync(1)
        assert running.get(timeout=60) == list(range(9))
        wait_until(lambda: len(rc.ids) == 1)
        cluster.scale_sync(2)
        rc.wait_for_engines(2, timeout=60)
        with pytest.raises(er.ConfigError, match="n is a number of engines, 0 or more; got -1"):
            cluster.scale_sync(-1)
    wait_until(lambda: not processes_of(tmp_path))


def test_a_cluster_grows_with_its_queue_and_gives_back_what_is_idle(tmp_path: Path):
    with er.Cluster(adaptive=QUICK, profile_dir=tmp_path) as rc:
        plan = rc.cluster.adaptive.plan
        assert len(rc) == 1
        results = rc.load_balanced_view().map_async(nap, range(40), chunksize=1)
        wait_until(lambda: len(rc) == 3)
        assert plan.wanted <= 3
        assert results.get(timeout=60) == list(range(40))
        wait_until(lambda: len(rc) == 1)
        wait_until(lambda: (plan.wanted, plan.requested, plan.observed) == (1, {}, 1))
        assert rc[:].apply_sync(abs, -1) == [1]
        with pytest.raises(er.ConfigError, match="scales itself"):
            rc.cluster.scale_sync(4)
    wait_until(lambda: not processes_of(tmp_path))


def test_jobs_that_wait_in_the_queue_are_seen_and_cancelled(slurm: Slurm, tmp_path: Path):
    options = {"engines": "slurm", "profile_dir": tmp_path, "controller_ip": "127.0.0.1", "poll_seconds": 0.2}
    with er.Cluster(n=1, **options) as rc:
        slurm.ask("scontrol", "update", "partitionname=debug", "state=down")
        try:
            rc.cluster.scale_sync(4)
            wait_until(lambda: list(rc.cluster.waiting_engines().values()) == [0, 3])
            rc.cluster.scale_sync(1)
            assert len(slurm.queue) == 1
            assert rc.ids == [0]
        finally:
            slurm.ask("scontrol", "update", "partitionname=debug", "state=up")
    assert slurm.queue == []


def test_a_cluster_on_slurm_scales_itself(slurm: Slurm, tmp_path: Path):
    options = {"engines": "slurm", "profile_dir": tmp_path, "controller_ip": "127.0.0.1", "poll_seconds": 0.2}
    with er.Cluster(adaptive=QUICK, **options) as rc:
        results = rc.load_balanced_view().map_async(nap, range(60), chunksize=1)
        wait_until(lambda: len(rc) == 3)
        assert results.get(timeout=60) == list(range(60))
        wait_until(lambda: len(rc) == 1)
        wait_until(lambda: len(slurm.queue) == 1)
    assert slurm.queue == []
