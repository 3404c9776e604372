"""Engines join, come back, are silent, are lost, leave; and what that means for their tasks."""

from __future__ import annotations

from collections.abc import Mapping

from ...ids import EngineId, TaskId
from ...messages import Attempt
from ..effects import Effects
from ..engines import Engine, cut_attempt
from ..events import (
    EngineJoined,
    EngineLeft,
    EngineLost,
    EnginesLost,
    EnginesSilent,
    EnginesStopped,
    PropertiesAnswered,
    PropertiesChanged,
)
from ..placement.pools import Pool
from ..state import State
from ..tasks import Task, TaskState
from .cancellation import kill_later, kill_strays_later
from .recovery import engine_is_back

#: Seconds an engine has to give tasks back. One whose task holds the GIL cannot, for as long as that takes.
RECALL_ANSWER_SECONDS = 1.0
#: A task fails with its engine if memory ran out, and this many engines have died by then while they ran it. Once it is
#: tried again: another task may have taken the memory. After that it would take down one engine after the other.
MEMORY_DEATH_LIMIT = 2


# ---------------------------------------------------------------------------------------------- they come


def on_engine_joined(state: State, effects: Effects, event: EngineJoined) -> None:
    """An engine said Hello, for the first time or again."""
    engine = state.engines.get(event.engine)
    if engine is not None and engine.uuid != event.uuid:
        _remove(state, event.engine, "another engine took its place", running=None)
        engine = None
    if engine is None:
        engine = state.add_engine(event)
    elif engine.waiting:
        state.set_waiting(engine, ())  # it will say anew which of its tasks wait
    state.set_silent(engine, None)
    engine.asked.clear()  # the question, or the answer, may have been lost
    state.pools.properties_changed(engine)
    in_hand: dict[TaskId, int] = {}
    for held in event.held:  # it may also have an old result of a task that is being retried
        in_hand[held.id] = max(held.attempt, in_hand.get(held.id, 0))
    _take_stock(state, effects, engine, in_hand)
    # Tasks that it was given and does not have were lost on the way.
    missing = [id for id, task in engine.held.items() if in_hand.get(id) != task.attempt]
    lost = state.release(engine, missing)
    engine.recalled.clear()
    state.requeue(lost)
    engine_is_back(state, engine)
    state.fill_direct(engine)
    if engine.stopping:
        effects.stop(engine.id)  # it may not have heard
    state.do_what_is_due()  # recovered tasks that wait no longer may have used up their time before the restart


def _take_stock(state: State, effects: Effects, engine: Engine, in_hand: Mapping[TaskId, int]) -> None:
    """Go through the tasks that an engine has: it keeps those that it may, and is told to drop the others."""
    recalled: list[TaskId] = []
    cancelled: list[TaskId] = []
    strays: list[TaskId] = []
    unclaimed: dict[TaskId, int] = {}
    for id, attempt in in_hand.items():
        task = state.tasks.get(id)
        if task is None and state.unclaimed.until is not None and state.dependencies.outcomes.get(id) is None:
            unclaimed[id] = attempt
            continue
        if task is not None and task.state is TaskState.RECOVERING and state.may_have(engine, task, attempt):
            state.claim(engine, task, attempt)
        if task is None or task.engine != engine.id:
            cancelled.append(id)  # ended, or given to another engine: it would delay the engine's own tasks
            strays.append(id)
        elif task.cancelling:
            cancelled.append(id)
            kill_later(state, task)
        elif task.aborting:
            recalled.append(id)
    effects.to_find += state.unclaimed.note(engine, unclaimed)
    kill_strays_later(state, engine, strays)
    if recalled:
        effects.recall(engine.id, recalled)
    if cancelled:
        effects.cancel(engine.id, cancelled)


# ---------------------------------------------------------------------------------------------- they are silent


def on_engines_silent(state: State, effects: Effects, event: EnginesSilent) -> None:
    """These engines get no more tasks until they are heard again; others that were silent are."""
    for engine in list(state.engines.values()):
        state.set_silent(engine, event.engines.get(engine.id))


def expect_return(state: State, engine: Engine) -> None:
    """An engine is asked to give tasks back: see after a while whether it has answered."""
    state.after(RECALL_ANSWER_SECONDS, _check_return, engine)


