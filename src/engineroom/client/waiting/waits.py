"""How this process waits for tasks. All waits for results come through here.

- Ctrl-C in a wait says what goes on, and how to end it.
- A wait inside a task of the same cluster gives the engine back meanwhile (`on_engine/task_context.py`).
- A wait in the client's own I/O thread could never end: it is an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, Future
from concurrent.futures import wait as wait_futures
from typing import Any, NamedTuple, Protocol

from ...config import ConnectionInfo
from ...errors import WaitError
from ...ids import TaskId
from ...on_engine import task_context
from ..connection.waiters import delivering


class WaitPort(Protocol):
    """The client, as waits see it."""

    @property
    def info(self) -> ConnectionInfo:
        """The connection file's content: which cluster this is."""

    def outstanding(self) -> int:
        """How many tasks of this client have no outcome yet."""

    def interrupted(self, ids: Collection[TaskId]) -> str:
        """Ctrl-C came in a wait for these tasks. Returns "cancel" or "abort" if that has been done, else "leave"."""

    def drive(self, ready: Callable[[], bool], limit: float | None) -> bool:
        """Take in results in this thread, until `ready()` or for `limit` seconds. False: the caller has to wait."""


class Need(NamedTuple):
    """What a generator of values has to wait for. It yields this, and is to go on once `ready()` is true.

    So a thread and a coroutine can wait for the same generator, each in its way.
    """

    ready: Callable[[], bool]
    #: `ready()` may become true when one of these changes
    sources: Sequence[Any]


def wait_until_met(need: Need, limit: float | None, port: WaitPort) -> bool:
    """Wait, in this thread, for `limit` seconds at most; returns `need.ready()`."""
    first = need.sources[0]
    if len(need.sources) == 1 and need.ready == first.done:
        first._wait_until_done(limit)
    elif len(need.sources) == 1:
        wait_until(first._condition, need.ready, limit, port, getattr(first, "_ids", ()))
    else:
        wait_for_futures(need.sources, limit, FIRST_COMPLETED, port)
    return need.ready()


def wait_until(
    condition: threading.Condition,
    ready: Callable[[], bool],
    limit: float | None,
    port: WaitPort,
    ids: Collection[TaskId] = (),
) -> bool:
    """Wait until `ready()`, which may become true when `condition` is notified; at most `limit` seconds.

    The caller does not hold the condition. Returns `ready()`. `ids` are the tasks that are waited for.
    """
    _refuse_in_delivery()
    try:
        if task_context.wait(ready, limit, lambda: port.info.url):
            return ready()
        with condition:
            return condition.wait_for(ready, limit)
    except KeyboardInterrupt as error:
        _interrupted(error, port, ids)
        raise


def limit_of(timeout: float | None) -> float | None:
    """The limit of a wait in seconds; None: there is none, as for a negative timeout or one of centuries.

    Raises
    ------
    TypeError, ValueError
        `timeout` is no number.
    """
    if timeout is not None and not hasattr(timeout, "__float__"):
        raise TypeError(f"timeout is a number of seconds, or None; got {timeout!r}")
    if timeout != timeout:
        raise ValueError("timeout is a number of seconds, or None; got nan")
    return None if timeout is None or timeout < 0 or timeout > threading.TIMEOUT_MAX else timeout


def check_return_when(return_when: str | None) -> None:
    """Raise ValueError if this does not say when a wait ends."""
    if return_when not in (None, FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED):
        raise ValueError(f"return_when is FIRST_COMPLETED, FIRST_EXCEPTION or ALL_COMPLETED; got {return_when!r}")


def wait_for_result(
    condition: Callable[[], threading.Condition],
    ready: Callable[[], bool],
    limit: float | None,
    port: WaitPort,
    ids: Collection[TaskId] = (),
) -> bool:
    """The same for what becomes ready with an outcome, and with nothing else: this thread may take it in by itself.

    `condition` makes the condition, if it is needed.
    """
    _refuse_in_delivery()
    try:
        if task_context.wait(ready, limit, lambda: port.info.url):
            return ready()
        deadline = None if limit is None else time.monotonic() + limit
        if port.drive(ready, limit):
            return ready()
        with (made := condition()):
            return made.wait_for(ready, None if deadline is None else deadline - time.monotonic())
    except KeyboardInterrupt as error:
        _interrupted(error, port, ids)
        raise


def wait_for_futures(
    futures: Collection[Future[Any]], limit: float | None, return_when: str, port: WaitPort
) -> tuple[set[Any], set[Any]]:
    """`concurrent.futures.wait`: returns the sets (done, pending)."""

    def ready() -> bool:
        if return_when == FIRST_COMPLETED and any_done(futures):
            return True
        if return_when not in (FIRST_COMPLETED, ALL_COMPLETED) and any(map(_has_failed, futures)):
            return True
        return all(future.done() for future in futures)

    _refuse_in_delivery()
    try:
        waited = task_context.wait(ready, limit, lambda: port.info.url)
        done, pending = wait_futures(futures, 0 if waited else limit, return_when)
        return done, pending
    except KeyboardInterrupt as error:
        _interrupted(error, port, [id for future in futures for id in getattr(future, "_ids", ())])
        raise


def any_done(futures: Collection[Future[Any]]) -> bool:
    """Whether one of them is done."""
    return any(future.done() for future in futures)


def _has_failed(future: Future[Any]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)


def _refuse_in_delivery() -> None:
    """Raise WaitError in a thread in which a wait would never end."""
    if threading.get_ident() in delivering:
        raise WaitError(
            "this waits for tasks in the thread through which their results come, so it would never end. It runs code "
            "of yours when published data are unpickled, or an object is deleted: do not wait for tasks there"
        )


def _interrupted(error: KeyboardInterrupt, port: WaitPort, ids: Collection[TaskId]) -> None:
    """Ctrl-C in a wait for these tasks: end them, if the client is to do that; else say how to end them."""
    if type(error) is KeyboardInterrupt:
        count = port.outstanding()
        say_what_goes_on(error, count, port.interrupted(ids))


def say_what_goes_on(error: KeyboardInterrupt, count: int, done: str = "leave") -> None:
    """Add a note to a KeyboardInterrupt that came in a wait: how many tasks go on, and how to end them.

    The interrupt may leave a `with er.Cluster()`, which then stops the cluster: so "while the cluster runs".

    Parameters
    ----------
    done : {"leave", "abort", "cancel"}
        What has been done to the tasks that were waited for.
    """
    if not count or getattr(error, "__notes__", None):
        return
    if done != "leave":
        ended = "cancelled" if done == "cancel" else "aborted, but for those that have started"
        error.add_note(f"The tasks that this waited for are being {ended}: rc.on_interrupt is {done!r}.")
        return
    tasks = "1 task of this client goes on" if count == 1 else f"{count} tasks of this client go on"
    error.add_note(
        f"{tasks} while the cluster runs. rc.cancel() ends all, rc.abort() those that have not started; "
        "get() and wait() wait again. rc.on_interrupt = 'cancel' ends what is waited for at each interrupt."
    )
