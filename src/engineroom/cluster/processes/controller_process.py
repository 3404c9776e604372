"""The controller of a cluster, a process or a batch job: started, awaited, started again when killed, stopped."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from ...config import make_profile_dir, read_connection_file
from ...errors import ConfigError, ConnectionFileError, EngineroomError, LaunchError, StoreBusy, TimeoutError
from ...launchers import FoundProcess, Launcher, LocalProcess
from ...launchers.base import last_line
from ...launchers.batch.job import BatchJob
from ...launchers.registry import attach
from ..cluster_files import ClusterFiles, is_dead
from ..commands import STORE_BUSY, Command, guard_command
from .chosen_controller import ChosenController
from .guard import ask_to_end, is_there
from .restarts import RestartLimit, Restarts

log = logging.getLogger(__name__)

#: Seconds between two looks for the connection file.
LOOK_SECONDS, LOOK_SECONDS_ELSEWHERE = 0.005, 0.1
#: A disk with less room is full.
FULL_BYTES = 64 << 10


class ControllerProcess:
    """Starts and stops the controller of one cluster.

    Parameters
    ----------
    files : ClusterFiles
        Where its connection files and its log are.
    restarts : Restarts
        Whether it is started again when it was killed. One on another host is not: it ends with its ssh, in order, or
        with its job.
    chosen : ChosenController
        What starts it.
    """

    def __init__(self, files: ClusterFiles, restarts: Restarts, chosen: ChosenController) -> None:
        #: the process or the job; None before the start and after `stop`
        self.launcher: Launcher | None = None
        self._files = files
        self._chosen = chosen
        #: whether clients could connect
        self._was_ready = False
        #: beside a job that ends with this process
        self._guard: LocalProcess | None = None
        self._restarts = restarts
        self._limit = RestartLimit()

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self.launcher is not None and self.launcher.running

    @property
    def is_job(self) -> bool:
        """Whether it is, or is to be, a job of a batch system."""
        return self._chosen.is_job if self.launcher is None else isinstance(self.launcher, BatchJob)

    def preview(self, command: Callable[[bool], Command]) -> str:
        """What starts it, as text for `--dry-run`; "" on this host."""
        return self._chosen.preview(command(False), self._files)

    def start(self, command: Callable[[bool], Command], *, lifeline: bool) -> None:
        """Start it; `wait_until_ready` waits for it.

        Parameters
        ----------
        command : callable
            The command line. Its argument says whether the connection files of the controller before are reused.
        lifeline : bool
            Whether it ends with this process.

        Raises
        ------
        RuntimeError
            A controller of this cluster runs.
        """
        if self.running:
            raise RuntimeError(
                "the controller of this cluster is running already: connect_client_sync() gives a client, "
                "start_engines_sync(n) more engines"
            )
        self._files.warn_of_new_profile()
        make_profile_dir(self._files.profile_dir)
        self._refuse_if_job_runs()
        path = self._files.connection_files[0]
        if path.exists():
            self._refuse_if_running()
            path.unlink()
        self._launch(command, lifeline=lifeline, reuse=False)

    def _launch(self, command: Callable[[bool], Command], *, lifeline: bool, reuse: bool) -> None:
        launcher = self._chosen.make(command(reuse), self._files, lifeline=lifeline)
        launcher.belongs_to(self._files.profile_dir, self._files.cluster_id)
        if self._chosen.is_elsewhere:
            self.launcher = launcher
            launcher.start()
            if self._chosen.is_job and lifeline:
                self._start_guard()
            self._restarts.allowed = True
            return

        def restart(code: int) -> None:
            """Start a killed controller again: engines and clients reconnect, and go on."""
            with self._restarts.lock:
                is_ours = self.launcher is launcher and self._restarts.allowed
                if not is_ours or code == 0:
                    return
                if not (file := self._files.connection_files[0]).exists():
                    if self._was_ready:  # else whoever waits for it is told
                        log.error("the controller has ended (exit code %d), and is not started again: %s, its "
                                  "connection file, is gone, as if the cluster was stopped", code, file)  # fmt: skip
                    return
                start = functools.partial(self._launch, command, lifeline=lifeline, reuse=True)
                self._restarts.again("the controller", self._limit, start, self._files.log_of("ipcontroller"))

        launcher.on_stop(restart)
        launcher.start()
        self._limit.on_start()
        self.launcher = launcher
        self._restarts.allowed = True

    def _start_guard(self) -> None:
        files = self._files
        made = guard_command(
            profile_dir=files.profile_dir, cluster_id=files.cluster_id, cluster_file=files.cluster_file
        )
        self._guard = LocalProcess(made.args, files.log_of("guard"), environment=made.environment, lifeline=True)
        self._guard.start()

    def _refuse_if_job_runs(self) -> None:
        """Raises RuntimeError if the cluster file names a job that runs or waits: there is no other sign of it."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, EngineroomError):
            described = json.loads(self._files.cluster_file.read_text())["controller"]
            if described.get("job_id") and attach(described).running:
                raise RuntimeError(
                    f"{self._files} is running already: its controller is the {described['class']} job "
                    f"{described['job_id']}. Stop it with `ipcluster stop{self._files.options()}`, or start another "
                    "with another cluster_id="
                )

    def _refuse_if_running(self) -> None:
        with contextlib.suppress(ConnectionFileError):
            info = read_connection_file(self._files.connection_files[0])
            if FoundProcess(info.pid, "controller").running:
                raise RuntimeError(
                    f"{self._files} is running already (controller pid {info.pid}). Connect with "
                    f"engineroom.Client({self._files.client_arguments()}), stop it with "
                    f"`ipcluster stop{self._files.options()}`, or start another with another cluster_id="
                )

    def wait_until_ready(self, timeout: float) -> None:
        """Wait until clients can connect: it has written its connection file.

        Raises
        ------
        ConfigError
            It has not been started, or was stopped.
        StoreBusy
            It ended, because another controller owns the task database.
        EngineroomError
            It ended; the text has the last line of its log.
        TimeoutError
            It has not written the file after `timeout` seconds. The text says why a batch job still waits.
        """
        path = self._files.connection_files[0]
        deadline = time.monotonic() + timeout
        while not is_there(path):
            if not self.running:
                self._raise_why()
            if time.monotonic() > deadline:
                why = self.launcher.explain() if self.launcher is not None else ""
                if why:
                    raise TimeoutError(f"the controller did not run within {timeout:g} s. {why}")
                log_file = self._files.log_of("ipcontroller")
                if isinstance(self.launcher, BatchJob):
                    log_file = self.launcher.log_file.with_name(self.launcher.log_file.stem + "*.log")
                raise TimeoutError(
                    f"the controller wrote no connection file {path} within {timeout:g} s. Look into its log {log_file}"
                )
            time.sleep(LOOK_SECONDS_ELSEWHERE if self._chosen.is_elsewhere else LOOK_SECONDS)
        self._was_ready = True

    def _raise_why(self) -> None:
        launcher = self.launcher
        if launcher is None:
            raise ConfigError(
                f"there is nothing to connect to: {self._files} is not running. start_cluster_sync() starts it; "
                "Cluster.from_file() finds one that another process has started"
            )
        last = last_line(launcher.get_output())
        words = f"Its log ends: {last}" if last else "Its log is empty."
        if not last and isinstance(launcher, LocalProcess):
            words = f"It ended with exit code {launcher.exit_code}, and its log {launcher.log_file} is empty"
            words += ": the disk is full." if _is_full(launcher.log_file.parent) else "."
        if isinstance(launcher, LocalProcess) and launcher.exit_code == STORE_BUSY:
            hint = "From Python: Cluster(profile=…), or Cluster(database='memory')."
            raise StoreBusy(f"the controller did not start. {words} {hint}")
        if isinstance(launcher, BatchJob):
            raise LaunchError(f"the controller did not start. {launcher.explain()}")
        raise EngineroomError(f"the controller did not start. {words}")

    def stop(self) -> None:
        """Stop it, and remove its connection files. Nothing happens if it does not run."""
        if self.launcher is not None:
            if isinstance(self.launcher, BatchJob) and self.launcher.running:
                ask_to_end(self._files)
            self.launcher.stop()
            self.launcher = None
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.stop()
        files = self._files  # one that was killed has left them all, and its socket
        if (socket := files.socket) is not None and is_dead(socket):
            socket.unlink(missing_ok=True)
        for path in (*files.connection_files, *files.lesser.values(), files.secret_file, files.roster_file):
            path.unlink(missing_ok=True)


def _is_full(folder: Path) -> bool:
    """Whether the disk of a folder has no room for a few lines of text."""
    try:
        return shutil.disk_usage(folder).free < FULL_BYTES
    except OSError:
        return False
