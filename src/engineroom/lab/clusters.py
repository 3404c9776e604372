"""The clusters of all profiles, for the panel of JupyterLab. All methods block: `handlers` calls them in threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec

from ..cluster.cluster import Cluster
from ..cluster.cluster_files import ClusterFiles
from ..cluster.found_cluster import FoundCluster
from ..config import profile_folders
from ..errors import ConfigError
from ..ids import new_uuid

#: How many controllers are asked at the same time.
LOOKS = 8
#: More engines than this are not started by a click: a slip of the keyboard would take the host down.
MOST_ENGINES = 10_000

State = Literal["starting", "running", "stopping", "failed", "killed", "elsewhere"]


class Shown(msgspec.Struct):
    """One cluster, as the panel shows it."""

    key: str  #: names it in the paths of `handlers`: "PROFILE:CLUSTER_ID"
    profile: str
    cluster_id: str
    state: State
    engines: int | None = None  #: how many are connected; None: unknown
    wanted: int | None = None  #: how many were asked for, while they are not all there
    tasks: int | None = None  #: how many have not ended; None: unknown
    problem: str = ""  #: what went wrong, and what to do
    code: str = ""  #: Python that connects a client
    ends_with_jupyter: bool = False  #: whether the Jupyter server stops it when it ends itself


class Start(msgspec.Struct, forbid_unknown_fields=True):
    """What the panel's form says."""

    profile: str = "default"
    n: int | None = None  #: engines; None: what the profile's configuration says, else one per usable core
    cluster_id: str = ""  #: "": a new one
    keep: bool = False  #: whether the cluster outlives the Jupyter server


class UnknownCluster(LookupError):
    """There is no such cluster, or no longer."""


