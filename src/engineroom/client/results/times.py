"""How long the tasks of a result took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from ...ids import TaskId
from ...messages import TaskDone
from .outcome import Outcome


class Times:
    """The part of an AsyncResult that knows its times."""

    _submitted: float | None
    _received: float | None = None
    _outcomes: Mapping[TaskId, Outcome]

    def done(self) -> bool:
        """Whether all outcomes are there."""
        raise NotImplementedError

    @property
    def elapsed(self) -> float:
        """Seconds since submission; until the end, once there is one."""
        if self._submitted is None:
            return 0.0
        end = self._received if self.done() and self._received is not None else time.time()
        return end - self._submitted

    def _finished_tasks(self) -> list[TaskDone]:
        if not self.done():
            raise TimeoutError(f"{self!r} is not ready: its times are known at the end")
        return [o for o in self._outcomes.values() if isinstance(o, TaskDone)]

    @property
    def serial_time(self) -> float:
        """Seconds of computing, added up over the tasks."""
        return sum(done.completed - done.started for done in self._finished_tasks() if done.started is not None)

    @property
    def wall_time(self) -> float:
        """Seconds from submission to the last result."""
        self._finished_tasks()
        return self.elapsed

    def timedelta(
        self, start: Any, end: Any, start_key: Callable[..., Any] = min, end_key: Callable[..., Any] = max
    ) -> float:
        """Seconds between two sets of datetimes: from `start_key(start)` to `end_key(end)`."""
        begin = start if isinstance(start, datetime) else start_key(start)
        finish = end if isinstance(end, datetime) else end_key(end)
        delta: timedelta = finish - begin
        return delta.total_seconds()
