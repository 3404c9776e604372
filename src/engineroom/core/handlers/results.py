"""Engines announce the tasks that they run, send outcomes, give tasks back, and say which tasks wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...ids import TaskId
from ...messages import TaskDone
from ..effects import Effects
from ..engines import Engine, past_attempt
from ..events import TasksFinished, TasksReturned, TaskStarted, TasksWaiting
from ..state import State
from ..tasks import Needs, Task
from .waiting import out_of_time


def on_task_started(state: State, effects: Effects, event: TaskStarted) -> None:
    """An engine runs a task: its record says so from now on."""
    engine = state.engines.get(event.engine)
    task = engine.held.get(event.task) if engine is not None else None
    if engine is None or task is None or task.attempt != event.attempt:
        return  # the core has given up this attempt
    engine.last_heard = state.now
    if task.started != event.started:
        state.start(task, event.started)


def on_tasks_finished(state: State, effects: Effects, event: TasksFinished) -> None:
    """An engine sent outcomes: end their tasks, or try them again."""
    take_outcomes(state, state.engines.get(event.engine), event.results, event.frames)


def take_outcomes(
    state: State, engine: Engine | None, results: Sequence[TaskDone], frames: Mapping[TaskId, Sequence[Any]]
) -> None:
    """What an engine (None: it is gone) has sent: end these tasks, or try them again."""
    accepted = state.finish(engine, results, frames, _retry_if_allowed)
    if engine is not None:
        engine.last_heard = state.now
        engine.completed += len(accepted)
        engine.learn(accepted)
        state.fill_direct(engine)


def _retry_if_allowed(state: State, task: Task, done: TaskDone, engine: Engine | None) -> bool:
    """Queue another attempt of a task that did not succeed, if it has one left; returns whether it did."""
    if done.status == "unmet":
        done.status = "error"
        if engine is None or task.is_direct or task.aborting or task.at_most_once:
            return False
        task.needs = task.needs or Needs()
        task.needs.refused |= {engine.uuid}
        attempt = past_attempt(task, done, engine, "refusal")
        if task.needs.deadline is not None and state.now >= task.needs.deadline:
            state.end_attempt(task, attempt)
            out_of_time(state, task)
        else:
            state.retry(task, attempt, first=True)
        return True
    if done.status == "error" and task.retries_left > 0 and not task.aborting:
        task.retries_left -= 1
        if engine is not None and not task.is_direct:
            task.needs = task.needs or Needs()
            task.needs.failed |= {engine.uuid}
        state.retry(task, past_attempt(task, done, engine), first=False)
        return True
    return False


def on_tasks_returned(state: State, effects: Effects, event: TasksReturned) -> None:
    """An engine gives back tasks that it has not started: others may run them."""
    engine = state.engines.get(event.engine)
    if engine is None:
        return
    engine.last_heard = state.now
    # A task that it does not hold, or not in this attempt, was given up before: it is not the engine's to return.
    held = engine.held
    returned = [one.id for one in event.tasks if one.id in held and held[one.id].attempt == one.attempt]
    engine.recalled.clear()
    if state.unclaimed:
        state.unclaimed.drop(engine, {one.id for one in event.tasks})
    state.requeue(state.release(engine, returned))
    state.fill_direct(engine)


def on_tasks_waiting(state: State, effects: Effects, event: TasksWaiting) -> None:
    """These tasks of an engine wait for others: it has room for more."""
    engine = state.engines.get(event.engine)
    if engine is None:
        return
    engine.last_heard = state.now
    state.set_waiting(engine, event.tasks)
    state.fill_direct(engine)
