"""Explains why a task is not running: what it waits for, in words and as data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..ids import ClientId, TaskId
from .dependencies import Condition
from .engines import Engine
from .placement.queues import TaskQueue
from .placement.requirements import ANY, Requirement, in_words
from .scheduler import Scheduler
from .state import State
from .tasks import Task, TaskState

#: An explanation names at most this many tasks or engines of a list.
NAMED = 5


class _Places:
    """What takes a look through a whole queue or table: each is looked through once for all tasks of a question."""

    def __init__(self, ids: Iterable[TaskId]) -> None:
        self._ids = set(ids)
        self._ahead: dict[tuple[int, ClientId], dict[TaskId, int]] = {}
        self._conditions: dict[TaskId, set[int]] = {}

    def ahead_of(self, queue: TaskQueue, task: Task) -> int:
        """How many tasks of its client come before a task in a queue."""
        key = id(queue), task.client
        if key not in self._ahead:
            self._ahead[key] = queue.places(task.client, self._ids)
        return self._ahead[key].get(task.id, 0)

    def pending(self, state: State, condition: Condition) -> list[TaskId]:
        """The tasks that a condition still waits for."""
        conditions, dependents = self._conditions, state.dependencies.dependents
        found = []
        for other in dict.fromkeys(condition.dependency.tasks):
            if other not in conditions:
                conditions[other] = {id(each) for _, each in dependents.get(other, ())}
            if id(condition) in conditions[other]:
                found.append(other)
        return found


def explain(scheduler: Scheduler, ids: Sequence[TaskId], now: float) -> dict[TaskId, dict[str, Any] | None]:
    """The state of tasks, and why they are in this state; None: the core does not know the task (any more).

    Returns
    -------
    dict
        For each task: `msg_id`; `state`: "waiting", "queued", "held" or "recovering"; `reason`: a sentence; `details`:
        the numbers and ids in this sentence, and more.
    """
    places = _Places(ids)
    return {id: _explain(scheduler, id, now, places) for id in ids}


def _explain(scheduler: Scheduler, id: TaskId, now: float, places: _Places) -> dict[str, Any] | None:
    state, task = scheduler.state, scheduler.task(id)
    if task is None:
        return None
    details: dict[str, Any] = {"attempt": task.attempt, "retries_left": task.retries_left}
    match task.state:
        case TaskState.WAITING:
            reason = _waiting(state, task, now, details, places)
        case TaskState.QUEUED if task.is_direct:
            reason = _behind(state, task, now, details, places)
        case TaskState.QUEUED:
            reason = _queued(state, task, now, details, places)
        case TaskState.HELD:
            reason = _held(state, task, now, details)
        case _:
            reason = _recovering(state, now, details)
    if task.needs is not None and task.needs.refused:
        details["refused_by"] = sorted(task.needs.refused)
    if task.needs is not None and task.needs.failed:
        details["failed_on"] = sorted(task.needs.failed)
    if task.attempts:
        last = task.attempts[-1]
        reason += f". Attempt {last.number} on engine {last.engine} ended: {last.cause}"
    return {"msg_id": id, "state": task.state.name.lower(), "reason": reason, "details": details}


def _waiting(state: State, task: Task, now: float, details: dict[str, Any], places: _Places) -> str:
    waiting, sentences = state.dependencies.waiting[task.id], []
    for condition in waiting.conditions:
        if condition.met:
            continue
        pending = places.pending(state, condition)
        details[condition.word] = {"pending": pending, "of": len(condition.dependency.tasks)}
        what = {
            "after": "the end of",
            "follow": "an engine on which these ran:",
            "inputs": "the results it takes as arguments from",
        }[condition.word]
        count = len(condition.dependency.tasks)
        which = "" if condition.dependency.all else "any of "
        sentences.append(f"it waits for {what} {which}{_some(pending)} ({len(pending)} of {count} pending)")
    if task.needs is not None and task.needs.deadline is not None:
        details["seconds_left"] = round(task.needs.deadline - now, 3)
        sentences.append(f"for {max(0.0, task.needs.deadline - now):.1f} s more at most")
    return ", ".join(sentences)


def _queued(state: State, task: Task, now: float, details: dict[str, Any], places: _Places) -> str:
    requirement = state.pools.requirement_of(task)
    pool = state.pools.pools.get(requirement)
    queue = pool.queue if pool is not None else state.pools.ready
    ahead = places.ahead_of(queue, task)
    fitting = [engine for engine in state.engines.values() if requirement.fits(engine)]
    priority = task.spec.options.priority if task.spec.options is not None else 0
    details |= {"ahead": ahead, "priority": priority, "engines": [engine.id for engine in fitting]}
    if not state.engines:
        return "there are no engines"
    if not fitting and requirement.depend:
        return _unsuitable(state, requirement, details)
    if not fitting:
        return f"there is no engine {in_words(requirement)}: it ends as impossible unless one comes soon"
    one = f"an engine {in_words(requirement)}" if requirement != ANY else "an engine"
    busy = "which is" if len(fitting) == 1 else f"all {len(fitting)} of which are"
    reason = f"it waits for {one}, {busy} busy; {ahead} of its client's tasks with priority {priority} come before it"
    if silent := {engine.id: _silent_for(engine, now) for engine in fitting if engine.silent_since is not None}:
        details["silent"] = silent
        reason += f". {len(silent)} of these engines are silent: {_some([str(id) for id in silent])}"
    if waiting := {engine.id: sorted(engine.waiting) for engine in fitting if engine.waiting}:
        details["waiting"] = waiting
        tasks = [id for ids in waiting.values() for id in ids]
        reason += f". On {len(waiting)} of these engines tasks wait for other tasks ({_some(tasks)})"
    return reason


def _unsuitable(state: State, requirement: Requirement, details: dict[str, Any]) -> str:
    """What the engines say against tasks that depend on their properties."""
    allowed = {engine.id: engine for engine in state.engines.values() if requirement.allows(engine)}
    against = {id: e.answers[requirement.depend] for id, e in allowed.items() if requirement.depend in e.answers}
    details |= {"against": against, "asked": [id for id in allowed if id not in against]}
    said = [f"engine {id}: {reason}" for id, reason in list(against.items())[:NAMED]]
    if len(against) > NAMED:
        said.append(f"and {len(against) - NAMED} more")
    if len(against) < len(allowed):
        said.append(f"{len(allowed) - len(against)} busy engines have not answered yet")
    words = in_words(requirement) if allowed else f"{in_words(requirement)}, and none is there that might be one"
    return f"it waits for an engine {words}" + (f" ({'; '.join(said)})" if said else "")


def _recovering(state: State, now: float, details: dict[str, Any]) -> str:
    reason = (
        "the controller was restarted, and waits for the engine that may still have this task: "
        f"for {_seconds_of_recovery(state, now):.1f} s more at most"
    )
    if state.awaited:
        details["missing"] = missing = sorted(state.awaited.values())
        reason += f". Engines that have not come back: {_some([str(number) for number in missing])}"
    return reason


def _seconds_of_recovery(state: State, now: float) -> float:
    """How long engines may still come back."""
    return max(0.0, (state.recovery_deadline or now) - now)


def _behind(state: State, task: Task, now: float, details: dict[str, Any], places: _Places) -> str:
    number = task.spec.engine
    engine, ahead = state.engines.get(number), places.ahead_of(state.backlogs[number], task)
    details |= {"ahead": ahead, "engine": number}
    if engine is None:
        return (
            f"the controller was restarted, and engine {number} may come back: "
            f"for {_seconds_of_recovery(state, now):.1f} s more at most"
        )
    details["ahead"] = ahead = ahead + len(engine.held)
    silent = ""
    if engine.silent_since is not None:
        details["silent"] = {engine.id: _silent_for(engine, now)}
        silent = f", and has been silent for {_silent_for(engine, now):.1f} s"
    return f"it is for engine {engine.id}, which has {ahead} tasks to do before it{silent}"


def _silent_for(engine: Engine, now: float) -> float:
    return max(0.0, now - engine.silent_since) if engine.silent_since is not None else 0.0


def _held(state: State, task: Task, now: float, details: dict[str, Any]) -> str:
    assert task.engine is not None
    engine = state.engines[task.engine]
    ahead = 0 if task.id in engine.waiting else [id for id in engine.held if id not in engine.waiting].index(task.id)
    details |= {"ahead": ahead, "engine": engine.id, "host": engine.host}
    silent = max(0.0, now - engine.last_heard)
    if task.aborting:
        return f"it is being cancelled on engine {engine.id} ({engine.host})"
    if task.id in engine.waiting:
        others = len(engine.held) - len(engine.waiting)
        details["waiting"] = True
        return (
            f"it has begun on engine {engine.id} ({engine.host}, pid {engine.pid}), and waits for other tasks. "
            f"The engine runs others meanwhile: it has {others} of them"
        )
    if ahead:
        return f"it was given to engine {engine.id} ({engine.host}), which has {ahead} to do before it"
    if task.started is not None:
        details["started"] = task.started
        since = max(0.0, now - task.started)
        return f"it has been running on engine {engine.id} ({engine.host}, pid {engine.pid}) for {since:.3g} s"
    return (
        f"it is running on engine {engine.id} ({engine.host}, pid {engine.pid}), or about to: the engine was last "
        f"heard of {silent:.1f} s ago"
    )


def _some(ids: Sequence[str]) -> str:
    named = ", ".join(ids[:NAMED])
    return named if len(ids) <= NAMED else f"{named} and {len(ids) - NAMED} more"
