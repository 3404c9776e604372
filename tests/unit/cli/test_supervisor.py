"""What `ipcluster start` says when the job of its controller has ended, and signals at bad moments."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engineroom.cli.base import FAILED
from engineroom.cli.supervisor import Alarm, Supervisor
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


class SignalsAtItsEnd:
    """Exceptions in finalizers are lost."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class ClusterThat:
    """Has something happen at each look of its supervisor."""

    def __init__(self, happens: Any) -> None:
        self.update_from_file = lambda: [happens() and None][:0]
        self.engines: dict[str, Any] = {}
        self.controller = SimpleNamespace(on_stop=lambda callback: None, join=lambda timeout: False)
        self.stops = 0

    def stop_cluster_sync(self) -> None:
        self.stops += 1


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of before, after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("happens", [SignalsAtItsEnd, lambda: os.kill(os.getpid(), signal.SIGINT)])
def test_a_signal_at_any_place_stops_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, happens: Any):
    cluster = ClusterThat(happens)
    told: list[str] = []
    supervisor = Supervisor(FoundCluster(tmp_path), cluster, daemon=False)  # type: ignore[arg-type]
    supervisor.files.pid_file.parent.mkdir(exist_ok=True)
    monkeypatch.setattr(supervisor, "_start", lambda say: None)
    assert supervisor.run(told.append) == 0
    assert told == ["", "Stopping …", "Stopped."]
    assert cluster.stops >= 1
    assert not supervisor.files.pid_file.exists()


def test_an_alarm_ends_a_wait_also_before_it():
    with Alarm() as alarm:
        alarm.ring()
        alarm.wait(600)
        ringing = threading.Thread(target=alarm.ring)
        ringing.start()
        alarm.wait(600)
        ringing.join()
    alarm.ring()
