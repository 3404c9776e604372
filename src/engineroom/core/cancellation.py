"""Ending tasks because somebody wants it: aborted before they start, cancelled while they run, or all at the end."""

from __future__ import annotations

from collections.abc import Iterable

from ..config import SchedulerSettings
from ..ids import EngineId, TaskId
from .actions import Action, CancelTasks, KillTask
from .deadlines import Deadlines
from .effects import Turn
from .engines import Engine
from .events import AbortRequested, ControllerStopped, TasksFailed
from .placement.balance import recall
from .placement.pools import Pools
from .tasks import State, Task
from .transitions import Moves

#: Seconds between two orders to kill the same task, at least.
KILL_REST = 0.1


class Aborting:
    """Ends tasks on request. One that does not heed its interruption is killed after a grace."""

    def __init__(
        self,
        settings: SchedulerSettings,
        tasks: dict[TaskId, Task],
        engines: dict[EngineId, Engine],
        pools: Pools,
        deadlines: Deadlines,
        turn: Turn,
        moves: Moves,
    ) -> None:
        self._settings = settings
        self._tasks = tasks
        self._engines = engines
        self._pools = pools
        self._deadlines = deadlines
        self._turn = turn
        self._moves = moves

    def requested(self, event: AbortRequested) -> Iterable[Action]:
        """End those of these that have not started; with `running`, the others too."""
        asked: dict[EngineId, list[TaskId]] = {}
        for id in event.tasks:
            task = self._tasks.get(id)
            if task is None:
                continue  # it has ended
            if task.engine is None and task.state is not State.RECOVERING:
                self._moves.end(task, "aborted", "TaskAborted", "aborted before it started")
                continue
            task.aborting = True
            task.cancelling |= event.running
            if task.engine is None:
                continue  # an engine that is on its way back may be running it
            asked.setdefault(task.engine.id, []).append(id)
            if event.running:
                self.kill_later(task)
        self._pools.drop_empty()
        for number, ids in asked.items():
            recall_tasks = recall(self._engines[number], ids)
            yield CancelTasks(number, ids) if event.running else recall_tasks

    def failed(self, event: TasksFailed) -> Iterable[Action]:
        """The shell could not do what these tasks need: end them, and have engines drop them."""
        cancelled: dict[Engine, list[TaskId]] = {}
        for id in event.tasks:
            task = self._tasks.get(id)
            if task is None:
                continue  # it has ended
            engine = task.engine
            if engine is not None:
                del engine.held[id]
                engine.recalled.discard(id)
                cancelled.setdefault(engine, []).append(id)
            self._moves.end(task, "error", event.error.ename, event.error.evalue, engine, event.error.traceback)
        self._pools.drop_empty()
        for engine, ids in cancelled.items():
            self._moves.fill_direct(engine)
            yield CancelTasks(engine.id, ids)

    def kill_later(self, task: Task) -> None:
        """A task is being cancelled: kill it, unless it has ended by then."""
        self._deadlines.add(self._turn.now + self._settings.cancel_grace, self._kill, task)

    def _kill(self, task: Task) -> None:
        """A cancelled task has had its grace, and gets another: its engine may not even have begun it."""
        if task.engine is not None:
            self._turn.kills.append(KillTask(task.engine.id, task.id))
            self._deadlines.add(self._turn.now + max(self._settings.cancel_grace, KILL_REST), self._kill, task)

    def kill_other_later(self, engine: Engine, id: TaskId) -> None:
        """An engine came back with a task that is no longer its own: kill that, unless it has let go of it by then."""
        self._deadlines.add(self._turn.now + self._settings.cancel_grace, self._kill_other, (engine, id))

    def _kill_other(self, subject: tuple[Engine, TaskId]) -> None:
        engine, id = subject
        task = self._tasks.get(id)
        if self._engines.get(engine.id) is engine and (task is None or task.engine is not engine):
            self._turn.kills.append(KillTask(engine.id, id))

    def controller_stopped(self, event: ControllerStopped) -> None:
        """The cluster is shutting down: end all."""
        for task in list(self._tasks.values()):
            self._moves.end(task, "aborted", "TaskAborted", event.reason)
        self._turn.news.clear()
        for engine in self._engines.values():
            engine.held.clear()
            engine.backlog.clear()
            engine.recalled.clear()
            self._pools.changed(engine)
