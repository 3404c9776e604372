"""The controller of a cluster, as a process: started, awaited, started again when it was killed, stopped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from ...config import make_profile_dir, read_connection_file
from ...errors import ConfigError, ConnectionFileError, EngineroomError, StoreBusy, TimeoutError
from ...launchers import FoundProcess, Launcher, LocalProcess
from ...launchers.ssh_controller import SSHController
from ..cluster_files import ClusterFiles
from ..commands import STORE_BUSY, Command
from .restarts import RestartLimit, Restarts


class ControllerProcess:
    """Starts and stops the controller of one cluster.

    Parameters
    ----------
    files : ClusterFiles
        Where its connection files and its log are.
    restarts : Restarts
        Whether it is started again when it was killed. One on another host is not: it ends with its ssh, in order.
    host : str
        The host on which it runs, as ssh knows it; "": this one.
    """

    def __init__(self, files: ClusterFiles, restarts: Restarts, host: str = "") -> None:
        #: the process; None before the start and after `stop`
        self.launcher: Launcher | None = None
        self._files = files
        self._host = host
        self._restarts = restarts
        self._limit = RestartLimit()

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self.launcher is not None and self.launcher.running

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
            raise RuntimeError("the controller of this cluster is running already")
        make_profile_dir(self._files.profile_dir)
        path = self._files.connection_files[0]
        if path.exists():
            self._refuse_if_running()
            path.unlink()
        self._launch(command, lifeline=lifeline, reuse=False)

    def _launch(self, command: Callable[[bool], Command], *, lifeline: bool, reuse: bool) -> None:
        made = command(reuse)
        if self._host:
            log_file = self._files.log_of("ipcontroller")
            self.launcher = there = SSHController(self._host, made.args, log_file, environment=made.environment)
            there.belongs_to(self._files.profile_dir, self._files.cluster_id)
            there.start()
            self._restarts.allowed = True
            return
        launcher = LocalProcess(
            made.args, self._files.log_of("ipcontroller"), environment=made.environment, lifeline=lifeline
        )

        def restart(code: int) -> None:
            """Start a killed controller again: engines and clients reconnect, and go on."""
            with self._restarts.lock:
                is_ours = self.launcher is launcher and self._restarts.allowed
                if not is_ours or code == 0 or not self._files.connection_files[0].exists():
                    return
                if self._limit.on_end():
                    with contextlib.suppress(Exception):
                        self._launch(command, lifeline=lifeline, reuse=True)
                        self._restarts.done()

        launcher.belongs_to(self._files.profile_dir, self._files.cluster_id)
        launcher.on_stop(restart)
        launcher.start()
        self._limit.on_start()
        self.launcher = launcher
        self._restarts.allowed = True

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
            It has not written the file after `timeout` seconds.
        """
        path = self._files.connection_files[0]
        deadline = time.monotonic() + timeout
        while not path.exists():
            if not self.running:
                self._raise_why()
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"the controller wrote no connection file {path} within {timeout:g} s. Look into its log "
                    f"{self._files.log_of('ipcontroller')}"
                )
            time.sleep(0.005)

    def _raise_why(self) -> None:
        launcher = self.launcher
        if launcher is None:
            raise ConfigError(
                f"there is nothing to connect to: {self._files} is not running. start_cluster_sync() starts it; "
                "Cluster.from_file() finds one that another process has started"
            )
        lines = [] if launcher is None else [line for line in launcher.get_output().splitlines() if line.strip()]
        words = f"Its log ends: {lines[-1].strip()}" if lines else "Its log is empty."
        if isinstance(launcher, LocalProcess) and launcher.exit_code == STORE_BUSY:
            hint = "From Python: Cluster(profile=…), or Cluster(database='memory')."
            raise StoreBusy(f"the controller did not start. {words} {hint}")
        raise EngineroomError(f"the controller did not start. {words}")

    def stop(self) -> None:
        """Stop it, and remove its connection files. Nothing happens if it does not run."""
        if self.launcher is not None:
            self.launcher.stop()
            self.launcher = None
        for path in (*self._files.connection_files, *self._files.lesser.values()):
            path.unlink(missing_ok=True)
