"""After a restart: unfinished tasks from the store, and the engines that come back with them.

A task from the store is RECOVERING until an engine claims it, its result comes, or the deadline passes. After the
deadline it is submitted anew, as another attempt: an engine may have started it before the restart. A direct task is
submitted anew when its engine comes back without it: no other engine can have it. A task that runs at most once fails
at the deadline instead.

A direct task that comes before the deadline for an engine that is not there is QUEUED until this engine comes back. It
fails at the deadline.
"""

from __future__ import annotations

from collections import Counter

from ..effects import Effects
from ..engines import Engine
from ..events import TasksRecovered
from ..state import State
from ..tasks import Needs, Task, TaskState
from .submission import arrive, check_scheme, retries_of


def on_tasks_recovered(state: State, effects: Effects, event: TasksRecovered) -> None:
    """The store has these unfinished tasks."""
    state.recovery_deadline = event.deadline
    for found in event.tasks:
        if found.spec.id in state.tasks:
            continue  # a repetition
        retries = retries_of(found.spec)
        task = Task(found.spec, found.client, found.frames, retries, started=found.started)
        if found.attempts:
            task.attempts = list(found.attempts)
            task.attempt = found.attempts[-1].number + 1
            causes = Counter(attempt.ended_by for attempt in found.attempts)
            task.retries_left = max(0, retries - causes.total() + causes["refusal"])  # a refusal costs no retry
            task.deaths = causes["death"]
            failed = frozenset(attempt.engine_uuid for attempt in found.attempts if attempt.ended_by == "task")
            if failed and not task.is_direct:
                task.needs = Needs(failed=failed)
        state.recover(task)
        if found.spec.options is not None and not task.is_direct:
            check_scheme(state, task)


def engine_is_back(state: State, engine: Engine) -> None:
    """An engine has come back, and has claimed those of its direct tasks that it has: it runs the others, too."""
    for task in state.recovering_direct.pop(engine.id, ()):
        if task.state is TaskState.RECOVERING and not (task.aborting or task.at_most_once):
            _submit_anew(state, task)


def end_recovery(state: State) -> None:
    """If the deadline has passed, no longer wait for engines that may come back."""
    if state.recovery_deadline is None or state.now < state.recovery_deadline:
        return
    state.end_recovery()
    for task in [t for t in state.tasks.values() if t.state is TaskState.RECOVERING]:
        if task.state is not TaskState.RECOVERING:
            continue  # it has ended together with one before it
        if task.aborting:
            state.abort(task, "aborted; its engine did not come back with it")
        elif task.is_direct and task.spec.engine not in state.engines:
            reason = f"engine {task.spec.engine} did not come back after the controller's restart"
            state.fail(task, "EngineError", reason)
        elif task.at_most_once:
            reason = (
                f"task {task.id} may have been started before the controller's restart, and no engine came back with "
                "it. Under at_most_once it is not run again."
            )
            state.fail(task, "EngineError", reason)
        else:
            _submit_anew(state, task)


def _submit_anew(state: State, task: Task) -> None:
    task.attempt += 1  # it may have been started before the restart
    state.unstart(task)
    arrive(state, task)