class Clusters:
    """Lists, starts, scales and stops clusters. May be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: those that were started here, by key
        self._own: dict[str, Cluster] = {}
        #: key → how many engines it waits for, while it starts or grows
        self._waiting: dict[str, int] = {}
        self._stopping: set[str] = set()
        #: key → what went wrong when it was last started or scaled
        self._problems: dict[str, str] = {}

    # ------------------------------------------------------------------------------------------ looking

    def profiles(self) -> list[str]:
        """The names of the profiles there are, "default" first."""
        names = {folder.name.removeprefix("profile_") for folder in profile_folders()}
        return ["default", *sorted(names - {"default"})]

    def listed(self) -> list[Shown]:
        """All clusters: those that run, that are being started, that could not start, and that were killed."""
        found = {_key(each.files): each for folder in profile_folders() for each in FoundCluster.all_of(folder)}
        with ThreadPoolExecutor(LOOKS) as pool:
            shown = list(pool.map(self._shown, found, found.values()))
        self._forget_those_not_in(set(found))
        with self._lock:
            shown += [
                self._described(key, ClusterFiles(cluster.profile_dir, cluster.cluster_id))
                for key, cluster in self._own.items()
                if key not in found
            ]
        return sorted(shown, key=lambda each: (each.profile != "default", each.profile, each.cluster_id))

    def _shown(self, key: str, found: FoundCluster) -> Shown:
        with self._lock:
            shown = self._described(key, found.files)
        if shown.state == "killed":
            shown.state = "running" if found.running else "elsewhere" if found.is_elsewhere else "killed"
        if shown.state in ("running", "starting") and (now := found.activity()) is not None:
            shown.engines, shown.tasks = now.engines, now.unfinished
        elif shown.state == "running":
            shown.problem = shown.problem or f"Its controller does not answer. Its log: {_log_of(found)}"
        elif shown.state == "killed":
            shown.problem = "It was killed: its processes have ended, and its files are left. Its records are safe."
        elif shown.state == "elsewhere":
            shown.problem = "Its controller is on another host: it can be stopped only there."
        return shown

    def _described(self, key: str, files: ClusterFiles) -> Shown:
        """What is known here of a cluster. Of one that others started, "killed" stands for not known."""
        own = self._own.get(key)
        state: State = "killed"
        if key in self._stopping:
            state = "stopping"
        elif key in self._waiting:
            state = "starting"
        elif own is not None and own.controller is None:
            state = "failed"
        return Shown(
            key, files.profile, files.cluster_id, state, wanted=self._waiting.get(key),
            problem=self._problems.get(key, ""), ends_with_jupyter=own is not None and own.shutdown_atexit,
            code=f"import engineroom as er\n\nrc = er.Client({files.client_arguments()})\nrc",
        )  # fmt: skip

    def _forget_those_not_in(self, found: set[str]) -> None:
        """Forget clusters of ours that others have stopped, as with `ipcluster stop`."""
        with self._lock:
            busy = {*found, *self._waiting, *self._stopping}
            gone = [key for key, own in self._own.items() if key not in busy and own.controller is not None]
            clusters = [self._own.pop(key) for key in gone]
            for key in gone:
                self._problems.pop(key, None)
        for cluster in clusters:
            cluster.stop_cluster_sync()  # what this process still has of it: threads, lifelines

    # ------------------------------------------------------------------------------------------ acting

    def start(self, wish: Start) -> tuple[str, Callable[[], None]]:
        """Begin to start a cluster.

        Returns
        -------
        tuple
            Its key, and a function that starts it and waits for its engines. That function raises nothing: `listed`
            tells what went wrong.

        Raises
        ------
        ConfigError
            The wish makes no sense, as an id with odd characters; or there is a cluster with this profile and id.
        """
        _check_count(wish.n)
        profile = wish.profile.strip() or "default"
        cluster_id = wish.cluster_id.strip() or new_uuid()[:8]
        cluster = Cluster(profile=profile, cluster_id=cluster_id, n=wish.n, keep=wish.keep)
        key = _key(ClusterFiles(cluster.profile_dir, cluster_id))
        if FoundCluster(cluster.profile_dir, cluster_id).running:
            raise ConfigError(f"a cluster {cluster_id!r} of profile {profile} is running already: give another id")
        with self._lock:
            if key in self._waiting:
                raise ConfigError(f"a cluster {cluster_id!r} of profile {profile} is being started already")
            self._own[key] = cluster
            self._problems.pop(key, None)
            self._waiting[key] = cluster.engines_wanted
        return key, lambda: self._run(key, cluster)

    def _run(self, key: str, cluster: Cluster) -> None:
        with self._telling_problems(key):
            cluster.start_cluster_sync()
            self._wait_for_engines(key, cluster)

    def scale(self, key: str, n: int) -> Callable[[], None]:
        """Have a cluster have so many engines.

        Returns
        -------
        callable
            Waits for the engines that come; it raises nothing.

        Raises
        ------
        ConfigError, EngineroomError
            It cannot be scaled; the text says why.
        UnknownCluster
            There is none with this key that runs.
        """
        _check_count(n)
        with self._lock:
            own = self._own.get(key)
        cluster = own or self._found(key).open()
        if cluster is None:
            raise ConfigError("its controller was started by hand, with `ipcontroller`: start engines with `ipengine`")
        cluster.scale_sync(n)
        cluster.n = n
        with self._lock:
            self._problems.pop(key, None)
            self._waiting[key] = n
        return lambda: self._wait_scaled(key, cluster)

    def _wait_scaled(self, key: str, cluster: Cluster) -> None:
        with self._telling_problems(key):
            self._wait_for_engines(key, cluster)

    def _wait_for_engines(self, key: str, cluster: Cluster) -> None:
        with self._lock:
            wanted = self._waiting.get(key, 0)
        with cluster.connect_client_sync() as client:
            cluster.wait_for_engines_sync(client, wanted)

    @contextlib.contextmanager
    def _telling_problems(self, key: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, the user who waits for engines is to read it
            with self._lock:
                if key in self._waiting:  # it has not been stopped meanwhile
                    self._problems[key] = str(error) or type(error).__name__
        finally:
            with self._lock:
                self._waiting.pop(key, None)

    def stop(self, key: str) -> None:
        """Stop a cluster; forget one that could not start; remove the files of one that was killed.

        Raises
        ------
        ConfigError
            It is on another host.
        UnknownCluster
            There is none with this key.
        """
        with self._lock:
            own = self._own.get(key)
        found = self._found(key) if own is None else None
        if found is not None and found.is_elsewhere:
            raise ConfigError("its controller is on another host: stop it there, with `ipcluster stop`")
        with self._lock:
            self._stopping.add(key)
            self._waiting.pop(key, None)
        try:
            if own is not None:
                own.stop_cluster_sync()
            elif found is not None:
                found.stop()
        finally:
            with self._lock:
                self._stopping.discard(key)
                self._problems.pop(key, None)
                self._own.pop(key, None)

    def place_of(self, key: str) -> ClusterFiles:
        """The files of a cluster that runs. Raises UnknownCluster."""
        found = self._found(key)
        if not found.running:
            raise UnknownCluster(f"the cluster {key!r} is not running")
        return found.files

    def _found(self, key: str) -> FoundCluster:
        profile, _, cluster_id = key.rpartition(":")
        for folder in profile_folders():
            if folder.name == f"profile_{profile}":
                for found in FoundCluster.all_of(folder):
                    if found.cluster_id == cluster_id:
                        return found
        raise UnknownCluster(f"there is no cluster {key!r}, or it has been stopped")


def _check_count(n: int | None) -> None:
    if n is not None and not 0 <= n <= MOST_ENGINES:
        raise ConfigError(f"a number of engines is from 0 to {MOST_ENGINES:,}, got {n}")


def _key(files: ClusterFiles) -> str:
    return f"{files.profile}:{files.cluster_id}"


def _log_of(found: FoundCluster) -> Path:
    return found.files.log_of("ipcontroller")