def _check_return(state: State, engine: Engine) -> None:
    """An engine was asked to give tasks back some time ago. If it has been silent since, others run them.

    It reads its messages before it begins another task, so it will not run them too. If it has begun one all the same,
    its result comes too late, as that of an earlier attempt.
    """
    silent = state.now - engine.last_heard >= RECALL_ANSWER_SECONDS
    if state.engines.get(engine.id) is not engine or not engine.recalled or not silent:
        return
    ids = [task.id for task in engine.unstarted if task.id in engine.recalled and _may_be_taken(task)]
    tasks = state.release(engine, ids)
    for task in tasks:
        task.attempt += 1
    engine.hold_one()
    state.requeue(tasks)
    state.pools.changed(engine)


def _may_be_taken(task: Task) -> bool:
    """Whether another engine may run a task although this one may begin it at this moment."""
    return not (task.aborting or task.is_direct or task.at_most_once)


# ---------------------------------------------------------------------------------------------- they go


def on_engines_stopped(state: State, effects: Effects, event: EnginesStopped) -> None:
    """These engines get no more tasks, and leave; with `restart`, others take their places."""
    for id in event.engines:
        engine = state.engines.get(id)
        if engine is not None and not engine.stopping:
            state.stop_engine(engine, restart=event.restart)
        if engine is not None:
            engine.preempted = event.preempted or engine.preempted


def on_engine_left(state: State, effects: Effects, event: EngineLeft) -> None:
    """An engine said goodbye: what it runs is cut short, and that is nobody's fault."""
    engine = state.engines.get(event.engine)
    held = engine.held.items() if engine is not None else ()
    begun = next((id for id, task in held if task.started is not None), None)
    _remove(state, event.engine, "it left", begun, has_left=True)


def on_engines_lost(state: State, effects: Effects, event: EnginesLost) -> None:
    """These engines are gone together. Tasks are assigned when an event has been handled: when all of them are gone."""
    for engine in event.engines:
        _remove(state, engine, event.cause, _first_held(state, engine))


def _first_held(state: State, id: EngineId) -> TaskId | None:
    """What an engine is assumed to run, if nobody knows."""
    engine = state.engines.get(id)
    return next(iter(engine.held), None) if engine else None


def on_engine_lost(state: State, effects: Effects, event: EngineLost) -> None:
    """An engine is gone without a goodbye."""
    running = event.running if event.known else _first_held(state, event.engine)
    peak, begun, is_memory = event.peak_memory, event.begun, event.out_of_memory
    _remove(state, event.engine, event.cause, running, event.overran, peak, begun, is_memory)


def _remove(
    state: State,
    id: EngineId,
    cause: str,
    running: TaskId | None,
    overran: bool = False,
    peak_memory: int | None = None,
    at_most_once: frozenset[TaskId] | None = None,
    out_of_memory: bool = False,
    has_left: bool = False,
) -> None:
    """Forget an engine. Its tasks go to others, except the one that it was `running`, unless it `has_left` in order.

    Those that run at most once go to others only if it has not begun them: it has begun `at_most_once` (None: any).
    """
    engine = state.engines.get(id)
    if engine is None:
        return  # it is gone already
    direct = list(engine.backlog)
    begun = {running, *engine.waiting} if running is not None else set()
    had_to_leave = has_left or bool(engine.preempted)
    if engine.preempted:
        cause = f"preempted: {engine.preempted}"
    starts = {task.id: task.started for task in engine.held.values() if task.id in begun}
    held, pools = state.remove_engine(engine)
    back = []
    for task in held:
        attempt = None
        is_late = overran and task.id == running
        if task.id in begun:
            ended_by = "run_timeout" if is_late else "preemption" if had_to_leave else "death"
            attempt = cut_attempt(task, engine, starts[task.id], state.now, cause, ended_by, peak_memory)
        if task.aborting:
            state.abort(task, f"aborted; engine {id} was lost meanwhile: {cause}", attempt)
        elif attempt is not None and is_late:
            _end_overrun(state, task, engine, cause, attempt)
        elif task.is_direct:
            state.fail(task, "EngineError", _lost_with(engine, cause, task, attempt, running), engine, attempt=attempt)
        elif attempt is None and task.at_most_once and (at_most_once is None or task.id in at_most_once):
            state.fail(task, "EngineError", _in_doubt(engine, cause, task), engine)
        elif attempt is None:
            # It may have run, with its result lost on the way: another attempt, at no cost to its retries.
            task.attempt += 1
            back.append(task)
        elif had_to_leave and not task.at_most_once:
            state.retry(task, attempt, first=True)  # nobody's fault: it costs the task no retry
        else:
            limit = state.settings.death_limit
            limit = min(limit, MEMORY_DEATH_LIMIT) if out_of_memory else limit
            _retry_after_death(state, task, engine, cause, attempt, running, limit)
    for task in direct:
        state.fail(task, "EngineError", _lost_with(engine, cause, task, None, running), engine)
    state.requeue(back)
    for pool in pools:
        _recheck_pool(state, pool)


