"""The engines of a cluster: sets that are started and stopped together, each by a launcher of its own."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

from ... import resources as named_resources
from ...errors import ConfigError
from ...ids import new_uuid
from ...launchers import EngineLauncher, Launcher
from ...launchers.base import LauncherFacts, last_line
from ...launchers.registry import attach
from ...printable import one_line
from ..cluster_files import ClusterFiles
from .restarts import RestartLimit, Restarts

#: Makes the launcher of a set, from the number of engines, their resources and the set's id.
MakeLauncher = Callable[[int, Mapping[str, int], str], EngineLauncher]


class EngineSets:
    """Starts and stops sets of engines.

    Parameters
    ----------
    restarts : Restarts
        Whether it is started again when it was killed.
    files : ClusterFiles
        A cluster without connection files has been stopped, maybe by another process: nothing is started again.
    """

    def __init__(self, restarts: Restarts, files: ClusterFiles) -> None:
        #: engine_set_id → its launcher
        self.launchers: dict[str, Launcher] = {}
        self.sizes: dict[str, int] = {}
        #: engine_set_id → which of the host's named resources its engines share
        self.resources: dict[str, dict[str, int]] = {}
        #: engines that were told to leave one by one
        self.given_back = 0
        self._restarts = restarts
        self._files = files
        self._limits: dict[str, RestartLimit] = {}
        #: sets that run, or have just been killed and are about to be started again
        self._alive: set[str] = set()

    def start(self, make: MakeLauncher, n: int, set_id: str | None, resources: Mapping[str, int]) -> str:
        """Start `n` engines; returns the id of the set.

        Raises
        ------
        KeyError
            There is a set with this id.
        LaunchError, ConfigError
            The launcher cannot start them, or `n` is no number of engines.
        """
        if not hasattr(n, "__index__") or isinstance(n, bool) or n < 1:
            raise ConfigError(f"the number of engines is an int, 1 or more; got {n!r}")
        id = set_id or f"{int(time.time())}-{new_uuid()[:4]}"
        if id in self.launchers:
            raise KeyError(f"there is an engine set {id!r} already")
        self.resources[id] = named_resources.check(resources)
        self.sizes[id] = int(n)
        self._limits[id] = RestartLimit()
        self._restarts.allowed = True
        try:
            self._launch(make, id)
        except BaseException:
            for table in (self.launchers, self.sizes, self.resources, self._limits):
                table.pop(id, None)
            self._alive.discard(id)
            raise
        return id

    def _launch(self, make: MakeLauncher, id: str) -> None:
        launcher = make(self.sizes[id], self.resources.get(id, {}), id)

        def restart(code: int) -> None:
            """Start the set again if its nanny was killed: its engines ended with it."""
            with self._restarts.lock:
                if self.launchers.get(id) is not launcher:
                    return
                has_ended = code == 0 or not self._restarts.allowed or not self._files.connection_files[0].exists()
                what, start = f"the engine set {id}", functools.partial(self._launch, make, id)
                log_file = self._files.log_of(f"ipengine-{id}")
                if has_ended or not self._restarts.again(what, self._limits[id], start, log_file):
                    self._alive.discard(id)

        if launcher.restarts:
            self._alive.add(id)
            launcher.on_stop(restart)
        self.launchers[id] = launcher
        self._limits[id].on_start()
        launcher.start()

    def stop(self, set_id: str | None = None) -> None:
        """Stop a set, or all.

        Raises
        ------
        KeyError
            There is no such set.
        """
        for id in self.chosen(set_id):
            del self.sizes[id]
            self._limits.pop(id, None)
            self._alive.discard(id)
            self.resources.pop(id, None)
            self.launchers.pop(id).stop()  # forgotten first, so that it is not started again

    def chosen(self, set_id: str | None) -> list[str]:
        """The ids of the sets that are meant: one, or all for None."""
        if set_id is None:
            return list(self.launchers)
        if set_id not in self.launchers:
            raise KeyError(f"there is no engine set {set_id!r}; there are {', '.join(self.launchers) or 'none'}")
        return [set_id]

    def engines_of(self, set_id: str, status: Mapping[Any, Any]) -> list[int]:
        """The numbers of the engines of a set on this host; `status`: what `Client.queue_status` says.

        Raises
        ------
        ConfigError
            Its launcher has no process here of which the engines are children.
        """
        import psutil

        pid = getattr(self.launchers[set_id], "pid", None)
        try:
            here = {child.pid for child in psutil.Process(pid).children(recursive=True)} if pid else set()
        except psutil.Error:
            here = set()
        found = [id for id, engine in status.items() if isinstance(id, int) and engine["pid"] in here]
        if not found:
            raise ConfigError(f"which engines belong to set {set_id} is not known here: name them one by one")
        return found

    def explain(self) -> str:
        """Why engines are missing, in the words of their launchers; "" if these have nothing to say."""
        return "; ".join(filter(None, (launcher.explain() for launcher in self.launchers.values())))

    @property
    def waiting(self) -> dict[str, int]:
        """Set → how many of its engines wait in a queue. Sets that have ended are left out."""
        return {id: launcher.waiting for id, launcher in self.launchers.items() if launcher.running}

    @property
    def started(self) -> int:
        """How many engines there should be, but for those that wait in a queue, and for those that were given back."""
        return sum(self._started(id, launcher) for id, launcher in self.launchers.items()) - self.given_back

    def _started(self, id: str, launcher: Launcher) -> int:
        is_killed = id in self._alive and not launcher.running
        return self.sizes[id] if is_killed else launcher.expected - launcher.waiting

    def last_words(self) -> str:
        """What the logs of the sets end with; "" if they are empty."""
        words = [one_line(last_line(launcher.get_output())) for launcher in self.launchers.values()]
        return "; ".join(f"the log of the engines ends: {each}" for each in words if each)

    @property
    def missing(self) -> int:
        """How many engines of the sets that this process started have ended, or cannot come any more."""
        mine = [(self.sizes[id], launcher) for id, launcher in self.launchers.items() if id in self._limits]
        return sum(max(0, size - launcher.expected) for size, launcher in mine)

    def have_resources(self) -> bool:
        """Whether a set has been given named resources."""
        return any(self.resources.values())

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """What the cluster file says of them."""
        return {
            id: {**launcher.to_dict(), "n": self.sizes.get(id, 0), "resources": self.resources.get(id, {})}
            for id, launcher in self.launchers.items()
        }

    def attach(self, described: Mapping[str, Mapping[str, Any]]) -> None:
        """Take up the sets that another process started, from its `to_dict`."""
        for id, found in described.items():
            self.launchers[id] = launcher = attach(found)
            self.sizes[id] = found["n"]
            if isinstance(launcher, LauncherFacts):
                launcher.belongs_to(self._files.profile_dir, self._files.cluster_id, found["n"])
            self.resources[id] = found.get("resources", {})

    def attach_new(self, other: EngineSets) -> list[str]:
        """Take up those sets of another description that run and are not known here; returns their ids."""
        new = [id for id, nanny in other.launchers.items() if id not in self.launchers and nanny.running]
        for id in new:
            self.launchers[id] = other.launchers[id]
            self.sizes[id], self.resources[id] = other.sizes[id], other.resources[id]
        return new
