"""The task that is running: what it may know about itself, and limits on its time. The engine provides both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from ..ids import EngineId, TaskId


class CurrentTask(msgspec.Struct, frozen=True, kw_only=True):
    """What `current_task` tells."""

    msg_id: TaskId
    #: 1 for the first
    attempt: int
    engine_id: EngineId
    label: str | None
    metadata: dict[str, Any] | None
    #: the indices of each named resource that are this task's own: {"gpu": [2]}
    resources: dict[str, list[int]]
    #: seconds this attempt may run; None: for ever
    run_timeout: float | None


_task: Callable[[], CurrentTask | None] | None = None
_limit: Callable[[float, str, str], AbstractContextManager[None]] | None = None


def bind(
    task: Callable[[], CurrentTask | None], limit: Callable[[float, str, str], AbstractContextManager[None]]
) -> None:
    """Say who knows the running task, and who limits time; called by the engine."""
    global _task, _limit
    _task, _limit = task, limit


def current_task() -> CurrentTask | None:
    """The task that calls this: its `msg_id`, `attempt`, `engine_id`, `label`, `metadata`, `resources`, `run_timeout`.

    None outside a task.
    """
    return None if _task is None else _task()


def time_limit(seconds: float, ename: str, text: str) -> AbstractContextManager[None]:
    """Interrupt what runs inside after some seconds, and end its task with this error.

    Outside a task, and in threads that a task has started, time is not limited.
    """
    return contextlib.nullcontext() if _limit is None else _limit(seconds, ename, text)
