"""What is always true of a scheduler between two events. Tests call `check` after each."""

from __future__ import annotations

from .scheduler import Scheduler
from .tasks import State


def check(scheduler: Scheduler) -> None:
    """Raise AssertionError naming the first thing that is wrong."""
    held_by: dict[str, int] = {}
    for engine in scheduler.engines.values():
        for id, task in engine.held.items():
            assert id not in held_by, f"{id} is held by engines {held_by[id]} and {engine.id}"
            held_by[id] = engine.id
            assert task.engine is engine, f"{task} is held by {engine} but thinks {task.engine}"
            assert task.state is State.HELD, f"{task} is held by {engine}"
            assert scheduler.tasks.get(id) is task, f"{task} is held but not known"
            if task.is_direct:
                assert task.spec.engine == engine.id, f"direct {task} on {engine}"
            elif task.spec.options and task.spec.options.targets is not None:
                assert engine.id in task.spec.options.targets, f"{task} outside its targets, on {engine}"
        assert engine.recalled <= set(engine.held), f"{engine} is asked for what it does not hold"
        assert (engine in scheduler.index) == engine.has_room, (
            f"{engine} is in the index without room, or not in it with room"
        )
        assert not (engine.backlog and engine.has_room), f"{engine} has room and direct tasks wait"
    queued = {task.id for task in scheduler.ready if task.state is State.QUEUED}
    for queue in scheduler.restricted.values():
        queued |= {task.id for task in queue if task.state is State.QUEUED}
    for engine in scheduler.engines.values():
        queued |= {task.id for task in engine.backlog if task.state is State.QUEUED}
    for id, task in scheduler.tasks.items():
        match task.state:
            case State.QUEUED:
                assert id in queued, f"{task} is in no queue"
            case State.HELD:
                assert id in held_by, f"{task} is held by nobody"
            case State.RECOVERING:
                assert scheduler.recovery_deadline is not None, f"{task} would wait for ever"
            case State.ENDED:
                raise AssertionError(f"{task} has ended and is still known")
        assert (task.engine is not None) == (task.state is State.HELD)
    assert queued <= set(scheduler.tasks), "a queue holds tasks nobody knows"
    if any(task.state is State.QUEUED for task in scheduler.ready):
        assert scheduler.index.least() is None, "an engine has room and tasks wait"
