"""What the core wants done. Imperative; each carries a batch. The shell performs them in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..ids import Digest, EngineId, TaskId
from ..messages import TaskDone
from .tasks import Task


class Action(msgspec.Struct, frozen=True, gc=False):
    """Base of all actions."""


class RecordTasks(Action, frozen=True, gc=False):
    """Write these new tasks to the store."""

    tasks: Sequence[Task]


class RecordProgress(Action, frozen=True, gc=False):
    """Write how far these tasks are: one has started, or waits again, or gets another attempt."""

    tasks: Sequence[Task]


class SendTasks(Action, frozen=True, gc=False):
    """Give tasks to an engine, in this order."""

    engine: EngineId
    tasks: Sequence[Task]


class RecallTasks(Action, frozen=True, gc=False):
    """Ask an engine to give back those of these tasks that it has not started."""

    engine: EngineId
    tasks: Sequence[TaskId]


class CancelTasks(Action, frozen=True, gc=False):
    """Ask an engine to give back those of these tasks that it has not started, and to interrupt the one it runs."""

    engine: EngineId
    tasks: Sequence[TaskId]


class AskEngine(Action, frozen=True, gc=False):
    """Ask an engine whether its properties allow tasks with these functions; answered by PropertiesAnswered."""

    engine: EngineId
    functions: Sequence[Digest]


class KillTask(Action, frozen=True, gc=False):
    """Kill this engine, if it is running this task: the task did not stop when it was interrupted."""

    engine: EngineId
    task: TaskId


class FindOutcomes(Action, frozen=True, gc=False):
    """Look up in the store how these tasks ended; answered by OutcomesFound."""

    tasks: Sequence[TaskId]


class ReleaseValues(Action, frozen=True, gc=False):
    """No unfinished task takes the results of these tasks as arguments any more."""

    tasks: Sequence[TaskId]


class Ended(msgspec.Struct, frozen=True, gc=False):
    """A task with its outcome."""

    task: Task
    done: TaskDone
    frames: Sequence[Any] = ()
    #: an engine had begun the task, and has sent no outcome: what the task has printed is not in `done`
    cut_short: bool = False


class KeepValues(Action, frozen=True, gc=False):
    """Unfinished tasks take the results of these tasks as arguments: keep them until ReleaseValues."""

    tasks: Sequence[Ended]


class EndTasks(Action, frozen=True, gc=False):
    """Record these outcomes, and send them to the clients that wait for them."""

    tasks: Sequence[Ended]


class StopEngine(Action, frozen=True, gc=False):
    """Tell an engine to leave; with `restart`, its nanny starts another in its place."""

    engine: EngineId
    restart: bool = False
