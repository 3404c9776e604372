"""Named resources in a cluster: dealt out to engines, asked for by tasks, and results passed between tasks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import wait_until

import engineroom as er


def here() -> tuple[int, str | None, dict[str, list[int]]]:
    task = er.current_task()
    assert task is not None
    return task.engine_id, os.environ.get("CUDA_VISIBLE_DEVICES"), task.resources


@pytest.fixture
def rc(fresh_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> er.Client:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fresh_cluster(n=2, resources={"gpu": 3, "license": 1})


def test_tasks_go_where_their_resources_are(rc: er.Client):
    lb = rc.load_balanced_view(resources={"gpu": 2})
    [(engine, devices, resources)] = {tuple(map(str, lb.apply_sync(here))) for _ in range(4)}
    assert (devices, resources) == ("0,1", "{'gpu': [0, 1]}")
    seen = {number: rc[number].apply_sync(here)[1] for number in rc.ids}
    assert seen == {int(engine): "0,1", 1 - int(engine): "2"}
    lb = rc.load_balanced_view(resources={"gpu": 1})
    for _ in range(4):
        _, devices, resources = lb.apply_sync(here)
        assert devices in ("0", "2")
        assert resources == {"gpu": [int(devices)]}


def test_who_replaces_a_dead_engine_has_its_share(rc: er.Client):
    before = {number: rc[number].apply_sync(here)[1] for number in rc.ids}
    with pytest.raises(er.EngineError):
        rc[0].apply_sync(os._exit, 1)
    rc.wait_for_engines(2, timeout=20)
    wait_until(lambda: rc.ids == [0, 1])
    assert {number: rc[number].apply_sync(here)[1] for number in rc.ids} == before


def test_more_engines_share_what_they_are_given(rc: er.Client):
    cluster = rc.cluster
    plain = cluster.start_engines_sync(1)
    rc.wait_for_engines(3, timeout=20)
    given = cluster.start_engines_sync(1, resources={"tape": 2})
    rc.wait_for_engines(4, timeout=20)
    described = cluster.to_dict()["engines"]
    assert (described[plain]["resources"], described[given]["resources"]) == ({}, {"tape": 2})
    lb = rc.load_balanced_view(resources={"tape": 1})
    assert lb.apply_sync(here)[2] == {"tape": [0]}


def test_resources_that_make_no_sense_are_refused_at_once(tmp_path: Path):
    for bad in ({"gpu": -1}, {"gpu": 1.5}, {"my gpu": 1}, ["gpu"]):
        with pytest.raises(er.ConfigError, match="as in gpu=4,license=1"):
            er.Cluster(n=1, profile_dir=tmp_path / "profile", resources=bad)  # type: ignore[arg-type]
    command = [sys.executable, "-m", "engineroom.cli.ipcluster", "start", "-n", "1", "--resources", "gpu=x"]
    done = subprocess.run([*command, f"--profile-dir={tmp_path / 'profile'}"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ipcluster: resource gpu needs a number from 0 to 65536, got 'x'" in done.stderr
    assert not (tmp_path / "profile").exists() or not list((tmp_path / "profile" / "security").iterdir())


def total(array: np.ndarray, by: int) -> float:
    array *= by  # it is this task's own
    return float(array.sum())


def test_a_result_is_an_argument_of_several_tasks(rc: er.Client):
    lb = rc.load_balanced_view()
    ones = lb.apply_async(np.ones, 200_000)
    sums = [lb.apply_async(total, ones, by) for by in (1, 2, 3, 4)]
    assert lb.apply_async(sum, sums).get(60) == 200_000 * 10
    assert [result.get(60) for result in sums] == [200_000 * by for by in (1, 2, 3, 4)]
