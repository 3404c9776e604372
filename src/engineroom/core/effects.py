"""Effects: what the core wants done. The only way out of it: handlers and `State` tell it here, and return nothing.

Single orders keep the order in which they are told. What many tasks bring (tasks to send, outcomes, …) is gathered
while one event is handled, so that each kind becomes one action.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ids import Digest, EngineId, TaskId
from .actions import (
    Action,
    AskEngine,
    CancelTasks,
    Ended,
    EndTasks,
    FindOutcomes,
    KeepValues,
    KillTask,
    RecallTasks,
    RecordProgress,
    RecordTasks,
    ReleaseValues,
    SendTasks,
    StopEngine,
)
from .tasks import Task


class Effects:
    """The actions of one event; then of the next."""

    __slots__ = ("actions", "asks", "ended", "kept", "kills", "progress", "released", "sends", "to_find")

    def __init__(self) -> None:
        self.actions: list[Action] = []
        #: the tasks that each engine is given
        self.sends: dict[EngineId, list[Task]] = {}
        self.ended: list[Ended] = []
        #: ended tasks whose results are arguments of other tasks
        self.kept: list[Ended] = []
        #: tasks that have started, or are to run again: their records change
        self.progress: list[Task] = []
        #: tasks about whose outcomes the store is to be asked
        self.to_find: list[TaskId] = []
        #: tasks whose results are no longer arguments of any task
        self.released: list[TaskId] = []
        #: the functions about which each engine is to be asked
        self.asks: dict[EngineId, list[Digest]] = {}
        self.kills: list[KillTask] = []

    def begin(self) -> None:
        """Forget the actions of the event before: a new one is about to be handled."""
        self.actions = []
        if self.sends:
            self.sends = {}

    # ------------------------------------------------------------------------------------------ single orders

    def record(self, tasks: list[Task]) -> None:
        """Record new tasks."""
        self.actions.append(RecordTasks(tasks))

    def recall(self, engine: EngineId, tasks: Sequence[TaskId]) -> None:
        """Ask an engine to give back those of these tasks that it has not started."""
        self.actions.append(RecallTasks(engine, tasks))

    def cancel(self, engine: EngineId, tasks: Sequence[TaskId]) -> None:
        """Ask an engine to give back those of these tasks that it has not started, and to interrupt the one it runs."""
        self.actions.append(CancelTasks(engine, tasks))

    def stop(self, engine: EngineId, *, restart: bool = False) -> None:
        """Tell an engine to leave; with `restart`, another takes its place."""
        self.actions.append(StopEngine(engine, restart))

    # ------------------------------------------------------------------------------------------ batches

    def send(self, engine: EngineId, tasks: list[Task]) -> None:
        """Send tasks to an engine, behind those it is sent already."""
        if engine in self.sends:
            self.sends[engine] += tasks
        else:
            self.sends[engine] = tasks

    def ask(self, engine: EngineId, function: Digest) -> None:
        """Ask an engine whether its properties allow tasks with this function."""
        self.asks.setdefault(engine, []).append(function)

    def kill(self, engine: EngineId, task: TaskId) -> None:
        """Kill an engine, if it is running this task."""
        self.kills.append(KillTask(engine, task))

    def close_batches(self) -> None:
        """Turn the batches into actions, in this order. They belong to the actions from now on: begin new ones."""
        actions = self.actions
        if self.to_find:
            actions.append(FindOutcomes(self.to_find))
            self.to_find = []
        if self.kept:  # before the tasks are sent that take these results as arguments
            actions.append(KeepValues(self.kept))
            self.kept = []
        for engine, tasks in self.sends.items():
            actions.append(SendTasks(engine, tasks))
        if self.progress:  # before EndTasks: a task may be queued for another attempt, and end, in one event
            actions.append(RecordProgress(self.progress))
            self.progress = []
        if self.ended:
            actions.append(EndTasks(self.ended))
            self.ended = []
        if self.released:
            actions.append(ReleaseValues(self.released))
            self.released = []
        if self.kills:
            actions += self.kills
            self.kills = []
        if self.asks:
            actions += [AskEngine(engine, functions) for engine, functions in self.asks.items()]
            self.asks = {}
