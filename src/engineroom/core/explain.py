"""Why is it not running? What a task waits for, in words and as data."""

from __future__ import annotations

from typing import Any

from ..ids import TaskId
from .placement.requirements import ANY, Requirement, in_words, requirement_of
from .scheduler import Scheduler
from .tasks import State, Task

#: Of a long list, this many ids are named.
NAMED = 5


def explain(scheduler: Scheduler, id: TaskId, now: float) -> dict[str, Any] | None:
    """The state of a task, and the reason it is in it; None if the core does not know it (any more).

    Returns
    -------
    dict
        `msg_id`; `state`: "waiting", "queued", "held" or "recovering"; `reason`: a sentence; `details`: what the
        sentence is made from.
    """
    task = scheduler.tasks.get(id)
    if task is None:
        return None
    details: dict[str, Any] = {"attempt": task.attempt, "retries_left": task.retries_left}
    match task.state:
        case State.WAITING:
            reason = _waiting(scheduler, task, now, details)
        case State.QUEUED if task.is_direct:
            reason = _behind(scheduler, task, details)
        case State.QUEUED:
            reason = _queued(scheduler, task, details)
        case State.HELD:
            reason = _held(task, now, details)
        case _:
            seconds = max(0.0, (scheduler.recovery_deadline or now) - now)
            reason = (
                "the controller was restarted, and waits for the engine that may still have this task: "
                f"for {seconds:.1f} s more at most"
            )
    if task.needs is not None and task.needs.refused:
        details["refused_by"] = sorted(task.needs.refused)
    if task.attempts:
        last = task.attempts[-1]
        reason += f". Attempt {last.number} on engine {last.engine} ended: {last.cause}"
    return {"msg_id": id, "state": task.state.name.lower(), "reason": reason, "details": details}


def _waiting(scheduler: Scheduler, task: Task, now: float, details: dict[str, Any]) -> str:
    waits, sentences = scheduler.graph.waiting[task.id], []
    for condition in waits.conditions:
        if condition.met:
            continue
        pending = [
            id
            for id in dict.fromkeys(condition.dependency.tasks)
            if any(one is condition for _, one in scheduler.graph.dependents.get(id, ()))
        ]
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


def _queued(scheduler: Scheduler, task: Task, details: dict[str, Any]) -> str:
    requirement = requirement_of(task, {engine.uuid: engine.id for engine in scheduler.engines.values()})
    pool = scheduler.pools.pools.get(requirement)
    queue = pool.queue if pool is not None else scheduler.pools.ready
    ahead = queue.ahead_of(task)
    fitting = [engine for engine in scheduler.engines.values() if requirement.fits(engine)]
    priority = task.spec.options.priority if task.spec.options is not None else 0
    details |= {"ahead": ahead, "priority": priority, "engines": [engine.id for engine in fitting]}
    if not scheduler.engines:
        return "there are no engines"
    if not fitting and requirement.depend:
        return _unsuitable(scheduler, requirement, details)
    if not fitting:
        return f"there is no engine {in_words(requirement)}: it ends as impossible unless one comes soon"
    one = f"an engine {in_words(requirement)}" if requirement != ANY else "an engine"
    busy = "which is" if len(fitting) == 1 else f"all {len(fitting)} of which are"
    return f"it waits for {one}, {busy} busy; {ahead} of its client's tasks with priority {priority} come before it"


def _unsuitable(scheduler: Scheduler, requirement: Requirement, details: dict[str, Any]) -> str:
    """What the engines say against tasks that depend on their properties."""
    allowed = {engine.id: engine for engine in scheduler.engines.values() if requirement.allows(engine)}
    against = {id: e.answers[requirement.depend] for id, e in allowed.items() if requirement.depend in e.answers}
    details |= {"against": against, "asked": [id for id in allowed if id not in against]}
    said = [f"engine {id}: {reason}" for id, reason in list(against.items())[:NAMED]]
    if len(against) > NAMED:
        said.append(f"and {len(against) - NAMED} more")
    if len(against) < len(allowed):
        said.append(f"{len(allowed) - len(against)} busy engines have not answered yet")
    words = in_words(requirement) if allowed else f"{in_words(requirement)}, and none is there that might be one"
    return f"it waits for an engine {words}" + (f" ({'; '.join(said)})" if said else "")


def _behind(scheduler: Scheduler, task: Task, details: dict[str, Any]) -> str:
    engine = scheduler.engines[task.spec.engine]
    ahead = len(engine.held) + engine.backlog.ahead_of(task)
    details |= {"ahead": ahead, "engine": engine.id}
    return f"it is for engine {engine.id}, which has {ahead} tasks to do before it"


def _held(task: Task, now: float, details: dict[str, Any]) -> str:
    engine = task.engine
    assert engine is not None
    ahead = list(engine.held).index(task.id)
    details |= {"ahead": ahead, "engine": engine.id, "host": engine.host}
    silent = max(0.0, now - engine.last_heard)
    if task.aborting:
        return f"it is being cancelled on engine {engine.id} ({engine.host})"
    if ahead:
        return f"it was given to engine {engine.id} ({engine.host}), which has {ahead} to do before it"
    return (
        f"it is running on engine {engine.id} ({engine.host}, pid {engine.pid}), or about to: the engine was last "
        f"heard of {silent:.1f} s ago"
    )


def _some(ids: list[TaskId]) -> str:
    named = ", ".join(ids[:NAMED])
    return named if len(ids) <= NAMED else f"{named} and {len(ids) - NAMED} more"
