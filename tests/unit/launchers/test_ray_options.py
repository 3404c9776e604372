"""Engines in Ray, without a Ray: options, what is asked for, and what does not answer."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

import engineroom as er

# A module that stands for Ray: nothing here gets as far as to use it.
NO_RAY = types.ModuleType("ray")
NO_RAY.is_initialized = lambda: False  # type: ignore[attr-defined]


def make(folder: Path, **options: Any) -> er.Cluster:
    return er.Cluster(engines="ray", profile_dir=folder, controller_ip="127.0.0.1", **options)


def test_a_dry_run_shows_what_each_actor_asks_for_and_runs(tmp_path: Path):
    shown = make(tmp_path, n=5, engines_per_job=2, num_gpus=1, ray_resources={"ROOM": 0.5}).dry_run()
    asked, runs = shown.splitlines()[0::2], shown.splitlines()[1::2]
    assert asked == ["# asks Ray for CPU=2, GPU=1, ROOM=0.5"] * 2 + ["# asks Ray for CPU=1, GPU=1, ROOM=0.5"]
    assert [line.split()[-3:] for line in runs] == [[f"--n={n}", "--file=-", "--resources=gpu=1"] for n in (2, 2, 1)]
    assert make(tmp_path, n=1, num_cpus=0).dry_run().startswith("# asks Ray for \n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engines_per_job": 0}, "engines_per_job is a number, 1 or more"),
        ({"num_cpus": -1}, "num_cpus and num_gpus are 0 or more"),
        ({"ray_resources": {"GPU": 1}}, "CPUs and GPUs are the options num_cpus and num_gpus"),
        ({"ray_resources": {"ROOM": 0}}, "Amounts are above 0"),
        ({"ray_resource": {"ROOM": 1}}, "has no option 'ray_resource'; did you mean ray_resources"),
        ({"ray_resources": "ROOM"}, "an option of the launcher ray cannot be used"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any], said: str):
    with pytest.raises(er.ConfigError, match=said):
        make(tmp_path, n=1, **options).dry_run()


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        ("127.0.0.1:9", er.LaunchError, "Ray at 127.0.0.1:9 does not answer: Connection refused"),
        ("ray://127.0.0.1:9", er.LaunchError, "Ray at ray://127.0.0.1:9 does not answer: Connection refused"),
        ("nowhere", er.ConfigError, "the address of a Ray is HOST:PORT or ray://HOST:PORT; got 'nowhere'"),
        ("no-such-host.invalid:1", er.LaunchError, "does not answer: Name or service not known"),
    ],
)
def test_a_ray_that_does_not_answer_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, error: type[Exception], said: str
):
    monkeypatch.setitem(sys.modules, "ray", NO_RAY)
    with pytest.raises(error, match=said):
        make(tmp_path, n=1, address=address).start_cluster_sync()


def test_ray_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(er.ConfigError, match="the launcher ray needs Ray: pip install ray"):
        make(tmp_path, n=1).start_cluster_sync()
