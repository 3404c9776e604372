"""A waiter that writes down what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engineroom.client.connection.waiters import fulfilling
from engineroom.ids import TaskId
from engineroom.messages import Output, Published, Started, TaskDone


class Diary:
    """Waits for tasks."""

    def __init__(self) -> None:
        self.done: dict[TaskId, TaskDone] = {}
        self.frames: dict[TaskId, tuple[Any, ...]] = {}
        self.failed: dict[TaskId, Exception] = {}
        self.news: list[Any] = []
        self.announced = 0

    def _arrived(self, done: TaskDone, frames: Sequence[Any], now: float) -> bool:
        assert fulfilling.locked()
        assert done.id not in self.done, "a second outcome"
        self.done[done.id], self.frames[done.id] = done, tuple(bytes(frame) for frame in frames)
        return True

    def _announce(self) -> None:
        assert not fulfilling.locked()
        self.announced += 1

    def _failed(self, id: TaskId, error: Exception) -> None:
        self.failed[id] = error

    def _heard(self, id: TaskId, news: Output | Started | Published, frames: Sequence[Any]) -> None:
        self.news.append(news)

