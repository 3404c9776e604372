"""Clusters that outlive the process that started them: which one the next `Cluster` of the profile takes over."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..launchers import FoundProcess
from ..private import read_small
from ..system.processes import birth_of
from .cluster_files import ClusterFiles
from .processes.restarts import Restarts

#: kept clusters of which this process has started processes → what starts these again, one for each Cluster object
_restarts_here: dict[tuple[Path, str], list[Restarts]] = {}


def started_here(files: ClusterFiles, restarts: Restarts) -> None:
    """This process starts a kept cluster, or more engines of one."""
    _restarts_here.setdefault((files.profile_dir, files.cluster_id), []).append(restarts)


def is_stopping(files: ClusterFiles) -> None:
    """A cluster is being stopped. Other objects that started parts of it here are not to start them again."""
    for restarts in _restarts_here.pop((files.profile_dir, files.cluster_id), ()):
        restarts.refuse()


def owner_here() -> dict[str, Any]:
    """This process, as the cluster file names the owner of a kept cluster."""
    return {"pid": os.getpid(), "birth": birth_of(os.getpid())}


def description(files: ClusterFiles) -> dict[str, Any] | None:
    """The cluster file's content, if it is that of a kept cluster whose controller runs, and which nobody else has."""
    try:
        found = json.loads(read_small(files.cluster_file))
        kept, controller = found["cluster"].get("keep"), found["controller"]
        if not kept or not FoundProcess(controller["pid"], "engineroom.controller").running or _is_others(kept):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # there is none, or another version wrote it
    return dict(found)


def free_cluster(profile_dir: Path) -> str | None:
    """The id of a kept cluster of a profile that nobody has; None: there is none."""
    return next((files.cluster_id for files in ClusterFiles.all_of(profile_dir) if description(files)), None)


def _is_others(kept: Mapping[str, Any]) -> bool:
    """Whether another process that lives has it."""
    birth = birth_of(kept["pid"])
    is_there = bool(birth) and kept.get("birth", birth) == birth  # files of version 0.2.0 have none
    return is_there and kept["pid"] != os.getpid()
