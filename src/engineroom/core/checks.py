"""What is always true of a scheduler between two events. Tests and simulations call `check` after each event."""

from __future__ import annotations

from collections import Counter

from .placement.requirements import requirement_of
from .scheduler import Scheduler
from .state import State
from .tasks import TaskState


def check(scheduler: Scheduler) -> None:
    """Raise AssertionError naming the first thing that is wrong."""
    state = scheduler.state
    held_by = _check_engines(state)
    _check_queues(state)
    queued = {task.id for task in scheduler.queued()}
    for backlog in state.backlogs.values():
        queued |= {task.id for task in backlog}
    for id, task in state.tasks.items():
        match task.state:
            case TaskState.QUEUED:
                assert id in queued, f"{task} is in no queue"
            case TaskState.HELD:
                assert id in held_by, f"{task} is held by no engine"
            case TaskState.RECOVERING:
                assert state.recovery_deadline is not None, f"{task} would wait for ever"
            case TaskState.WAITING:
                assert id in state.dependencies.waiting, f"{task} waits for nothing"
            case TaskState.ENDED:
                raise AssertionError(f"{task} has ended and is still known")
            case TaskState.NEW:
                raise AssertionError(f"{task} was forgotten on its way in")
        assert (task.engine is not None) == (task.state is TaskState.HELD)
        may_run = task.state in (TaskState.HELD, TaskState.RECOVERING)
        assert task.started is None or may_run, f"{task} is said to run, and does not"
    assert queued <= set(state.tasks), "a queue holds tasks that are not known"
    _check_dependencies(state)


def _check_engines(state: State) -> dict[str, int]:
    held_by: dict[str, int] = {}
    index, numbers = state.pools.index, {e.uuid: e.id for e in state.engines.values()}
    assert state.backlogs.keys() >= state.engines.keys()
    absent = state.backlogs.keys() - state.engines.keys()
    assert not absent or state.recovery_deadline is not None, f"direct tasks wait for ever for engines {absent}"
    for engine in state.engines.values():
        assert engine.backlog is state.backlogs[engine.id]
        for id, task in engine.held.items():
            assert id not in held_by, f"{id} is held by engines {held_by[id]} and {engine.id}"
            held_by[id] = engine.id
            assert task.engine == engine.id, f"{task} is held by {engine} but names engine {task.engine}"
            assert task.state is TaskState.HELD, f"{task} is held by {engine}"
            assert state.tasks.get(id) is task, f"{task} is held but not known"
            if task.is_direct:
                assert task.spec.engine == engine.id, f"direct {task} on {engine}"
            else:
                requirement = requirement_of(task, numbers)
                if requirement.excludes or not requirement.follows:  # another that it followed may have gone
                    assert requirement.allows(engine), f"{task} needs {requirement}, but is on {engine}"
        assert engine.waiting <= set(engine.held), f"{engine} waits in tasks that it does not hold"
        assert engine.recalled <= set(engine.held), f"{engine} is asked for what it does not hold"
        assert (engine in index) == engine.has_room, f"{engine} is in the index without room, or not in it with room"
        is_idle = engine.has_room and len(engine.held) == len(engine.waiting)
        assert (engine.id in state.pools.idle) == is_idle, f"{engine} is idle and not listed as idle, or the reverse"
        assert not (any(engine.backlog) and engine.has_room), f"{engine} has room and direct tasks wait"
    return held_by


def _check_queues(state: State) -> None:
    pools = state.pools
    queues = [pools.ready, *(pool.queue for pool in pools.pools.values())]
    queues += state.backlogs.values()
    entries = Counter(task.id for queue in queues for task in queue)
    assert not entries or max(entries.values()) == 1, f"queued twice: {entries.most_common(3)}"
    if any(pools.ready):
        assert pools.index.pick() is None, "an engine has room and tasks wait"
    for requirement, pool in pools.pools.items():
        assert pool.requirement == requirement
        assert not (any(pool.queue) and pools.is_worn_out(requirement)), f"no engine is left for {requirement}"
        fitting = [engine for engine in state.engines.values() if requirement.fits(engine)]
        if any(pool.queue):
            assert pool.is_stuck, f"tasks wait in a pool that is never looked at: {requirement}"
            assert not any(engine.has_room for engine in fitting), f"an engine has room and tasks wait: {requirement}"
            allowed = any(requirement.allows(engine) for engine in state.engines.values())
            bound = requirement.targets is not None or requirement.excludes
            assert allowed or requirement.resources or not bound, f"no engine will ever run what waits: {requirement}"
        if requirement.depend:
            for engine in state.engines.values():
                known = requirement.depend in engine.answers or requirement.depend in engine.asked
                assert known or not requirement.allows(engine), f"{engine} is not asked about {requirement}"
        if pool.engines is not None:
            assert pool.engines == {engine.id: engine for engine in fitting}, f"{requirement} counts on others"


def _check_dependencies(state: State) -> None:
    dependencies = state.dependencies
    for id, waiting in dependencies.waiting.items():
        task = state.tasks.get(id)
        assert task is waiting.task, f"{waiting.task} waits, but is not known"
        assert task.state is TaskState.WAITING, f"{task} waits no more"
        assert not waiting.is_over, f"{task} has nothing to wait for"
        edges = [
            other
            for condition in waiting.conditions
            for other in set(condition.dependency.tasks)
            if any(one is condition for _, one in dependencies.dependents.get(other, ()))
        ]
        assert len(edges) == sum(condition.pending for condition in waiting.conditions), f"{task}: an edge is lost"
    wanted = Counter(id for task in state.tasks.values() if task.spec.options for id in task.spec.options.inputs)
    assert dict(wanted) == dependencies.wanted, "the results that are wanted are miscounted"


def check_at_rest(scheduler: Scheduler) -> None:
    """Raise AssertionError unless all tasks have ended and nothing of them is left but their outcomes."""
    check(scheduler)
    assert not scheduler.tasks, "tasks that have ended are still known"
    assert not any(engine.load for engine in scheduler.engines.values()), "an engine holds ended tasks"
    assert not scheduler.state.dependencies.waiting, "ended tasks wait"
    assert not scheduler.state.dependencies.wanted, "results are wanted by tasks that have ended"
