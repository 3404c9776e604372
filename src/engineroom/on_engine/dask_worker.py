"""A dask worker in an engine's process: started and stopped by tasks, in a thread of its own.

The engine stays an engine: it runs tasks as before, beside what dask has the worker do. `distributed` is imported here
when the worker starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from concurrent.futures import Future
from typing import Any

#: Seconds that a worker has to connect to the scheduler, and to leave it.
PATIENCE = 30.0


class _Worker:
    """The worker of this process, and the thread with its event loop."""

    def __init__(self, address: str, name: str, nanny: bool, options: dict[str, Any]) -> None:
        self.address = address
        self.ready: Future[str] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Any = None
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(name, nanny, options)), name="engineroom-dask-worker", daemon=True
        )
        self._thread.start()

    async def _run(self, name: str, nanny: bool, options: dict[str, Any]) -> None:
        try:
            import distributed

            make = distributed.Nanny if nanny else distributed.Worker
            self._loop = asyncio.get_running_loop()
            self._server = await make(self.address, name=name, **options)
            self.ready.set_result(str(self._server.address))
        except BaseException as error:
            self.ready.set_exception(error)
            return
        await self._server.finished()

    def stop(self) -> None:
        """Leave the scheduler, and end the thread."""
        if self._loop is not None and self._server is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the scheduler has gone, and the worker with it
                asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(PATIENCE)
        self._thread.join(PATIENCE)


_worker: _Worker | None = None
_pid = os.getpid()


def start(address: str, name: str, nanny: bool, options: dict[str, Any]) -> str:
    """Start a worker of the scheduler at this address; returns the worker's own address.

    Raises
    ------
    RuntimeError
        This process has a worker of another scheduler.
    """
    global _worker, _pid
    if _pid != os.getpid():  # forked: the thread has stayed with the parent
        _worker, _pid = None, os.getpid()
    if _worker is not None and _worker.address != address:
        raise RuntimeError(f"this engine is a worker of the dask scheduler at {_worker.address}: stop_dask() first")
    if _worker is None:
        worker = _Worker(address, name, nanny, options)
        worker.ready.result(PATIENCE)
        _worker = worker
    return _worker.ready.result()


def stop() -> bool:
    """Stop the worker of this process; returns whether there was one."""
    global _worker
    worker, _worker = _worker, None
    if worker is None or _pid != os.getpid():
        return False
    worker.stop()
    return True
