"""Several clusters, kept by name; and the files of clusters that were killed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..config import check_switches, profile_dir, profile_folders
from .cluster import Cluster
from .cluster_files import ClusterFiles
from .found_cluster import FoundCluster

Folder = str | os.PathLike[str]


class ClusterManager:
    """Clusters by name: those that were made here, and those that `load_clusters` finds.

    Attributes
    ----------
    clusters : dict
        key → Cluster. The key of a cluster is "PROFILE:CLUSTER_ID", with the profile's folder if it has no name.
    """

    def __init__(self) -> None:
        self.clusters: dict[str, Cluster] = {}
        #: keys of those that `load_clusters` has found
        self._found: set[str] = set()

    def new_cluster(self, **kwargs: Any) -> tuple[str, Cluster]:
        """Make a cluster, which is not started; returns its key and it. The arguments are those of `Cluster`.

        Raises
        ------
        KeyError
            There is a cluster with this profile and this id.
        """
        cluster = Cluster(**kwargs)
        key = _key(cluster)
        if key in self.clusters:
            raise KeyError(f"there is a cluster {key!r} already")
        self.clusters[key] = cluster
        return key, cluster

    def get_cluster(self, cluster_id: str) -> Cluster:
        """The cluster with this key. Raises KeyError."""
        if cluster_id not in self.clusters:
            raise KeyError(f"there is no cluster {cluster_id!r}; there are {', '.join(self.clusters) or 'none'}")
        return self.clusters[cluster_id]

    def remove_cluster(self, cluster_id: str) -> None:
        """Forget the cluster with this key; it is not stopped. Raises KeyError."""
        self.get_cluster(cluster_id)
        del self.clusters[cluster_id]
        self._found.discard(cluster_id)

    def load_clusters(
        self,
        *,
        profile_dirs: Iterable[Folder] | None = None,
        profile_dir: Folder | None = None,
        profiles: Iterable[str] | None = None,
        profile: str | None = None,
        init_default_clusters: bool = False,
        **kwargs: Any,
    ) -> dict[str, Cluster]:
        """Find the clusters that run, of some profiles or of all, and forget found ones that have ended.

        Parameters
        ----------
        profile_dirs, profile_dir, profiles, profile
            Whose clusters, by folder or by name; default: of all profiles.
        init_default_clusters : bool
            Make a cluster that is not started for each profile that has none.
        kwargs
            Arguments of `Cluster` for these.

        Returns
        -------
        dict
            `clusters`
        """
        check_switches(init_default_clusters=init_default_clusters)
        folders = [Path(folder) for folder in (*(profile_dirs or ()), *([profile_dir] if profile_dir else ()))]
        folders += [_folder(name) for name in (*(profiles or ()), *([profile] if profile else ()))]
        for key in [key for key in self._found if not _runs_here(self.clusters[key])]:
            self.remove_cluster(key)
        for folder in folders or profile_folders():
            self._load(folder, init_default_clusters, kwargs)
        return self.clusters

    def _load(self, folder: Path, init_default: bool, kwargs: dict[str, Any]) -> None:
        for found in FoundCluster.all_of(folder):
            cluster = found.open()
            if cluster is not None and found.running and _key(cluster) not in self.clusters:
                self.clusters[_key(cluster)] = cluster
                self._found.add(_key(cluster))
        mine = [cluster for cluster in self.clusters.values() if cluster.profile_dir == folder.absolute()]
        if init_default and not mine:
            self.new_cluster(**{"profile_dir": folder, "cluster_id": "", **kwargs})


def clean_cluster_files(
    profile_dirs: Iterable[Folder] | None = None, *, log: logging.Logger | None = None, force: bool = False
) -> None:
    """Remove the files of clusters that have ended without removing them.

    Parameters
    ----------
    profile_dirs : list of path, optional
        Profiles' folders; default: all profiles.
    log : Logger, optional
        Is told what is removed.
    force : bool
        Also files of clusters that seem to run: they go on, but nobody can connect any more.
    """
    check_switches(force=force)
    told = log or logging.getLogger(__name__)
    for folder in profile_folders() if profile_dirs is None else map(Path, profile_dirs):
        for found in FoundCluster.all_of(folder):
            if force or not (found.processes or found.supervisor is not None or found.is_elsewhere):
                for path in found.files.remove():
                    told.info("removed %s", path)


def _folder(profile: str) -> Path:
    return profile_dir(profile, None)


def _key(cluster: Cluster) -> str:
    return f"{ClusterFiles(cluster.profile_dir).profile}:{cluster.cluster_id}"


def _runs_here(cluster: Cluster) -> bool:
    return cluster.controller is not None and cluster.controller.running
