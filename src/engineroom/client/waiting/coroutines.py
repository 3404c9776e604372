"""How a coroutine waits for tasks, without blocking its event loop. No thread waits meanwhile.

Importing this imports asyncio, which takes a while: only those who await need it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from ...config import check_switches
from .waits import Need, limit_of

T = TypeVar("T")


class Ending(Protocol):
    """What can be waited for, and ended."""

    def cancel(self) -> Any:
        """End its tasks, also those that are running."""


async def until(ready: Callable[[], bool], sources: Iterable[Any], limit: float | None = None) -> bool:
    """Wait until `ready()`, which may become true when one of the futures `sources` changes.

    Parameters
    ----------
    limit : float, optional
        Seconds.

    Returns
    -------
    bool
        `ready()`
    """
    try:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
    except RuntimeError:
        raise RuntimeError(
            "no event loop of asyncio runs here, and results are awaited in one. In trio: "
            "`await trio.to_thread.run_sync(result.get)`"
        ) from None

    def listener() -> None:
        if ready():
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(changed.set)

    with _listening(list(sources), listener), contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(limit):
            while not ready():
                await changed.wait()
                changed.clear()
    return ready()


@contextlib.contextmanager
def _listening(sources: list[Any], listener: Callable[[], None]) -> Iterator[None]:
    """Have a listener called, in any thread, when one of the futures changes."""

    def on_done(future: Future[Any]) -> None:
        listener()

    for source in sources:
        if hasattr(source, "_listen"):
            source._listen(listener)
        else:  # a Future of another library tells only when it is done
            source.add_done_callback(on_done)
    try:
        yield
    finally:
        for source in sources:
            if hasattr(source, "_unlisten"):
                source._unlisten(listener)


async def until_met(need: Need) -> None:
    """Wait until a generator of values can go on."""
    await until(need.ready, need.sources)


async def until_all_done(futures: Iterable[Any], timeout: float | None) -> bool:
    """Wait until all futures are done, for `timeout` seconds (None or negative: no limit). Returns whether all are."""
    pending = [future for future in futures if not future.done()]
    return await until(lambda: all(future.done() for future in pending), pending, limit_of(timeout))


async def in_thread_or_undone(function: Callable[[], T], undo: Callable[[T], Any]) -> T:
    """Call a function in a thread. If the coroutine is cancelled, `undo` is called with the function's value.

    A function that fails has undone its own work. A second cancellation ends the wait for `undo`, not `undo` itself.
    """
    call = asyncio.ensure_future(asyncio.to_thread(function))

    async def undone() -> None:
        await asyncio.wait([call])
        if call.exception() is None:
            await asyncio.to_thread(undo, call.result())

    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.shield(undone())
        raise


@contextlib.contextmanager
def ending_when_cancelled(what: Iterable[Ending], wanted: bool) -> Iterator[None]:
    """With `wanted` (users' `cancel`), end tasks if the coroutine is cancelled while it waits for them."""
    check_switches(cancel=wanted)
    try:
        yield
    except asyncio.CancelledError:
        if wanted:
            for one in what:
                one.cancel()
        raise
