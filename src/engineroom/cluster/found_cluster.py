"""A cluster that another process may have started: which of its processes run, and what they still have to do."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..client import Client
from ..config import ConnectionInfo, did_you_mean
from ..errors import ConfigError, ControllerLost, EngineroomError
from ..launchers import FoundProcess, Launcher
from ..launchers.batch.job import BatchJob
from ..private import read_small
from .cluster import Cluster
from .cluster_files import ClusterFiles, is_other_host
from .processes.guard import ask_to_end

log = logging.getLogger(__name__)

#: Seconds that the controller may take to say how many tasks it has.
ANSWER_SECONDS = 3.0
#: Seconds that `ipcluster start` has to stop its cluster.
STOP_SECONDS = 30.0
#: Has a daemon write what its threads do into its log, and the seconds that it has for that.
STACKS_SIGNAL, STACKS_SECONDS = signal.SIGUSR1, 1.0


class Activity(NamedTuple):
    """What a controller says of its cluster now."""

    engines: int  #: how many are connected
    held: int  #: tasks that engines have and that have not ended
    waiting: int  #: tasks that wait for an engine

    @property
    def unfinished(self) -> int:
        """How many tasks have not ended."""
        return self.held + self.waiting


class FoundCluster:
    """A cluster of a profile, looked at from outside: by its files, and the processes that these name."""

    def __init__(self, profile_dir: Path, cluster_id: str = "") -> None:
        self.files = ClusterFiles(profile_dir, cluster_id)
        #: hears what the controller says at its end
        self._witness: Client | None = None

    @classmethod
    def all_of(cls, profile_dir: Path) -> Iterator[FoundCluster]:
        """All clusters of a profile that have files, running or not."""
        return (cls(profile_dir, files.cluster_id) for files in ClusterFiles.all_of(profile_dir))

    def __str__(self) -> str:
        return str(self.files)

    def how_to_start(self, n: int | None = None) -> str:
        """What to tell the user of a cluster that does not run. `n`: how many engines are wanted."""
        number = "" if n is None else f" -n {n}"
        question = did_you_mean(self.files.profile_dir)
        return f"start it with `ipcluster start{number}{self.files.options()}`{question and '. '}{question}"

    @property
    def profile(self) -> str:
        """The name of the profile, or its folder."""
        return self.files.profile

    @property
    def cluster_id(self) -> str:
        """Its id; "" for the profile's unnamed cluster."""
        return self.files.cluster_id

    @property
    def connection(self) -> ConnectionInfo | None:
        """What its connection file says; None if there is none."""
        return self.files.connection

    # ------------------------------------------------------------------------------------------ processes

    @property
    def controller(self) -> FoundProcess | None:
        """The controller, if it runs on this host."""
        info = self.connection
        if info is None or is_other_host(info):
            return None
        found = FoundProcess(info.pid, "controller")
        return found if found.running else None

    @property
    def is_elsewhere(self) -> bool:
        """Whether the controller is on another host, so that we cannot see whether it runs."""
        info = self.connection
        return info is not None and self.controller is None and is_other_host(info)

    @property
    def supervisor(self) -> FoundProcess | None:
        """`ipcluster start`, while it runs."""
        try:
            found = FoundProcess(int(read_small(self.files.pid_file)), "ipcluster")
        except (OSError, ValueError):
            return None
        return found if found.running else None

    def open(self, **settings: Any) -> Cluster | None:
        """The cluster, with some settings of `Cluster`; None if it has no cluster file that can be read.

        Raises
        ------
        ConfigError
            A setting is not valid.
        """
        try:
            found = Cluster.from_file(self.files.cluster_file)
        except (FileNotFoundError, ConfigError):
            return None
        return Cluster.from_file(self.files.cluster_file, **settings) if settings else found

    @property
    def processes(self) -> list[Launcher]:
        """Its processes on this host: the controller, then the nannies."""
        cluster = self.open()
        found: list[Launcher] = []
        if cluster is not None:
            found = [process for process in (cluster.controller, *cluster.engines.values()) if process is not None]
        controller = self.controller
        if controller is not None and all(process.pid != controller.pid for process in found):
            found.insert(0, controller)  # it was started by hand: there is no cluster file
        return [process for process in found if process.running]

    @property
    def running(self) -> bool:
        """Whether its controller runs on this host, or is just being started."""
        if self.controller is not None:
            return True
        cluster = self.open()
        return cluster is not None and cluster.controller is not None and cluster.controller.running

    def stop(self) -> None:
        """Stop what runs of it, wait for the end, and remove its files. Nothing happens if nothing runs."""
        supervisor, cluster = self.supervisor, self.open()
        is_job = cluster is not None and isinstance(cluster.controller, BatchJob)
        processes = self.processes
        if supervisor is not None:
            supervisor.signal(signal.SIGTERM)
            supervisor.signal(signal.SIGCONT)  # somebody may have suspended it
            if not supervisor.join(STOP_SECONDS):
                self._kill(supervisor)
        if is_job and any(isinstance(process, BatchJob) and process.running for process in processes):
            ask_to_end(self.files)
        for process in processes:
            process.stop()
            process.join(5)
        self.files.remove()

    def _kill(self, supervisor: FoundProcess) -> None:
        """Kill `ipcluster start`, which does not end; its log then says where it was."""
        supervisor.signal(STACKS_SIGNAL)
        supervisor.join(STACKS_SECONDS)
        supervisor.signal(signal.SIGKILL)
        log.warning(
            "`ipcluster start` (pid %s) had not ended after %g s, and was killed. A fault of engineroom: please report "
            "it, with the end of %s", supervisor.pid, STOP_SECONDS, self.files.log_of("ipcluster"),
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ tasks

    def activity(self, before_stop: bool = False) -> Activity | None:
        """Its engines and its tasks that have not ended; None if the controller does not answer.

        `before_stop`: then `unwritten` can be asked after the stop.
        """
        info = self.connection
        if info is None:
            return None
        answers: list[Activity] = []

        def ask() -> None:
            with contextlib.suppress(EngineroomError, TimeoutError), contextlib.ExitStack() as at_the_end:
                client = at_the_end.enter_context(Client(info, timeout=ANSWER_SECONDS))
                status = client.queue_status()
                waiting = int(status.pop("unassigned"))
                held = sum(each["queue"] + each["tasks"] for each in status.values())
                answers.append(Activity(len(status), held, waiting))
                if before_stop:
                    self._witness = client
                    at_the_end.pop_all()

        # In a thread, so that a controller that hangs can still be stopped.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(ANSWER_SECONDS + 1)
        return answers[0] if answers else None

    def unwritten(self) -> int:
        """How many records of tasks could not be written before the controller ended, as far as it could tell us."""
        client, self._witness = self._witness, None
        if client is None:
            return 0
        failure = client._channel.failure
        client.close()
        return failure.unwritten if isinstance(failure, ControllerLost) else 0
