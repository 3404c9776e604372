"""What a `Client` does for other libraries: executors of `concurrent.futures`, workers for dask, pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .port import ClientPort
from .views.executor import ViewExecutor


class InteropMethods:
    """Methods of `Client`."""

    load_balanced_view: Callable[..., Any]
    direct_view: Callable[..., Any]
    #: the dask scheduler in this process; None: there is none
    _dask: Any = None
    _port: ClientPort

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a Client is a connection of one process: it cannot be pickled or copied. Another process, or a task, "
            "makes one of its own: Client(rc.connection), or Client() on the cluster's host"
        )

    def executor(
        self,
        targets: Any = None,
        *,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        **flags: Any,
    ) -> ViewExecutor:
        """A `concurrent.futures.Executor` over a load-balanced view with these flags: `rc.executor(retries=1)`.

        `initializer`, `initargs`: see `ViewExecutor`.
        """
        view = self.load_balanced_view(targets, **flags)
        return ViewExecutor(view, initializer=initializer, initargs=initargs)

    def become_dask(
        self,
        targets: Any = "all",
        port: int = 0,
        nanny: bool = False,
        scheduler_args: Mapping[str, Any] | None = None,
        **worker_args: Any,
    ) -> Any:
        """Make engines workers of dask, beside what they do; returns a client of dask.

        The scheduler runs in this process. Its connections are dask's own: they are not encrypted. Called again, it
        adds engines.

        Parameters
        ----------
        targets : optional
            The engines; default: all.
        port : int
            Where the scheduler listens; 0: any free port.
        nanny : bool
            Whether each engine starts a nanny with a worker process of its own, instead of a thread.
        scheduler_args : dict, optional
            Arguments of `distributed.LocalCluster`.
        worker_args
            Arguments of `distributed.Worker`; default: `nthreads=1`.

        Returns
        -------
        distributed.Client

        Raises
        ------
        ImportError
            distributed is not installed, here or on an engine.
        NoEnginesRegistered
            There are no engines.
        """
        from .interop import dask_cluster  # it imports asyncio, which takes a while

        dask_cluster.check(nanny, port, scheduler_args)
        views = list(self._each_of(targets))
        if self._dask is None:
            local = all(view.engines_are_here for _, view in views)
            self._dask = dask_cluster.DaskCluster(local, port, scheduler_args or {})
        try:
            for number, view in views:
                self._dask.add(number, view, nanny, worker_args)
        except BaseException:
            self.stop_dask()
            raise
        return self._dask.client

    def stop_dask(self, targets: Any = "all") -> None:
        """Engines are no workers of dask any more. With "all", stop the scheduler, too."""
        if self._dask is None:
            return
        try:
            for _, view in self._each_of(targets):
                self._dask.remove(view)
        finally:
            if isinstance(targets, str) and targets == "all":
                dask, self._dask = self._dask, None
                dask.close()

    become_distributed = become_dask
    stop_distributed = stop_dask

    def _each_of(self, targets: Any) -> list[tuple[int, Any]]:
        """Each engine's number and view."""
        engines = self._port.engines
        engines.require()
        return [(number, self.direct_view(number)) for number in engines.resolve(targets)]
