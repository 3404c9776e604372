"""A cluster as its cluster file describes it: written for other processes, and attached to by these."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from .._version import __version__
from ..config import did_you_mean, write_private
from ..config import profile_dir as folder_of_profile
from ..errors import ConfigError
from ..launchers import FoundProcess, Launcher
from ..launchers.base import LauncherFacts
from ..launchers.registry import attach
from ..private import read_small
from .cluster_files import ClusterFiles
from .processes.controller_process import ControllerProcess
from .processes.engine_sets import EngineSets


class DescribedCluster:
    """What `Cluster` inherits: the cluster file."""

    def __init__(self, **arguments: Any) -> None:
        """Made by `Cluster`."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a Cluster manages processes: it cannot be pickled or copied. Another process attaches to it: "
            "Cluster.from_file(cluster.cluster_file), or Cluster.from_dict(cluster.to_dict())"
        )

    cluster_id: str
    profile_dir: Path
    #: "": none is written, and other processes do not find the cluster
    cluster_file: Path | Literal[""]
    n: int | None
    _controller: ControllerProcess
    _engine_sets: EngineSets
    #: of a cluster that outlives its process: who has it, as `kept.owner_here` says; None: of all others
    _owner: Mapping[str, Any] | None

    @property
    def controller(self) -> Launcher | None:
        """The launcher of the controller; None if this cluster has none."""
        return self._controller.launcher

    def to_dict(self) -> dict[str, Any]:
        """What another process needs to find this cluster; JSON-able, without secrets."""
        return {
            "cluster": {
                "cluster_id": self.cluster_id,
                "profile_dir": str(self.profile_dir),
                "version": __version__,
                **({"keep": self._owner} if self._owner else {}),
            },
            "controller": dict(self.controller.to_dict()) if self.controller is not None else None,
            "engines": self._engine_sets.to_dict(),
        }

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], **kwargs: Any) -> Self:
        """The cluster that `to_dict` described."""
        try:
            about = d["cluster"]
            cluster: Self = cls(
                profile_dir=about["profile_dir"],
                cluster_id=about["cluster_id"],
                shutdown_atexit=False,
                **{"config": {}, **kwargs},
            )
            cluster._owner = about.get("keep")
            cluster._attach(d)
            cluster.n = sum(cluster._engine_sets.sizes.values())
        except ConfigError:
            raise
        except (LookupError, TypeError, AttributeError, ValueError, OverflowError, OSError) as error:
            # Values of any type may stand in a file. Each launcher reads its own.
            raise ConfigError(f"this does not describe a cluster: {error!r}") from None
        return cluster

    def _attach(self, d: Mapping[str, Any]) -> None:
        """Have the processes that `to_dict` described."""
        if controller := d["controller"]:
            found: Launcher
            if controller.get("job_id"):
                found = attach(controller)
            else:
                found = FoundProcess(controller["pid"], "engineroom.controller", Path(controller["log_file"]))
            if isinstance(found, LauncherFacts):
                found.belongs_to(self.profile_dir, self.cluster_id)
            self._controller.launcher = found
        self._engine_sets.attach(d["engines"])

    @classmethod
    def from_file(
        cls,
        cluster_file: str | os.PathLike[str] | None = None,
        *,
        profile: str | None = None,
        profile_dir: str | os.PathLike[str] | None = None,
        cluster_id: str = "",
        **kwargs: Any,
    ) -> Self:
        """Attach to a cluster that another process started.

        Raises
        ------
        FileNotFoundError
            There is no such cluster.
        """
        given = Path(cluster_file) if cluster_file else None
        files = ClusterFiles(folder_of_profile(profile or None, profile_dir or None), cluster_id, given)
        path = files.cluster_file
        try:
            data = json.loads(read_small(path))
        except FileNotFoundError:
            question = did_you_mean(files.profile_dir)
            raise FileNotFoundError(
                f"no cluster was found: there is no file {path}. {question}{question and ' '}Start a cluster with "
                f"`ipcluster start -n 4{files.options()}`"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is not a cluster file: {error}") from None
        return cls.from_dict(data, **{"cluster_file": path, **kwargs})

    def write_cluster_file(self) -> None:
        """Write the cluster file (mode 0600). Nothing happens for a cluster that has none (`cluster_file=""`)."""
        if self.cluster_file:
            write_private(self.cluster_file, json.dumps(self.to_dict(), indent=1))

    update_cluster_file = write_cluster_file

    def update_from_file(self) -> list[str]:
        """Take up the engine sets that another process has added to the cluster file; returns their ids."""
        if not self.cluster_file:
            return []
        try:
            found = type(self).from_file(self.cluster_file)
        except (FileNotFoundError, ConfigError):
            return []
        return self._engine_sets.attach_new(found._engine_sets)

    def remove_cluster_file(self) -> None:
        """Remove the cluster file, if it is there."""
        if self.cluster_file:
            self.cluster_file.unlink(missing_ok=True)
