"""Tasks with which engines came back after a restart, and that the core does not know (yet).

The controller was killed before it had recorded them, perhaps with their outcomes. Their clients, who were not told
that they are recorded, say them again: then the engine goes on with them, and an outcome that it has counts. So a task
is not run a second time, when what came behind it may have changed what it reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Any

import msgspec

from ..ids import EngineUuid, TaskId
from ..messages import TaskDone
from .engines import Engine


class UnclaimedTask(msgspec.Struct, gc=False, eq=False):
    """A task that nobody has said again, and the attempt that an engine has of it."""

    engine: Engine
    attempt: int
    #: its outcome, with large buffers; None: it has not ended
    done: TaskDone | None = None
    frames: Sequence[Any] = ()
    #: whether it has begun, and waits for others
    waits: bool = False


class UnclaimedTasks:
    """What is in the hands of engines, and nobody has said again."""

    def __init__(self) -> None:
        #: until when such tasks are kept; None: not any more, or there was no restart
        self.until: float | None = None
        self._tasks: dict[TaskId, UnclaimedTask] = {}
        #: how many outcomes each engine has sent of these
        self._outcomes: Counter[EngineUuid] = Counter()

    def __len__(self) -> int:
        return len(self._tasks)

    def has_outcomes_of(self, engine: EngineUuid) -> bool:
        """Whether there are outcomes that this engine has sent."""
        return engine in self._outcomes

    def note(self, engine: Engine, in_hand: Mapping[TaskId, int]) -> list[TaskId]:
        """An engine came back with these attempts of unknown tasks; what it said earlier is void.

        Returns those that were not noted before.
        """
        self.drop(engine)
        new = []
        for id, attempt in in_hand.items():
            known = self._tasks.get(id)
            if known is None or (known.done is None and attempt > known.attempt):
                self._tasks[id] = UnclaimedTask(engine, attempt)
                new.append(id)
        return new

    def finished(self, engine: Engine | None, done: TaskDone, frames: Sequence[Any]) -> None:
        """An engine has sent an outcome of a task that is not known."""
        task = self._tasks.get(done.id)
        if task is not None and task.engine is engine and task.attempt == done.attempt and task.done is None:
            task.done, task.frames = done, frames
            self._outcomes[engine.uuid] += 1

    def waiting(self, engine: Engine, ids: Container[TaskId]) -> None:
        """These tasks of an engine have begun and wait for others; its others do not."""
        for id, task in self._tasks.items():
            if task.engine is engine:
                task.waits = id in ids

    def take(self, id: TaskId) -> UnclaimedTask | None:
        """A client has said this task again, or it is found to have ended."""
        task = self._tasks.pop(id, None)
        if task is not None and task.done is not None:
            uuid = task.engine.uuid
            self._outcomes[uuid] -= 1
            if not self._outcomes[uuid]:
                del self._outcomes[uuid]
        return task

    def drop(self, engine: Engine, ids: Container[TaskId] | None = None) -> None:
        """An engine does not have its tasks, or these of them, any more. Outcomes stay."""
        for id, task in list(self._tasks.items()):
            if task.engine is engine and task.done is None and (ids is None or id in ids):
                del self._tasks[id]

    def end(self) -> list[TaskId]:
        """The time is over: these are in no hands any more."""
        self.until = None
        return list(self._tasks)
