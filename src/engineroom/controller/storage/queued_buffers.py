"""Large arguments of tasks that have not ended: beyond a limit, those that are recorded leave memory.

The outbox reads them from the store before it sends such a task to an engine. The tasks that came last lose their
arguments first: they run last. There is no store and no thread here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ...config import MIB
from ...ids import TaskId
from ...shared_memory.buffer import key_of, weight

#: Bytes of large arguments that are recorded and yet stay in memory.
LIMIT = 64 * MIB


class Holder(Protocol):
    """A task, with the large buffers of its arguments."""

    frames: Sequence[Any]

    @property
    def id(self) -> TaskId: ...


class QueuedBuffers:
    """Which tasks have their large arguments in memory, and which only in the store."""

    def __init__(self) -> None:
        #: their records are not committed yet
        self._unrecorded: dict[TaskId, Holder] = {}
        #: the store has the arguments, too
        self._recorded: dict[TaskId, Holder] = {}
        #: of the latter: what their buffers weigh, and how many tasks have each
        self.bytes = 0
        self._uses: dict[Any, int] = {}
        #: tasks whose arguments only the store has
        self.spilled: set[TaskId] = set()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._unrecorded or self._recorded or self.spilled)

    def add(self, task: Holder) -> bool:
        """A task with large arguments is about to be recorded. False: it was before."""
        if task.id in self._recorded or task.id in self.spilled:
            return False
        self._unrecorded[task.id] = task
        return True

    def recorded(self, id: TaskId) -> None:
        """The store has the arguments of a task."""
        task = self._unrecorded.pop(id, None)
        if task is None:
            return  # it has ended meanwhile
        self._recorded[id] = task
        self._count(task, 1)
        while self.bytes > LIMIT:
            id, task = self._recorded.popitem()
            self._count(task, -1)
            task.frames = ()
            self.spilled.add(id)

    def forget(self, id: TaskId) -> None:
        """A task has ended."""
        self._unrecorded.pop(id, None)
        self.spilled.discard(id)
        task = self._recorded.pop(id, None)
        if task is not None:
            self._count(task, -1)

    def _count(self, task: Holder, change: int) -> None:
        """Count the buffers of a task, or no longer. Buffers that several tasks share count once."""
        for frame in task.frames:
            key = key_of(frame)
            uses = self._uses[key] = self._uses.get(key, 0) + change
            if uses == 0:
                del self._uses[key]
            if uses == (change > 0):  # the first has come, or the last has gone
                self.bytes += change * weight((frame,))
