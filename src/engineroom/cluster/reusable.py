"""An executor for the whole process, over a cluster that is started when it is first asked for: loky's habit.

The cluster stays until the executor is shut down, or the process ends.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from ..client.views.executor import ViewExecutor
from ..config import check_switches
from ..errors import ConfigError, EngineroomError
from .cluster import Cluster
from .commands import engines_to_start


class ReusableExecutor(ViewExecutor):
    """An executor that owns its cluster. Make it with `get_reusable_executor`.

    Attributes
    ----------
    client : Client
    """

    def __init__(self, cluster: Cluster, options: dict[str, Any], **initializer: Any) -> None:
        self._cluster, self._options, self._pid = cluster, options, os.getpid()
        self.client = cluster.start_and_connect_sync()
        super().__init__(self.client.load_balanced_view(), **initializer)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False) -> None:
        """Refuse further calls, and stop the cluster. The next `get_reusable_executor` starts another one.

        Parameters
        ----------
        wait : bool
            First wait for the tasks. Without it they are aborted with the cluster.
        cancel_futures : bool
            End the tasks that have not started.
        kill_workers : bool
            Cancel the tasks, also those that are running.
        """
        check_switches(wait=wait, cancel_futures=cancel_futures, kill_workers=kill_workers)
        if self._pid != os.getpid():
            return
        is_first = not self._closed.is_set()
        if kill_workers and is_first and not self.client.closed:
            self.client.cancel()
        with contextlib.suppress(EngineroomError):  # the controller is gone: there is nothing to wait for
            super().shutdown(wait and is_first and not self.client.closed, cancel_futures=cancel_futures and is_first)
        self._cluster.stop_cluster_sync()

    def _is_usable(self) -> bool:
        ended = self._closed.is_set() or self.client.closed or self._broken is not None
        return not ended and self._pid == os.getpid()

    def _resize(self, wanted: int) -> None:
        """Have so many engines. Idle ones leave first."""
        self._cluster.scale_sync(wanted)
        self._cluster.n = wanted
        self.client.wait_for_engines(wanted, timeout=self._cluster.engine_timeout)


_lock = threading.Lock()
_current: ReusableExecutor | None = None


def get_reusable_executor(
    max_workers: int | None = None,
    *,
    reuse: bool | str = "auto",
    kill_workers: bool = False,
    initializer: Callable[..., Any] | None = None,
    initargs: tuple[Any, ...] = (),
    **cluster_options: Any,
) -> ReusableExecutor:
    """The executor of this process. The first call starts a cluster; later calls give the same executor.

    An executor that was shut down, or whose controller has died, is replaced by a new one.

    Parameters
    ----------
    max_workers : int, optional
        Number of engines; default: as many as there are, at first one for each usable core. Another number than before
        starts more engines, or stops some.
    reuse : {"auto", True, False}
        Whether to reuse the executor if other arguments have changed: "auto": no, start another; True: yes, as it is;
        False: always start another.
    kill_workers : bool
        If another is started: cancel the tasks of the former one instead of waiting for them.
    initializer, initargs
        See `ViewExecutor`.
    cluster_options
        Of `Cluster`: `database="none"`, `profile="…"`.

    Raises
    ------
    ConfigError
        `max_workers` is no number of engines.

    Examples
    --------
    >>> executor = er.get_reusable_executor(4)                       # doctest: +SKIP
    >>> executor.submit(pow, 2, 5).result()                          # doctest: +SKIP
    32
    """
    check_switches(kill_workers=kill_workers)
    global _current
    is_number = isinstance(max_workers, int) and not isinstance(max_workers, bool)
    if max_workers is not None and not (is_number and max_workers >= 1):
        raise ConfigError(f"max_workers is a number of engines, 1 or more; got {max_workers!r}")
    if not isinstance(initargs, Iterable):
        raise ConfigError(f"initargs is a tuple of the initializer's arguments; got {initargs!r}")
    if reuse not in ("auto", True, False):
        raise ConfigError(f"reuse is 'auto', True or False; got {reuse!r}")
    options = {"initializer": initializer, "initargs": tuple(initargs), **cluster_options}
    with _lock:
        former = _current
        if former is not None and former._is_usable() and reuse and (reuse is True or former._options == options):
            if max_workers is not None and max_workers != len(former.client.ids):
                former._resize(max_workers)
            return former
        _current = None
        if former is not None:
            former.shutdown(kill_workers=kill_workers)
        cluster = Cluster(n=engines_to_start(max_workers), **cluster_options)
        _current = ReusableExecutor(cluster, options, initializer=initializer, initargs=initargs)
        return _current
