"""What is always true of a scheduler between two events. Tests call `check` after each."""

from __future__ import annotations

from collections import Counter

from .placement.requirements import requirement_of
from .scheduler import Scheduler
from .tasks import State


def check(scheduler: Scheduler) -> None:
    """Raise AssertionError naming the first thing that is wrong."""
    held_by = _check_engines(scheduler)
    _check_queues(scheduler)
    queued = {task.id for task in scheduler.queued()}
    for engine in scheduler.engines.values():
        queued |= {task.id for task in engine.backlog}
    for id, task in scheduler.tasks.items():
        match task.state:
            case State.QUEUED:
                assert id in queued, f"{task} is in no queue"
            case State.HELD:
                assert id in held_by, f"{task} is held by nobody"
            case State.RECOVERING:
                assert scheduler.recovery_deadline is not None, f"{task} would wait for ever"
            case State.WAITING:
                assert id in scheduler.graph.waiting, f"{task} waits for nothing"
            case State.ENDED:
                raise AssertionError(f"{task} has ended and is still known")
        assert (task.engine is not None) == (task.state is State.HELD)
    assert queued <= set(scheduler.tasks), "a queue holds tasks nobody knows"
    _check_graph(scheduler)


def _check_engines(scheduler: Scheduler) -> dict[str, int]:
    held_by: dict[str, int] = {}
    index, numbers = scheduler.pools.index, {e.uuid: e.id for e in scheduler.engines.values()}
    for engine in scheduler.engines.values():
        for id, task in engine.held.items():
            assert id not in held_by, f"{id} is held by engines {held_by[id]} and {engine.id}"
            held_by[id] = engine.id
            assert task.engine is engine, f"{task} is held by {engine} but thinks {task.engine}"
            assert task.state is State.HELD, f"{task} is held by {engine}"
            assert scheduler.tasks.get(id) is task, f"{task} is held but not known"
            if task.is_direct:
                assert task.spec.engine == engine.id, f"direct {task} on {engine}"
            else:
                requirement = requirement_of(task, numbers)
                if requirement.refused or not requirement.follows:  # another that it followed may have gone
                    assert requirement.allows(engine), f"{task} needs {requirement}, but is on {engine}"
        assert engine.recalled <= set(engine.held), f"{engine} is asked for what it does not hold"
        assert (engine in index) == engine.has_room, f"{engine} is in the index without room, or not in it with room"
        is_idle = engine.has_room and not engine.held
        assert (engine.id in scheduler.pools.idle) == is_idle, f"{engine} is idle, and nobody knows, or the reverse"
        assert not (any(engine.backlog) and engine.has_room), f"{engine} has room and direct tasks wait"
    return held_by


def _check_queues(scheduler: Scheduler) -> None:
    pools = scheduler.pools
    queues = [pools.ready, *(pool.queue for pool in pools.pools.values())]
    queues += [engine.backlog for engine in scheduler.engines.values()]
    entries = Counter(task.id for queue in queues for task in queue)
    assert not entries or max(entries.values()) == 1, f"queued twice: {entries.most_common(3)}"
    if any(pools.ready):
        assert pools.index.pick() is None, "an engine has room and tasks wait"
    for requirement, pool in pools.pools.items():
        assert pool.requirement == requirement
        fitting = [engine for engine in scheduler.engines.values() if requirement.fits(engine)]
        if any(pool.queue):
            assert pool.is_stuck, f"nobody will look at {requirement}"
            assert not any(engine.has_room for engine in fitting), f"an engine has room and tasks wait: {requirement}"
            allowed = any(requirement.allows(engine) for engine in scheduler.engines.values())
            possible = allowed or requirement.resources or not (requirement.targets is not None or requirement.refused)
            assert possible, f"no engine will ever run what waits: {requirement}"
        if requirement.depend:
            for engine in scheduler.engines.values():
                known = requirement.depend in engine.answers or requirement.depend in engine.asked
                assert known or not requirement.allows(engine), f"nobody asks {engine} about {requirement}"
        if pool.engines is not None:
            assert pool.engines == {engine.id: engine for engine in fitting}, f"{requirement} counts on others"


def _check_graph(scheduler: Scheduler) -> None:
    graph = scheduler.graph
    for id, waits in graph.waiting.items():
        task = scheduler.tasks.get(id)
        assert task is waits.task, f"{waits.task} waits, but is not known"
        assert task.state is State.WAITING, f"{task} waits no more"
        assert not waits.is_over, f"{task} has nothing to wait for"
        edges = [
            other
            for condition in waits.conditions
            for other in set(condition.dependency.tasks)
            if any(one is condition for _, one in graph.dependents.get(other, ()))
        ]
        assert len(edges) == sum(condition.pending for condition in waits.conditions), f"{task}: an edge is lost"
    wanted = Counter(id for task in scheduler.tasks.values() if task.spec.options for id in task.spec.options.inputs)
    assert dict(wanted) == graph.wanted, "the results that are wanted are miscounted"
