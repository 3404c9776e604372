"""What a running task can ask its engine: facts about itself, and a time limit for a part of its work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from ..config import ConnectionInfo
from ..ids import EngineId, TaskId


class CurrentTask(msgspec.Struct, frozen=True, kw_only=True):
    """The running task, as `current_task` returns it."""

    msg_id: TaskId
    #: 1 for the first
    attempt: int
    engine_id: EngineId
    label: str | None
    metadata: dict[str, Any] | None
    #: the indexes of each named resource that are reserved for this task: {"gpu": [2]}
    resources: dict[str, list[int]]
    #: seconds this attempt may run; None: no limit
    run_timeout: float | None


_task: Callable[[], CurrentTask | None] | None = None
_limit: Callable[[float, str, str], AbstractContextManager[None]] | None = None
_wait: Callable[[Callable[[], bool], float | None, Callable[[], str]], bool] | None = None
#: how to reach the engine's controller; None: this process is no engine
connection: ConnectionInfo | None = None


def bind(
    task: Callable[[], CurrentTask | None],
    limit: Callable[[float, str, str], AbstractContextManager[None]],
    wait: Callable[[Callable[[], bool], float | None, Callable[[], str]], bool],
) -> None:
    """Set the functions behind `current_task`, `time_limit` and `wait`. The engine calls this."""
    global _task, _limit, _wait
    _task, _limit, _wait = task, limit, wait


def current_task() -> CurrentTask | None:
    """The running task: its `msg_id`, `attempt`, `engine_id`, `label`, `metadata`, `resources` and `run_timeout`.

    None outside a task.
    """
    return None if _task is None else _task()


def time_limit(seconds: float, ename: str, text: str) -> AbstractContextManager[None]:
    """Interrupt the block after some seconds, and end its task with an error of this name and text.

    Outside a task, and in threads that a task has started, there is no limit.
    """
    return contextlib.nullcontext() if _limit is None else _limit(seconds, ename, text)


def may_wait() -> bool:
    """Whether `wait` may wait at all: this process is an engine."""
    return _wait is not None


def wait(ready: Callable[[], bool], seconds: float | None, url: Callable[[], str]) -> bool:
    """Wait until `ready()`, for some seconds at most, and let the engine run other tasks meanwhile.

    Parameters
    ----------
    url : callable
        Returns the url of the cluster that is waited for.

    Returns
    -------
    bool
        False: it has not waited. This is no task; or it is one of another cluster, or a thread that a task started.

    Raises
    ------
    WaitError
        Too many tasks of this engine wait, one inside the other.
    """
    return _wait is not None and _wait(ready, seconds, url)
