"""After a controller's death: tasks that the store still had, and the engines that come back with them.

A task from the store is RECOVERING until an engine claims it, its result comes, or the deadline passes. Then it begins
its way anew, as another attempt: it may have been started in the controller's earlier life.
"""

from __future__ import annotations

from ..ids import EngineId, TaskId
from .dependencies import Graph
from .engines import Engine
from .events import TasksRecovered
from .tasks import Needs, State, Task
from .transitions import Moves


class Recovery:
    """Tasks of the controller's earlier life, until it is known what became of them."""

    def __init__(self, tasks: dict[TaskId, Task], engines: dict[EngineId, Engine], graph: Graph, moves: Moves) -> None:
        self._tasks = tasks
        self._engines = engines
        self._graph = graph
        self._moves = moves
        #: until when engines may claim recovered tasks; None: they had their time
        self.deadline: float | None = None

    def recovered(self, event: TasksRecovered) -> None:
        """The store has these."""
        self.deadline = event.deadline
        for found in event.tasks:
            if found.spec.id in self._tasks:
                continue  # a repetition
            retries = found.spec.options.retries if found.spec.options is not None else 0
            task = Task(found.spec, found.client, found.frames, retries)
            if found.attempts:
                task.attempts = list(found.attempts)
                task.attempt = found.attempts[-1].number + 1
                task.retries_left = max(0, retries - len(found.attempts))
                task.deaths = sum(attempt.started is None for attempt in found.attempts)  # only a death leaves that
            task.state = State.RECOVERING
            self._tasks[task.id] = task
            self._graph.want(task)
            if found.spec.options is not None and not task.is_direct:
                self._moves.check_scheme(task, found.spec.options)

    def claimed(self, task: Task, engine: Engine, attempt: int) -> None:
        """An engine came back with a RECOVERING task in hand."""
        task.move(State.HELD)
        task.engine, task.attempt = engine, attempt
        engine.held[task.id] = task
        ran_before(task, engine)

    def look(self, now: float) -> None:
        """Give up if engines have had their time to come back with what they were doing."""
        if self.deadline is None or now < self.deadline:
            return
        self.deadline = None
        for task in [t for t in self._tasks.values() if t.state is State.RECOVERING]:
            if task.state is not State.RECOVERING:
                continue  # it has ended with another
            if task.aborting:
                self._moves.end(task, "aborted", "TaskAborted", "aborted; its engine did not come back with it")
            elif task.is_direct and task.spec.engine not in self._engines:
                self._moves.fail(
                    task,
                    "EngineError",
                    f"engine {task.spec.engine} did not come back after the controller's restart",
                )
            else:
                # It may have been started in the controller's earlier life.
                task.attempt += 1
                self._moves.arrive(task)


def ran_before(task: Task, engine: Engine | None) -> None:
    """In the controller's earlier life a task was given to this engine: if it follows others, they ran there."""
    options = task.spec.options
    if engine is not None and options is not None and options.follow is not None and options.follow.tasks:
        task.needs = Needs(followed=frozenset({engine.uuid}))
