"""Tasks end because somebody wants it: aborted before they start, cancelled while they run, or all at shutdown.

Also tasks end because the shell cannot do what they need.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from ...ids import EngineId, TaskId
from ...messages import Attempt
from ..effects import Effects
from ..engines import Engine, cut_attempt
from ..events import AbortRequested, ControllerStopped, TasksFailed
from ..state import State
from ..tasks import Task, TaskState

#: At least this many seconds pass between two orders to kill the same task.
MIN_SECONDS_BETWEEN_KILLS = 0.1
#: An engine may claim very many tasks that are not its own. So many orders to kill go out at a time …
KILLS_AT_A_TIME = 500
#: … and the next ones so many seconds later.
SECONDS_BETWEEN_PARTS = 0.02


def on_abort_requested(state: State, effects: Effects, event: AbortRequested) -> None:
    """End those of these tasks that have not started; with `running`, the others too."""
    asked: dict[EngineId, list[TaskId]] = {}
    for id in event.tasks:
        task = state.tasks.get(id)
        if task is None:
            continue  # it has ended
        if task.engine is None and task.state is not TaskState.RECOVERING:
            state.abort(task, "aborted before it started")
            continue
        task.aborting = True
        task.cancelling |= event.running
        if task.engine is None:
            continue  # an engine that is on its way back may be running it
        asked.setdefault(task.engine, []).append(id)
        if event.running:
            kill_later(state, task)
    state.pools.drop_empty()
    for number, ids in asked.items():
        state.recall(state.engines[number], ids, interrupt=event.running)


def on_tasks_failed(state: State, effects: Effects, event: TasksFailed) -> None:
    """The shell could not do what these tasks need: end them, and have engines drop them."""
    error = event.error
    dropped: dict[EngineId, list[TaskId]] = {}
    for id in event.tasks:
        task = state.tasks.get(id)
        if task is None:
            continue  # it has ended
        engine = state.engines[task.engine] if task.engine is not None else None
        attempt = None
        if engine is not None:
            if has_begun(task, engine):
                cause = f"{error.ename}: {error.evalue}"
                attempt = cut_attempt(task, engine, task.started, state.now, cause, "controller")
            state.release(engine, (id,))
            dropped.setdefault(engine.id, []).append(id)
        state.fail(task, error.ename, error.evalue, engine, traceback=error.traceback, attempt=attempt)
    state.pools.drop_empty()
    for number, ids in dropped.items():
        state.fill_direct(state.engines[number])
        effects.cancel(number, ids)


def has_begun(task: Task, engine: Engine) -> bool:
    """Whether the engine that holds a task has said that it has begun it."""
    return task.started is not None or task.id in engine.waiting


def kill_later(state: State, task: Task) -> None:
    """A task is being cancelled: have its engine killed if the task has not ended after the grace."""
    if not task.kill_is_due:
        task.kill_is_due = True
        state.after(state.settings.cancel_grace, _kill, task)


def _kill(state: State, task: Task) -> None:
    """A cancelled task has had its grace. It gets another: its engine may not even have begun it."""
    task.kill_is_due = task.engine is not None
    if task.engine is not None:
        state.effects.kill(task.engine, task.id)
        state.after(max(state.settings.cancel_grace, MIN_SECONDS_BETWEEN_KILLS), _kill, task)


def kill_strays_later(state: State, engine: Engine, ids: Sequence[TaskId]) -> None:
    """An engine came back with tasks that are no longer its own: have one killed if it runs that after the grace.

    They replace those of an earlier Hello: what the engine does not name any more it has dropped.
    """
    if ids and not engine.strays:
        state.after(state.settings.cancel_grace, _kill_strays, engine)
    engine.strays = deque(ids)


def _kill_strays(state: State, engine: Engine) -> None:
    if state.engines.get(engine.id) is not engine:
        return
    for _ in range(min(KILLS_AT_A_TIME, len(engine.strays))):
        id = engine.strays.popleft()
        task = state.tasks.get(id)
        if task is None or task.engine != engine.id:
            state.effects.kill(engine.id, id)
    if engine.strays:
        state.after(SECONDS_BETWEEN_PARTS, _kill_strays, engine)


def drop_unclaimed(state: State, ids: Iterable[TaskId]) -> None:
    """These tasks had ended before the restart, or nobody has said them again: engines that have them drop them."""
    dropped: dict[EngineId, list[TaskId]] = {}
    for id in ids:
        task = state.unclaimed.take(id)
        if task is not None and task.done is None:
            dropped.setdefault(task.engine.id, []).append(id)
    for number, strays in dropped.items():
        engine = state.engines[number]
        state.effects.cancel(number, strays)
        kill_strays_later(state, engine, [*engine.strays, *strays])


def on_controller_stopped(state: State, effects: Effects, event: ControllerStopped) -> None:
    """The cluster is shutting down: end all tasks."""
    attempts: dict[TaskId, Attempt] = {}
    for engine in state.engines.values():
        for task in engine.held.values():
            if has_begun(task, engine):
                attempts[task.id] = cut_attempt(task, engine, task.started, state.now, event.reason, "stop")
        state.release(engine, list(engine.held))
    for backlog in state.backlogs.values():
        backlog.clear()
    for task in list(state.tasks.values()):
        state.abort(task, event.reason, attempts.get(task.id))
    state.dependencies.news.clear()
    for engine in state.engines.values():
        state.pools.changed(engine)
