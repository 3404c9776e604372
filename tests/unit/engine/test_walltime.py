"""When engines of a job that ends by itself take no more tasks, and when they leave what they run."""

from __future__ import annotations

import pytest

from engineroom.engine.host.walltime import Walltime, is_in_job, time_left


@pytest.mark.parametrize(
    ("seconds", "drain", "expected"),
    [
        (7200.0, None, (7140.0, 7190.0)),  # a minute ahead, and ten seconds
        (60.0, None, (54.0, 57.0)),  # a short one: a tenth, and half of that
        (3600.0, 300.0, (3300.0, 3590.0)),
        (10.0, 60.0, (0.0, 5.0)),  # it drains from the start
        (10.0, 0.0, (10.0, 10.0)),
    ],
)
def test_moments(seconds: float, drain: float | None, expected: tuple[float, float]):
    made = Walltime.of(seconds, drain, 1000.0)
    assert made is not None
    assert (made.drain - 1000, made.cut - 1000) == expected


def test_a_job_that_does_not_end_by_itself():
    assert Walltime.of(0.0, None, 1000.0) is None


@pytest.mark.fault(48)
@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, 0.0),
        ({"SLURM_JOB_END_TIME": "1600"}, 600.0),
        ({"SLURM_JOB_END_TIME": "900"}, 0.0),
        ({"PBS_WALLTIME": "3600"}, 3600.0),
        ({"SLURM_JOB_END_TIME": "Unlimited"}, 0.0),
        ({"SLURM_JOB_END_TIME": "9" * 400}, 0.0),
        ({"PBS_WALLTIME": "-1"}, 0.0),
    ],
)
def test_what_batch_systems_say_of_the_end_of_a_job(environ: dict[str, str], expected: float):
    assert time_left(environ, 1000.0) == expected


def test_which_processes_are_in_a_job():
    assert is_in_job({"SLURM_JOB_ID": "17"})
    assert not is_in_job({"HOME": "/root", "PBS_JOBID": ""})
