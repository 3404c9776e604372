"""What `ipcluster start` says when the job of its controller has ended."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engineroom.cli.base import FAILED
from engineroom.cli.supervisor import Supervisor
from engineroom.cluster.found_cluster import FoundCluster
from engineroom.launchers.registry import attach


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Supervises a cluster whose controller was job 7: of a Slurm that says how this has ended."""
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho 'NODE_FAIL|NodeDown'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    job = attach({"class": "slurm", "job_id": "7", "pid": None, "log_file": str(tmp_path / "ipcontroller-x.log")})
    return Supervisor(FoundCluster(tmp_path), SimpleNamespace(controller=job), daemon=False)  # type: ignore[arg-type]


def test_a_job_that_was_killed_is_told_in_the_words_of_the_batch_system(ended: Any):
    file = ended.files.connection_files[0]
    file.parent.mkdir()
    file.touch()  # a controller that stops in order removes it
    told: list[str] = []
    assert ended._ended(told.append) == FAILED
    assert told == ["The controller has ended, and is not started again. Slurm job 7: 1 ended (NODE_FAIL, NodeDown)"]


def test_a_controller_that_stopped_before_its_walltime_ended_has_said_so(ended: Any, tmp_path: Path):
    told: list[str] = []
    assert ended._ended(told.append) == 0
    assert told == ["The cluster was stopped."]
    said = "W the cluster is stopped: the walltime of its job (60 s) ends"
    (tmp_path / "ipcontroller-x-1.log").write_text(f"I started\n{said}\nI stopped\n")
    assert ended._ended(told.append) == 0
    assert told[-1] == f"The cluster was stopped. The log of its controller says: {said}"
