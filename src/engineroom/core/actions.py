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


class RecordAttempts(Action, frozen=True, gc=False):
    """Write the attempts so far of these tasks, which go into another one."""

    tasks: Sequence[Task]


class SendTasks(Action, frozen=True, gc=False):
    """Give tasks to an engine, in this order."""

    engine: EngineId
    tasks: Sequence[Task]


class RecallTasks(Action, frozen=True, gc=False):
    """Ask an engine for those of these that it has not started."""

    engine: EngineId
    tasks: Sequence[TaskId]


class CancelTasks(Action, frozen=True, gc=False):
    """Ask an engine for those of these that it has not started, and to interrupt the one it is running."""

    engine: EngineId
    tasks: Sequence[TaskId]


class AskEngine(Action, frozen=True, gc=False):
    """Ask an engine whether its properties allow tasks with these functions; answered by PropertiesAnswered."""

    engine: EngineId
    functions: Sequence[Digest]


class KillTask(Action, frozen=True, gc=False):
    """Kill this engine, if this is what it is running: it did not heed its interruption."""

    engine: EngineId
    task: TaskId


class FindOutcomes(Action, frozen=True, gc=False):
    """Look up in the store how these ended; answered by OutcomesFound."""

    tasks: Sequence[TaskId]


class ReleaseValues(Action, frozen=True, gc=False):
    """Nobody will take the results of these as arguments any more."""

    tasks: Sequence[TaskId]


class Ended(msgspec.Struct, frozen=True, gc=False):
    """A task with its outcome."""

    task: Task
    done: TaskDone
    frames: Sequence[Any] = ()


class KeepValues(Action, frozen=True, gc=False):
    """Others will take the results of these as arguments: keep them until ReleaseValues."""

    tasks: Sequence[Ended]


class EndTasks(Action, frozen=True, gc=False):
    """Record these outcomes, and tell whoever waits."""

    tasks: Sequence[Ended]


class StopEngine(Action, frozen=True, gc=False):
    """Tell an engine to leave."""

    engine: EngineId
