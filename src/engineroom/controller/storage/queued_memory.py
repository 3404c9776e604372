"""The memory of tasks that have not ended: it is counted, and has a limit.

    half of the limit     small arguments of further tasks leave memory once they are recorded; the outbox has them
                          read again, with those of the tasks around them, before it sends the task to an engine
    all of it             clients wait before more tasks are taken in (`backpressure.py`)

Below the half, a task costs two additions. Large arguments (frames) have a limit of their own: `queued_buffers.py`.
There is no store and no thread here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count, islice
from typing import Any, Protocol

import msgspec

from ...config import MIB
from ...cores import usable_memory
from ...ids import TaskId
from ...messages import TaskSpec

#: The limit, unless another is set: this part of the memory that the process may use.
SHARE_OF_MEMORY = 1 / 4
#: What a task takes besides its arguments.
TASK_BYTES = 1536
#: Arguments of fewer bytes stay in memory: the task takes much more.
SMALLEST = 128
#: Tasks whose arguments are read together, at most, and whose arguments leave memory together.
TOGETHER = 512
#: The arguments of so many bytes may be read before they are needed, if they have room below the limit.
AHEAD = 32 * MIB


class Task(Protocol):
    """A task of the core."""

    spec: TaskSpec
    frames: Sequence[Any]
    #: what is counted for it
    counted: int

    @property
    def id(self) -> TaskId: ...

    @property
    def is_queued(self) -> bool: ...


#: Tasks that came together, by id.
Batch = dict[TaskId, Task]


def default_limit() -> int:
    """Bytes that the tasks of a controller may take, unless its settings say otherwise."""
    return int(usable_memory() * SHARE_OF_MEMORY)


class QueuedMemory:
    """How much memory the tasks take that have not ended, and which of them have their arguments in the store only.

    Parameters
    ----------
    limit : int or None
        Bytes that the tasks may take; None: as many as they like.
    may_leave : bool
        Whether the store keeps arguments elsewhere than in this process.
    """

    def __init__(self, limit: int | None, may_leave: bool) -> None:
        self.limit, self._may_leave = limit, may_leave
        #: what the tasks take
        self.bytes = 0
        self._numbers = count(1)
        #: number → tasks whose arguments leave memory once they are recorded
        self._unrecorded: dict[int, Sequence[Task]] = {}
        #: a task whose arguments only the store has → those of its batch for which that is so
        self.left: dict[TaskId, Batch] = {}
        #: tasks whose arguments are being read before they are needed
        self._coming: set[TaskId] = set()

    @property
    def is_full(self) -> bool:
        """Whether no more tasks should be taken in."""
        return self.limit is not None and self.bytes >= self.limit

    @property
    def is_tight(self) -> bool:
        """Whether arguments should leave memory."""
        return self.limit is not None and self._may_leave and 2 * self.bytes >= self.limit

    def add(self, tasks: Sequence[Task]) -> int:
        """Tasks are known from now on, and are about to be recorded.

        Returns the number that `recorded` is to be called with once they are; 0: it need not be called.
        """
        total = 0
        for task in tasks:
            task.counted = size = TASK_BYTES + len(task.spec.payload)
            total += size
        self.bytes += total
        if not self.is_tight:
            return 0
        leaving = [task for task in tasks if len(task.spec.payload) >= SMALLEST and not task.frames]
        if not leaving:
            return 0
        number = next(self._numbers)
        self._unrecorded[number] = leaving
        return number

    def recorded(self, number: int) -> None:
        """The store has the arguments of the tasks that were added under this number."""
        tasks = [task for task in self._unrecorded.pop(number, ()) if task.is_queued and task.spec.payload]
        for task in tasks:
            self._count(task, -len(task.spec.payload))
            task.spec = msgspec.structs.replace(task.spec, payload=b"")
        self._leave(tasks)

    def take_up(self, tasks: Iterable[Task], left: set[TaskId]) -> None:
        """Tasks of the controller's earlier life. The arguments of those in `left` were not taken into memory."""
        gone: list[Task] = []
        for task in tasks:
            task.counted = 0
            self._count(task, TASK_BYTES + len(task.spec.payload))
            if task.id in left:
                gone.append(task)
        self._leave(gone)

    def _leave(self, tasks: Sequence[Task]) -> None:
        for start in range(0, len(tasks), TOGETHER):
            batch = {task.id: task for task in tasks[start : start + TOGETHER]}
            self.left.update(dict.fromkeys(batch, batch))

    def forget(self, task: Task) -> None:
        """A task has ended."""
        self.bytes -= task.counted
        if self.left:
            self._drop(task.id)

    def _drop(self, id: TaskId) -> None:
        batch = self.left.pop(id, None)
        if batch is not None:
            del batch[id]  # a batch must not keep tasks that have ended

    def _count(self, task: Task, change: int) -> None:
        task.counted += change
        self.bytes += change

    # ------------------------------------------------------------------------------------------ they are needed

    def to_read(self, tasks: Iterable[Task]) -> list[TaskId]:
        """The tasks whose arguments must be read before these tasks can be sent, and some that are likely to be next.

        `put_back` is to be called with them.
        """
        needed = [task.id for task in tasks if task.id in self.left]
        if not needed or (self.limit is not None and self.bytes + min(AHEAD, self.limit // 8) > self.limit):
            return needed
        found = dict.fromkeys(needed)
        for batch in {id(batch): batch for batch in map(self.left.__getitem__, needed)}.values():
            others = (other for other in batch if other not in found and other not in self._coming)
            found.update(dict.fromkeys(list(islice(others, max(0, TOGETHER - len(found))))))
        self._coming.update(found)
        return list(found)

    def put_back(self, asked: Iterable[TaskId], read: Mapping[TaskId, bytes]) -> None:
        """Those of these arguments that could be read are in memory again."""
        self._coming.difference_update(asked)
        for id, payload in read.items():
            batch = self.left.get(id)
            if batch is None:
                continue  # it has ended, or another read has brought them
            task = batch[id]
            self._drop(id)
            task.spec = msgspec.structs.replace(task.spec, payload=payload)
            self._count(task, len(payload))


class Measured:
    """How much of what is read at the start is taken into memory: half of the limit, as for tasks that come later."""

    def __init__(self, memory: QueuedMemory) -> None:
        self._memory, self._bytes = memory, 0

    def takes(self, size: int) -> bool:
        """Whether a further task with arguments of so many bytes is to have them in memory."""
        limit = self._memory.limit
        self._bytes += TASK_BYTES + size
        if limit is None or 2 * self._bytes < limit or size < SMALLEST:
            return True
        self._bytes -= size
        return False
