"""The dashboard of a cluster, as a process of its own: started with the cluster, and stopped with it."""

from __future__ import annotations

import importlib.util
import time

from ...config import dashboard_url
from ...errors import ConfigError
from ...launchers import LocalProcess
from ..cluster_files import ClusterFiles
from ..commands import dashboard_command

#: Seconds that a dashboard may take to start.
START_SECONDS = 30.0


def missing_parts() -> list[str]:
    """The libraries that a dashboard needs first and that are not installed."""
    return [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]


class DashboardProcess:
    """Starts and stops the dashboard of one cluster.

    Parameters
    ----------
    wanted : bool
        Whether the cluster has one.

    Raises
    ------
    ConfigError
        It is wanted, and what it needs is not installed.
    """

    def __init__(self, wanted: bool, files: ClusterFiles) -> None:
        if wanted and missing_parts():
            raise ConfigError("dashboard=True needs starlette and uvicorn: pip install 'engineroom[dashboard]'")
        self._wanted, self._files = wanted, files
        self._process: LocalProcess | None = None

    def start(self) -> None:
        """Start it, if it is wanted. It ends with the cluster, also if this process is killed."""
        if not self._wanted or (self._process is not None and self._process.running):
            return
        command = dashboard_command(profile_dir=self._files.profile_dir, cluster_id=self._files.cluster_id)
        self._process = LocalProcess(
            command.args, self._files.log_of("dashboard"), environment=command.environment
        )
        self._process.start()

    def stop(self) -> None:
        """Stop it. Nothing happens if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    @property
    def url(self) -> str | None:
        """Its link, once it has started; None: the cluster has no dashboard that runs."""
        deadline = time.monotonic() + START_SECONDS
        process = self._process
        while (found := dashboard_url(self._files.profile_dir, self._files.cluster_id)) is None:
            if process is None or not process.running or time.monotonic() > deadline:
                return None
            time.sleep(0.02)
        return found