def _recheck_pool(state: State, pool: Pool) -> None:
    """An engine is gone that the tasks of a pool might have run on: they may have to wait for others, or end."""
    requirement = pool.requirement
    if state.pools.pools.get(requirement) is not pool:
        return
    if requirement.follows or state.pools.is_worn_out(requirement):
        for task in state.pools.take_out(pool):
            state.enqueue(task)
    elif (reason := state.pools.hopeless(requirement)) is not None:
        for task in state.pools.take_out(pool):
            state.fail(task, "ImpossibleDependency", reason + task.last_refusal)
    elif state.pools.is_orphan(pool):
        state.await_engine(pool)


def _retry_after_death(
    state: State, task: Task, engine: Engine, cause: str, attempt: Attempt, running: TaskId | None, limit: int
) -> None:
    """An engine died while it was running this task: it costs the task a retry. At `limit` deaths the task fails."""
    task.deaths += 1
    if task.retries_left > 0 and task.deaths < limit:
        task.retries_left -= 1
        state.retry(task, attempt, first=True)
        return
    message = _lost_with(engine, cause, task, attempt, running)
    if task.deaths > 1:
        message += f" It was running on {task.deaths} engines when they died, so it is not tried again."
    state.fail(task, "EngineError", message, engine, attempt=attempt)


def _end_overrun(state: State, task: Task, engine: Engine, cause: str, attempt: Attempt) -> None:
    """An engine was killed because this task ran for too long: it costs the task a retry."""
    if task.retries_left > 0 and not task.is_direct:
        task.retries_left -= 1
        state.retry(task, attempt, first=True)
        return
    state.fail(task, "TaskTimeout", cause, engine, attempt=attempt)


def _lost_with(engine: Engine, cause: str, task: Task, attempt: Attempt | None, running: TaskId | None) -> str:
    """What to say of a task that its engine took along; `attempt`: the one that this cuts short."""
    if attempt is None:
        doing = f"before it ran task {task.id}"
    elif running in (None, task.id):
        doing = f"while running task {task.id}"
    else:
        doing = f"while running task {running}; task {task.id} had begun there, and waited for other tasks"
    return f"engine {engine.id} ({engine.host}, pid {engine.pid}) was lost {doing}: {cause}."


def _in_doubt(engine: Engine, cause: str, task: Task) -> str:
    """What to say of a task that runs at most once, and that its engine may have begun."""
    return (
        f"engine {engine.id} ({engine.host}, pid {engine.pid}) was lost and may have run task {task.id}, whose result "
        f"has not arrived: {cause}. Under at_most_once the task is not run again."
    )


# ---------------------------------------------------------------------------------------------- their properties


def on_properties_answered(state: State, effects: Effects, event: PropertiesAnswered) -> None:
    """An engine says why its properties forbid tasks with these functions, or that they allow them."""
    engine = state.engines.get(event.engine)
    if engine is not None:
        state.pools.answered(engine, event.answers)
        for pool in [pool for requirement, pool in state.pools.pools.items() if requirement.failed]:
            if pool.requirement.depend in event.answers:
                _recheck_pool(state, pool)


def on_properties_changed(state: State, effects: Effects, event: PropertiesChanged) -> None:
    """The earlier answers of these engines are out of date."""
    for id in event.engines:
        engine = state.engines.get(id)
        if engine is not None:
            state.pools.properties_changed(engine)
