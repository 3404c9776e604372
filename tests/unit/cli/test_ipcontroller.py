"""Settings of the controller that are read before anything is opened."""

from __future__ import annotations

import threading

import pytest

from engineroom.cli.ipcontroller import IPController, stop_before_the_end
from engineroom.config import GIB, MIB
from engineroom.controller.storage.queued_memory import SHARE_OF_MEMORY
from engineroom.cores import usable_memory
from engineroom.engine.host.walltime import Walltime
from engineroom.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "expected"),
    [("", int(usable_memory() * SHARE_OF_MEMORY)), ("2GiB", 2 * GIB), (" 3 MiB ", 3 * MIB), ("none", None)],
)
def test_the_memory_of_tasks_that_wait(given: str, expected: int | None):
    assert IPController(queued_memory=given)._queued_memory() == expected


@pytest.mark.parametrize("given", ["much", "-1", "0", "0.1"])
def test_what_is_no_amount_of_memory(given: str):
    with pytest.raises(ConfigError, match=r"IPController\.queued_memory is"):
        IPController(queued_memory=given)._queued_memory()


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [(60.0, "the walltime of its job (60 s) ends"), (None, "the time limit of the controller's job ends")],
)
def test_a_controller_in_a_batch_job_stops_before_the_end(seconds: float | None, reason: str):
    told: list[str] = []
    stopped = threading.Event()

    def stop(why: str) -> None:
        told.append(why)
        stopped.set()

    stop_before_the_end(stop, Walltime(drain=0.0, cut=0.0), seconds)  # the moment is over
    assert stopped.wait(60)
    assert told == [reason]
