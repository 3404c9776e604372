"""Tasks that wait for others: they begin to wait, go on when those have ended, or end because that cannot be."""

from __future__ import annotations

from ...messages import TaskOptions
from ..dependencies import Impossible, Waiting
from ..effects import Effects
from ..events import OutcomesFound
from ..placement.requirements import in_words
from ..state import State
from ..tasks import Needs, Task, TaskState
from .cancellation import drop_unclaimed


def depends(options: TaskOptions) -> bool:
    """Whether a task with these options waits for others."""
    return options.after is not None or options.follow is not None or bool(options.inputs)


def begin_waiting(state: State, task: Task) -> None:
    """Have a task wait for what it depends on; queue it if that has ended already."""
    try:
        waiting = state.wait(task)
    except Impossible as impossible:
        _end_as_impossible(state, task, impossible)
        return
    if waiting.is_over:
        _go_on(state, task, waiting)


def on_outcomes_found(state: State, effects: Effects, event: OutcomesFound) -> None:
    """The store says how tasks ended."""
    if state.unclaimed:
        drop_unclaimed(state, [id for id, outcome in event.outcomes.items() if outcome is not None])
    state.dependencies.news += event.outcomes.items()


def wait_again(state: State) -> None:
    """Have tasks wait for the arguments that must be made anew."""
    while state.to_wait:
        task = state.to_wait.pop()
        if task.state is TaskState.QUEUED:
            begin_waiting(state, task)


def settle(state: State) -> None:
    """Tasks have ended: let those that waited for them go on, or end. Without recursion, however long the chain."""
    for id, outcome in state.dependencies.news:  # grows while tasks end here
        for task, verdict in state.dependencies.ended(id, outcome):
            if isinstance(verdict, Impossible):
                _end_as_impossible(state, task, verdict)
            else:
                _go_on(state, task, verdict)
    state.dependencies.news.clear()


def _go_on(state: State, task: Task, waiting: Waiting) -> None:
    """All that a task depends on has ended as it wished."""
    if waiting.followed is not None:
        task.needs = task.needs or Needs()
        task.needs.followed = waiting.followed
    state.enqueue(task)


def _end_as_impossible(state: State, task: Task, impossible: Impossible) -> None:
    blame = impossible.blame.behind(task.id) if impossible.blame is not None else None
    state.fail(task, impossible.error, f"task {task.id} can never run: {impossible.reason}", blame=blame)


def out_of_time(state: State, task: Task) -> None:
    """A task has used up its `timeout`: end it if it still waits for others, or for an engine that there is not."""
    options = task.spec.options
    assert options is not None
    waiting = state.dependencies.waiting.get(task.id)
    refused = task.needs.refused if task.needs is not None else ()
    if waiting is not None and waiting.task is task:
        pending = sum(condition.pending for condition in waiting.conditions if not condition.met)
        what = f"waited {options.timeout:g} s for the tasks it depends on: {pending} had not ended"
    elif task.state is TaskState.QUEUED and options.resources and _waits_for_resources(state, task):
        what = f"found no engine {in_words(state.pools.requirement_of(task))} within {options.timeout:g} s"
    elif task.state is TaskState.QUEUED and refused:
        what = f"found no engine within {options.timeout:g} s: {len(refused)} raised UnmetDependency"
        what += task.last_refusal
    else:
        return
    state.fail(task, "DependencyTimeout", f"task {task.id} {what}")


def _waits_for_resources(state: State, task: Task) -> bool:
    """Whether no engine has the resources that a queued task needs."""
    pool = state.pools.pools.get(state.pools.requirement_of(task))
    return pool is not None and state.pools.is_orphan(pool)
