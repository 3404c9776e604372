"""The methods of a cluster that block, awaitable: each runs in a thread. `Cluster` has the methods themselves.

If the coroutine is cancelled, what it has started is stopped again. What stops, restarts or signals goes on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from ..client import Client

T = TypeVar("T")


class AwaitableCluster:
    """What `Cluster` inherits: for each method `x_sync` a coroutine `x`."""

    start_cluster_sync: Callable[..., Any]
    start_controller_sync: Callable[..., Any]
    start_engines_sync: Callable[..., Any]
    scale_sync: Callable[..., Any]
    start_and_connect_sync: Callable[..., Any]
    connect_client_sync: Callable[..., Any]
    stop_cluster_sync: Callable[..., Any]
    stop_controller_sync: Callable[..., Any]
    stop_engines_sync: Callable[..., Any]
    restart_engines_sync: Callable[..., Any]
    signal_engines_sync: Callable[..., Any]
    stop_engine_sync: Callable[..., Any]
    restart_engine_sync: Callable[..., Any]
    signal_engine_sync: Callable[..., Any]
    _undo_of_start: Callable[[], Callable[[], None]]

    async def start_cluster(self, n: int | None = None) -> Self:
        """See `start_cluster_sync`. If the coroutine is cancelled, the cluster is stopped again."""
        return await self._started(self.start_cluster_sync, n)

    async def start_controller(self) -> None:
        """See `start_controller_sync`. If the coroutine is cancelled, the controller is stopped again."""
        await self._started(self.start_controller_sync)

    async def start_engines(
        self, n: int | None = None, engine_set_id: str | None = None, resources: Mapping[str, int] | None = None
    ) -> str:
        """See `start_engines_sync`. If the coroutine is cancelled, the engines are stopped again."""
        start = functools.partial(self.start_engines_sync, n, engine_set_id, resources)
        return await undone_if_cancelled(start, self.stop_engines_sync)

    async def scale(self, n: int) -> str | None:
        """See `Cluster.scale_sync`. If the coroutine is cancelled, engines that were started are stopped again."""

        def undo(started: str | None) -> None:
            if started is not None:
                self.stop_engines_sync(started)

        return await undone_if_cancelled(functools.partial(self.scale_sync, n), undo)

    async def start_and_connect(self, n: int | None = None, activate: bool = False) -> Client:
        """See `start_and_connect_sync`. If the coroutine is cancelled, the cluster is stopped again."""
        return await self._started(self.start_and_connect_sync, n, activate)

    async def connect_client(self, **kwargs: Any) -> Client:
        """See `connect_client_sync`. If the coroutine is cancelled, the client is closed again."""
        connect: Callable[[], Client] = functools.partial(self.connect_client_sync, **kwargs)
        return await undone_if_cancelled(connect, lambda client: client.close())

    async def stop_cluster(self) -> None:
        """See `stop_cluster_sync`."""
        await in_thread(self.stop_cluster_sync)

    async def stop_controller(self) -> None:
        """See `stop_controller_sync`."""
        await in_thread(self.stop_controller_sync)

    async def stop_engines(self, engine_set_id: str | None = None) -> None:
        """See `stop_engines_sync`."""
        await in_thread(self.stop_engines_sync, engine_set_id)

    async def restart_engines(self, engine_set_id: str | None = None) -> None:
        """See `restart_engines_sync`."""
        await in_thread(self.restart_engines_sync, engine_set_id)

    async def signal_engines(self, signum: int, engine_set_id: str | None = None) -> None:
        """See `signal_engines_sync`."""
        await in_thread(self.signal_engines_sync, signum, engine_set_id)

    async def stop_engine(self, engine_id: int, timeout: float | None = None) -> None:
        """See `stop_engine_sync`."""
        await in_thread(self.stop_engine_sync, engine_id, timeout)

    async def restart_engine(self, engine_id: int, timeout: float | None = None) -> None:
        """See `restart_engine_sync`."""
        await in_thread(self.restart_engine_sync, engine_id, timeout)

    async def signal_engine(self, signum: int, engine_id: int) -> None:
        """See `signal_engine_sync`."""
        await in_thread(self.signal_engine_sync, signum, engine_id)

    async def _started(self, start: Callable[..., T], *args: Any) -> T:
        """Call what starts the cluster, in a thread. If the coroutine is cancelled, the start is undone."""
        undo = self._undo_of_start()
        return await undone_if_cancelled(functools.partial(start, *args), lambda _: undo())


async def undone_if_cancelled(function: Callable[[], T], undo: Callable[[T], Any]) -> T:
    """See `in_thread_or_undone`, which is slow to import."""
    from ..client.waiting.coroutines import in_thread_or_undone

    return await in_thread_or_undone(function, undo)


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """The async spelling of a call that blocks."""
    import asyncio  # slow to import, and only those who await need it

    return await asyncio.to_thread(function, *args)
