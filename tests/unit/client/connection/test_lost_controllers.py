"""What clients are told of a controller that is silent, or has ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engineroom.client.connection.connecting import ended_error, no_answer_error, silence_error
from engineroom.config import ConnectionInfo

JOB = {"class": "slurm", "job_id": "17", "pid": None, "log_file": "/home/me/ipcontroller.log"}


@pytest.fixture
def info(tmp_path: Path) -> ConnectionInfo:
    """A controller on another host."""
    profile = tmp_path / "profile_lab"
    (profile / "security").mkdir(parents=True)
    url, location = "tcp://192.0.2.1:5", "node7.invalid"
    return ConnectionInfo(url=url, key="k", location=location, pid=9, cluster_id="x", profile_dir=str(profile))


def describe(info: ConnectionInfo, text: str) -> None:
    (Path(info.profile_dir) / "security" / "cluster-x.json").write_text(text)


@pytest.mark.parametrize("error", [silence_error, no_answer_error])
def test_a_job_is_named(info: ConnectionInfo, error):
    describe(info, json.dumps({"controller": JOB}))
    options = f"--profile-dir={info.profile_dir} --cluster-id=x"
    assert str(error(info, 30.0)).endswith(
        "It is the slurm job 17, with its log /home/me/ipcontroller.log. The batch system says whether that job still "
        "runs. If it has ended, and the program that started the cluster starts no other, start the cluster again: "
        f"`ipcluster stop {options}`, then `ipcluster start {options}` with the options that it had."
    )


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"controller": null}', '{"controller": {"pid": 3}}'])
def test_a_controller_that_is_no_job_has_none(info: ConnectionInfo, text: str | None):
    if text is not None:
        describe(info, text)
    assert " job" not in str(silence_error(info, 30.0))


def test_a_controller_that_has_ended_names_the_options_of_its_cluster(info: ConnectionInfo):
    assert f"`ipcluster start -n 4 --profile-dir={info.profile_dir} --cluster-id=x`" in str(ended_error(info, 1.0))
