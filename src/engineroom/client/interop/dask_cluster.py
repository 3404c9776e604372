"""The engines of a cluster as workers of dask. The scheduler runs in this process, the workers in those of the engines.

dask's connections are its own, and not encrypted. They stay on this host if all engines are here.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Any, Protocol

from ...errors import ConfigError
from ...on_engine import dask_worker


class Engines(Protocol):
    """A direct view, as dask uses it."""

    @property
    def engines_are_here(self) -> bool:
        """Whether all engines are on this host."""

    def apply_sync(self, f: Any, /, *args: Any) -> Any:
        """Call a function on each engine."""


class DaskCluster:
    """A scheduler of dask in this process, and its client.

    Parameters
    ----------
    local : bool
        Whether all workers will be on this host.
    port : int
        Where the scheduler listens; 0: any free port.
    scheduler_args : mapping
        Arguments of `distributed.LocalCluster`.
    """

    def __init__(self, local: bool, port: int, scheduler_args: Mapping[str, Any]) -> None:
        import distributed

        given = {
            "n_workers": 0,
            "processes": False,
            "dashboard_address": None,
            "host": "127.0.0.1" if local else socket.gethostname(),
            "protocol": "tcp://",
            "scheduler_port": port,
            **scheduler_args,
        }
        self._cluster = distributed.LocalCluster(**given)
        try:
            self.client = distributed.Client(self._cluster)
        except BaseException:
            self._cluster.close()
            raise

    @property
    def address(self) -> str:
        """Where workers find the scheduler."""
        return str(self._cluster.scheduler_address)

    def add(self, number: int, engine: Engines, nanny: bool, options: Mapping[str, Any]) -> None:
        """Make an engine a worker, if it is none."""
        engine.apply_sync(dask_worker.start, self.address, f"engine-{number}", nanny, {"nthreads": 1, **options})

    def remove(self, engine: Engines) -> None:
        """Have an engine be no worker any more."""
        engine.apply_sync(dask_worker.stop)

    def close(self) -> None:
        """Stop the scheduler. Its workers leave."""
        with contextlib.suppress(TimeoutError, OSError):
            self.client.close()
        self._cluster.close()


def check(nanny: Any, port: Any, scheduler_args: Any) -> None:
    """Raise an error that says what to do, if dask is not there or an argument is wrong.

    Raises
    ------
    ConfigError, ImportError
    """
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port < 65536:
        raise ConfigError(f"port is a number from 0 (any free port) to 65535; got {port!r}")
    if not isinstance(nanny, bool):
        raise ConfigError(f"nanny is True or False; got {nanny!r}")
    if scheduler_args is not None and not isinstance(scheduler_args, Mapping):
        raise ConfigError(f"scheduler_args is a dict or None; got {scheduler_args!r}")
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise ImportError("become_dask needs dask's distributed: pip install distributed") from None
