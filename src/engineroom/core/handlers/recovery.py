"""After a restart: unfinished tasks from the store, and the engines that come back with them.

A task from the store is RECOVERING until an engine claims it, its result comes, or no engine can have it any more. Then
it is submitted anew, as another attempt: an engine may have started it before the restart. A task that runs at most
once fails instead.

An engine can have a task as long as it may come back: until the deadline. Where it is known which engines were
connected before the restart, nobody waits longer than until all of these are back, or have ended. A task that names its
engines waits for these only.

Until the deadline, tasks that name engines wait for these although they have ended: others may come with their numbers.
So does a direct task that is submitted meanwhile: it is QUEUED. At the deadline direct tasks for engines that are not
there fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ...ids import EngineId
from ..effects import Effects
from ..engines import Engine
from ..events import AwaitedEnginesEnded, TasksRecovered
from ..state import State
from ..tasks import Needs, Task, TaskState
from ..unclaimed import UnclaimedTask
from .arrival import arrive, check_scheme, retries_of
from .cancellation import drop_unclaimed


def on_tasks_recovered(state: State, effects: Effects, event: TasksRecovered) -> None:
    """The store has these unfinished tasks."""
    state.recovery_deadline = state.unclaimed.until = event.deadline
    state.deadlines.add(event.deadline, _end_unclaimed, None)
    state.awaited = None if event.awaited is None else dict(event.awaited)
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
        _await_engines(state, task)
    _look_who_is_missing(state)
    state.do_what_is_due()


def engine_is_back(state: State, engine: Engine) -> None:
    """An engine has come back, and has claimed the tasks that it has: it runs the others that only it can have, too."""
    if state.recovery_deadline is None:
        return
    awaited, named = state.awaited, state.recovering_named.pop(engine.id, ())
    if awaited is not None and not awaited:
        _give_up(state, named)
        _end_early(state)
        return
    was_awaited = awaited is not None and awaited.pop(engine.uuid, None) is not None
    missing = state.recovering_named.keys() - state.engines.keys() if awaited is None else set(awaited.values())
    may_run = [t for t in named if t.state is TaskState.RECOVERING and not (t.aborting or t.at_most_once)]
    _submit_anew(state, [task for task in may_run if missing.isdisjoint(task.named_engines)])
    still = [task for task in named if task.state is TaskState.RECOVERING]
    if still:  # this engine may leave again before the others are back
        state.recovering_named[engine.id] = still
    if was_awaited:
        _look_who_is_missing(state)


def on_awaited_engines_ended(state: State, effects: Effects, event: AwaitedEnginesEnded) -> None:
    """Engines of before the restart have ended: no task waits for these."""
    for uuid in event.engines:
        if state.awaited and state.awaited.pop(uuid, None) is not None:
            _look_who_is_missing(state)
    state.do_what_is_due()


def end_recovery(state: State) -> None:
    """If the deadline has passed, no longer wait for engines that may come back."""
    if state.recovery_deadline is None or state.now < state.recovery_deadline:
        return
    state.end_recovery()
    _give_up(state, [task for task in state.tasks.values() if task.state is TaskState.RECOVERING])


def said_again(state: State, task: Task) -> UnclaimedTask | None:
    """A client has said a NEW task before a restart: an engine that came back with it goes on with it.

    Returns the task as the engine had it, if that has ended. A task of which nobody knows yet whether an engine has it
    is RECOVERING. Of one that runs at most once nobody will know, if no engine has it now.
    """
    found = state.unclaimed.take(task.id)
    if found is not None and state.may_have(found.engine, task, found.attempt):
        state.recover(task)
        if state.engines.get(found.engine.id) is found.engine:
            state.claim(found.engine, task, found.attempt, waits=found.waits)
            state.pools.changed(found.engine)
        return found if found.done is not None else None
    if state.recovery_deadline is not None and _may_come_back(state, task):
        _await_engines(state, task)
    elif task.at_most_once:
        state.dependencies.want(task)  # until it ends
        state.fail(task, "EngineError", _in_doubt(task))
    return None


def _await_engines(state: State, task: Task) -> None:
    """An engine may come back with a NEW task. If it asks for a scheme that there is not, it ends."""
    state.recover(task)
    if task.spec.options is not None and not task.is_direct:
        check_scheme(state, task)


def abort_again(state: State, task: Task) -> None:
    """A client was told before a restart that a NEW task was aborted: that stays so."""
    drop_unclaimed(state, (task.id,))
    state.dependencies.want(task)  # until it ends
    state.abort(task, "aborted before the controller's restart")


def _may_come_back(state: State, task: Task) -> bool:
    """Whether an engine is missing that may have a task."""
    named, awaited = task.named_engines, state.awaited
    if awaited is None or task.is_direct:  # direct tasks wait for the number in any case
        return not named or any(number not in state.engines for number in named)
    return any(not named or number in named for number in awaited.values())


def _end_unclaimed(state: State, _: None) -> None:
    """Clients had their time."""
    drop_unclaimed(state, state.unclaimed.end())


def _look_who_is_missing(state: State) -> None:
    """Once all engines are back that can have a task, no task waits, but for those that name engines that are gone."""
    if state.awaited is None or state.awaited:
        return
    recovering = [task for task in state.tasks.values() if task.state is TaskState.RECOVERING]
    _give_up(state, [task for task in recovering if _is_for_one_of(task, state.engines)])
    _end_early(state)


def _is_for_one_of(task: Task, engines: Mapping[EngineId, Engine]) -> bool:
    """Whether one of these engines may run a task, as far as it names engines."""
    return not task.named_engines or any(number in engines for number in task.named_engines)


def _end_early(state: State) -> None:
    """All engines are back: end the recovery before its deadline, unless tasks wait for engines that are gone."""
    for number, tasks in list(state.recovering_named.items()):
        if any(task.state is TaskState.RECOVERING for task in tasks):
            return
        del state.recovering_named[number]
    if state.backlogs.keys() <= state.engines.keys():
        state.end_recovery()


def _give_up(state: State, tasks: Sequence[Task]) -> None:
    """No engine comes back with these."""
    anew: list[Task] = []
    for task in tasks:
        if task.state is not TaskState.RECOVERING:
            continue  # it has ended together with one before it
        if task.aborting:
            state.abort(task, "aborted; its engine did not come back with it")
        elif task.is_direct and task.spec.engine not in state.engines:
            reason = f"engine {task.spec.engine} did not come back after the controller's restart"
            state.fail(task, "EngineError", reason)
        elif task.at_most_once:
            state.fail(task, "EngineError", _in_doubt(task))
        else:
            anew.append(task)
    _submit_anew(state, anew)


def _in_doubt(task: Task) -> str:
    return (
        f"task {task.id} may have been started before the controller's restart, and no engine came back with it. Under "
        "at_most_once it is not run again."
    )


def _submit_anew(state: State, tasks: Sequence[Task]) -> None:
    """Submit tasks anew, in their order. Direct ones come before those that were submitted meanwhile."""
    for task in tasks:
        task.attempt += 1  # it may have been started before the restart
        state.unstart(task)
    direct = [task for task in tasks if task.is_direct]
    for task in reversed(direct):
        arrive(state, task, first=True)
    for number in dict.fromkeys(task.spec.engine for task in direct):
        state.fill_direct(state.engines[number])
    for task in tasks:
        if not task.is_direct:
            arrive(state, task)
