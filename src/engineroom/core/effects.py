"""What one event brings: when it came, and what is gathered while it is handled, then made into actions."""

from __future__ import annotations

from collections.abc import Iterator

from ..ids import EngineId, TaskId
from .actions import (
    Action,
    Ended,
    EndTasks,
    FindOutcomes,
    KeepValues,
    KillTask,
    RecordAttempts,
    ReleaseValues,
    SendTasks,
)
from .dependencies import Graph, Outcome
from .engines import Engine
from .tasks import Task


class Turn:
    """The time and the batches of one event; then of the next."""

    __slots__ = ("ended", "kept", "kills", "news", "now", "retried", "sends")

    def __init__(self) -> None:
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """An event has come. The batches of the last one belong to its actions: begin new ones."""
        self.now = now
        self.ended: list[Ended] = []
        #: those of them whose results are arguments of others
        self.kept: list[Ended] = []
        #: tasks that go into another attempt
        self.retried: list[Task] = []
        self.sends: dict[EngineId, list[Task]] = {}
        self.kills: list[KillTask] = []
        #: outcomes that others wait for
        self.news: list[tuple[TaskId, Outcome | None]] = []

    def send(self, engine: Engine, tasks: list[Task]) -> None:
        """An engine is given tasks."""
        if engine.id in self.sends:
            self.sends[engine.id] += tasks
        else:
            self.sends[engine.id] = tasks

    def actions(self, graph: Graph) -> Iterator[Action]:
        """What is to be done, in order."""
        if graph.to_ask:
            yield FindOutcomes(graph.to_ask)
            graph.to_ask = []
        if self.kept:
            yield KeepValues(self.kept)
        for engine, tasks in self.sends.items():
            yield SendTasks(engine, tasks)
        if self.retried:
            yield RecordAttempts(self.retried)
        if self.ended:
            yield EndTasks(self.ended)
        if graph.released:
            yield ReleaseValues(graph.released)
            graph.released = []
        yield from self.kills
