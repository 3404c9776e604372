"""Batch jobs of a cluster whose starter was killed: nobody else would cancel those that wait in a queue."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from ...errors import EngineroomError
from ...launchers.registry import attach

log = logging.getLogger(__name__)


def cancel_left_jobs(cluster_file: Path) -> None:
    """Cancel the jobs that a cluster file names. Engines that are processes end without their controller."""
    try:
        described = json.loads(cluster_file.read_text())
        jobs = [
            each for each in (*described["engines"].values(), described["controller"]) if each and each.get("job_id")
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return
    for one in jobs:
        try:
            launcher = attach(one)
            if launcher.running:
                log.warning("job %s is cancelled: the process that started the cluster has ended", one["job_id"])
                launcher.stop()
        except EngineroomError as error:
            log.warning("job %s could not be cancelled: %s", one["job_id"], error)
