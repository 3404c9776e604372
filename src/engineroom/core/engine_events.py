"""The engines' lives: they join, come back, fall silent, are lost, leave; and what that means for their tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..config import SchedulerSettings
from ..ids import EngineId, TaskId
from ..messages import Attempt
from .actions import Action, CancelTasks, RecallTasks, StopEngine
from .cancellation import Aborting
from .deadlines import Deadlines
from .effects import Turn
from .engines import Engine
from .events import EngineJoined, EngineLeft, EngineLost, EnginesStopped, PropertiesAnswered, PropertiesChanged
from .placement.pools import Pools
from .placement.queues import TaskQueue
from .recovery import Recovery
from .tasks import State, Task
from .transitions import Moves

#: Seconds an engine has to give tasks back. One whose task holds the GIL cannot, for as long as that takes.
PATIENCE = 1.0


class Fleet:
    """Which engines there are."""

    def __init__(
        self,
        settings: SchedulerSettings,
        tasks: dict[TaskId, Task],
        engines: dict[EngineId, Engine],
        pools: Pools,
        deadlines: Deadlines,
        turn: Turn,
        moves: Moves,
        recovery: Recovery,
        aborting: Aborting,
    ) -> None:
        self._settings = settings
        self._tasks = tasks
        self._engines = engines
        self._pools = pools
        self._deadlines = deadlines
        self._turn = turn
        self._moves = moves
        self._recovery = recovery
        self._aborting = aborting

    # ------------------------------------------------------------------------------------------ they come

    def joined(self, event: EngineJoined) -> Iterable[Action]:
        """An engine said Hello, for the first time or again."""
        engine = self._engines.get(event.engine)
        if engine is not None and engine.uuid != event.uuid:
            self._remove(event.engine, "another engine took its place", running=None)
            engine = None
        if engine is None:
            engine = self._add(event)
        engine.asked.clear()  # the question, or the answer, may have been lost
        self._pools.properties_changed(engine)
        in_hand: dict[TaskId, int] = {}
        for held in event.held:  # of a task that is being retried there may be an old result, too
            in_hand[held.id] = max(held.attempt, in_hand.get(held.id, 0))
        yield from self._take_stock(engine, in_hand)
        # Of what we gave it, it has not got these: they were lost on the way.
        missing = [task for id, task in engine.held.items() if in_hand.get(id) != task.attempt]
        for task in missing:
            del engine.held[task.id]
        engine.recalled.clear()
        self._moves.requeue(missing)
        self._moves.fill_direct(engine)
        if engine.stopping:
            yield StopEngine(engine.id)  # it may not have heard

    def _add(self, event: EngineJoined) -> Engine:
        engine = self._engines[event.engine] = Engine(
            event.engine,
            event.uuid,
            event.host,
            event.pid,
            event.nanny,
            event.resources,
            TaskQueue(self._pools.shares),
            self._settings.hwm,
            self._turn.now,
        )
        self._pools.joined(engine)
        return engine

    def _take_stock(self, engine: Engine, in_hand: Mapping[TaskId, int]) -> Iterator[Action]:
        """What an engine has in hand: what it may keep is its own again, the rest it is told to let go of."""
        recalled, cancelled = [], []
        for id, attempt in in_hand.items():
            task = self._tasks.get(id)
            if task is not None and task.state is State.RECOVERING and self._may_have_begun(task, engine):
                self._recovery.claimed(task, engine, attempt)
            if task is None or task.engine is not engine:
                cancelled.append(id)  # ended, or given to another: it is not to keep the engine from its tasks
                self._aborting.kill_other_later(engine, id)
            elif task.cancelling:
                cancelled.append(id)
                self._aborting.kill_later(task)
            elif task.aborting:
                recalled.append(id)
        if recalled:
            yield RecallTasks(engine.id, recalled)
        if cancelled:
            yield CancelTasks(engine.id, cancelled)

    def _may_have_begun(self, task: Task, engine: Engine) -> bool:
        """Whether an engine that has a task in hand may keep it: whether its properties allow it, it looks itself."""
        return task.spec.engine == engine.id if task.is_direct else self._pools.requirement_of(task).allows(engine)

    # ------------------------------------------------------------------------------------------ they fall silent

    def expect_back(self, engine: Engine) -> None:
        """An engine is asked for tasks back: see whether it answers."""
        self._deadlines.add(self._turn.now + PATIENCE, self._unanswered, engine)

    def _unanswered(self, engine: Engine) -> None:
        """An engine was asked for tasks back some time ago. If it has been silent since, others run them.

        It reads its messages before it begins another task, so it will not run them too. Should it have begun one,
        its result comes too late, as that of an earlier attempt.
        """
        silent = self._turn.now - engine.last_heard >= PATIENCE
        if self._engines.get(engine.id) is not engine or not engine.recalled or not silent:
            return
        back = [
            task
            for task in list(engine.held.values())[1:]
            if task.id in engine.recalled and not task.aborting and not task.is_direct
        ]
        for task in back:
            del engine.held[task.id]
            engine.recalled.discard(task.id)
            task.attempt += 1
        if engine.fixed_hwm is None:
            engine.hwm = 1
        self._moves.requeue(back)
        self._pools.changed(engine)

    # ------------------------------------------------------------------------------------------ they go

    def stopped(self, event: EnginesStopped) -> Iterable[Action]:
        """These get no more work, and leave."""
        for id in event.engines:
            engine = self._engines.get(id)
            if engine is None or engine.stopping:
                continue
            engine.stopping = True
            self._pools.changed(engine)
            yield StopEngine(id)

    def left(self, event: EngineLeft) -> None:
        """An engine said goodbye."""
        self._remove(event.engine, "it left", running=None)

    def lost(self, event: EngineLost) -> None:
        """An engine is gone without a goodbye."""
        engine = self._engines.get(event.engine)
        first = next(iter(engine.held), None) if engine else None
        running = event.running if event.known else first
        self._remove(event.engine, event.cause, running, event.overran, event.peak_memory)

    def _remove(
        self,
        id: EngineId,
        cause: str,
        running: TaskId | None,
        overran: bool = False,
        peak_memory: int | None = None,
    ) -> None:
        """Forget an engine; its tasks go to others, except the one that was running when it went down."""
        engine = self._engines.pop(id, None)
        if engine is None:
            return  # known already
        pools = self._pools.removed(engine)
        back = []
        for task in engine.held.values():
            task.engine = None
            attempt = None
            if task.id == running:
                attempt = Attempt(task.attempt, id, engine.uuid, engine.host, None, self._turn.now, cause, peak_memory)
            if task.aborting:
                _note(task, attempt)
                self._moves.end(task, "aborted", "TaskAborted", f"aborted; engine {id} was lost meanwhile: {cause}")
            elif attempt is not None and overran:
                self._overran(task, engine, cause, attempt)
            elif task.is_direct:
                _note(task, attempt)
                self._moves.fail(task, "EngineError", _died(engine, cause, task, task.id == running), engine)
            elif attempt is None:
                # It may have run, with its result lost on the way: another attempt, at no cost to its retries.
                task.attempt += 1
                back.append(task)
            else:
                self._burn(task, engine, cause, attempt)
        for task in list(engine.backlog):
            self._moves.fail(task, "EngineError", _died(engine, cause, task, False), engine)
        self._moves.requeue(back)
        for pool in pools:
            self._moves.look_again(pool)

    def _burn(self, task: Task, engine: Engine, cause: str, attempt: Attempt) -> None:
        """An engine died running this task."""
        task.deaths += 1
        if task.retries_left > 0 and task.deaths < self._settings.death_limit:
            task.retries_left -= 1
            self._moves.again(task, attempt, first=True)
            return
        _note(task, attempt)
        message = _died(engine, cause, task, True)
        if task.deaths > 1:
            message += f" It was running on {task.deaths} engines when they died, so it is not tried again."
        self._moves.fail(task, "EngineError", message, engine)

    def _overran(self, task: Task, engine: Engine, cause: str, attempt: Attempt) -> None:
        """An engine was killed because this task ran for too long."""
        if task.retries_left > 0 and not task.is_direct:
            task.retries_left -= 1
            self._moves.again(task, attempt, first=True)
            return
        _note(task, attempt)
        self._moves.fail(task, "TaskTimeout", cause, engine)

    # ------------------------------------------------------------------------------------------ their properties

    def properties_answered(self, event: PropertiesAnswered) -> None:
        """An engine says what its properties have against tasks with these functions."""
        engine = self._engines.get(event.engine)
        if engine is not None:
            self._pools.answered(engine, event.answers)

    def properties_changed(self, event: PropertiesChanged) -> None:
        """What these have answered holds no more."""
        for id in event.engines:
            engine = self._engines.get(id)
            if engine is not None:
                self._pools.properties_changed(engine)


def _note(task: Task, attempt: Attempt | None) -> None:
    if attempt is not None:
        task.attempts = [*(task.attempts or ()), attempt]


def _died(engine: Engine, cause: str, task: Task, running: bool) -> str:
    doing = "while running" if running else "before it ran"
    return f"engine {engine.id} ({engine.host}, pid {engine.pid}) was lost {doing} task {task.id}: {cause}."
