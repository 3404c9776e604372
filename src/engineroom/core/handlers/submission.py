"""Tasks come: from clients, or with an outcome that is known already. And other clients begin to wait for them."""

from __future__ import annotations

from ..effects import Effects
from ..events import TasksAnswered, TasksSubmitted, TasksWatched
from ..placement.requirements import is_plain
from ..state import State
from ..tasks import Task, TaskState
from ..unclaimed import UnclaimedTask
from .arrival import arrive, retries_of
from .recovery import abort_again, said_again
from .results import take_outcomes


def on_tasks_submitted(state: State, effects: Effects, event: TasksSubmitted) -> None:
    """A client submitted tasks: queue them, have them wait for others, or end them."""
    known, client, frames, new, plain = state.tasks, event.client, event.frames, [], []
    decides = state.settings.scheme != "pure"  # which refuses some options
    ended: list[UnclaimedTask] = []
    for spec in event.tasks:
        id = spec.id
        if id in known:
            continue  # a repetition
        task = known[id] = Task(spec, client)
        new.append(task)
        if frames:
            task.frames = frames.get(id, ())
        options = spec.options
        if options is not None:
            task.retries_left = retries_of(spec)
        if event.former:
            if id in event.aborted:
                abort_again(state, task)
            elif (found := said_again(state, task)) is not None:
                ended.append(found)
            if task.state is not TaskState.NEW:
                continue
        if spec.engine < 0 and (options is None or (decides and is_plain(options))):
            plain.append(task)  # `arrive` would only enqueue it
        else:
            arrive(state, task)
    if plain:
        state.enqueue_plain(plain, client)
    if new:
        effects.record(new)
    for found in ended:
        assert found.done is not None
        engine = found.engine if state.engines.get(found.engine.id) is found.engine else None
        take_outcomes(state, engine, [found.done], {found.done.id: found.frames})


def on_tasks_answered(state: State, effects: Effects, event: TasksAnswered) -> None:
    """A client submitted tasks whose outcomes are known already: end them."""
    for answer in event.answers:
        id = answer.spec.id
        if id in state.tasks or state.dependencies.outcomes.get(id) is not None:
            continue  # a repetition
        task = Task(answer.spec, event.client, answer.frames)
        state.dependencies.want(task)  # until it ends
        state.end(task, answer.done, answer.result_frames, answer.engine)
    state.dependencies.outcomes.trim()


def on_tasks_watched(state: State, effects: Effects, event: TasksWatched) -> None:
    """Another client waits for these tasks, too."""
    for id in event.tasks:
        task = state.tasks.get(id)
        if task is not None and task.client != event.client:
            task.watchers = (task.watchers or set()) | {event.client}
