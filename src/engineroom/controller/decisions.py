"""Lets the core decide, and has every action performed, each one guarded on its own.

An action that fails ends the tasks that it was about, with a typed error. All other actions are performed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core import Scheduler, actions, events
from ..core.dependencies import TaskOutcome
from ..messages import ErrorInfo
from .error_info import error_info


class Decisions:
    """The way into the core.

    `performers` says who performs each type of action; it may be filled after this object is made.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        performers: Mapping[type[actions.Action], Callable[[Any], None]],
        clock: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._performers = performers
        self._clock = clock

    def decide(self, event: events.Event) -> None:
        """Let the core take in an event, and perform what follows."""
        failures: list[events.Event] = []
        for action in self._scheduler.handle(event, self._clock()):
            try:
                self._performers[type(action)](action)
            except Exception as error:
                info = error_info(error, f"the action {type(action).__name__} failed")
                failure = _failure(action, info)
                if failure is not None:
                    failures.append(failure)
        # The core hears of failures last: until then, actions of this event that concern the same tasks are under way.
        for failure in failures:
            self.decide(failure)


def _failure(action: actions.Action, error: ErrorInfo) -> events.Event | None:
    """What the core is told of an action that failed; None: no task depends on it."""
    match action:
        case actions.SendTasks() | actions.RecordTasks() | actions.RecordProgress():
            return events.TasksFailed([task.id for task in action.tasks], error)
        case actions.FindOutcomes():
            return not_found(action.tasks, error)
    return None


def not_found(ids: Any, error: ErrorInfo) -> events.OutcomesFound:
    """The outcomes of these tasks could not be looked up: tasks that depend on them cannot run."""
    cause = f"could not be looked up: {error.ename}: {error.evalue[:200]}"
    return events.OutcomesFound({id: TaskOutcome(False, cause=cause, path=(id,), length=1) for id in ids})
