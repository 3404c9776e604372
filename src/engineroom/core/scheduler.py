"""The task scheduler: events in, actions out.

No sockets, clocks, files or threads here. Time arrives as `now`, chance follows from a seed, so a test can replay
any run. Events and actions carry batches, so that a task costs a few microseconds.

This module only finds the handler of an event. `handlers/` says what an event means, `state.py` how a task changes
state, `effects.py` how the actions are gathered.

Duplicates, late news and unknown ids are expected: each has its line in a handler, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

from ..config import SchedulerSettings
from ..ids import ClientId, EngineId, EngineUuid, TaskId
from . import events
from .actions import Action
from .dependencies import TaskOutcome
from .effects import Effects
from .engines import Engine
from .handlers import cancellation, engine_events, recovery, results, submission, waiting
from .state import State
from .tasks import Task


def on_ticked(state: State, effects: Effects, event: events.Ticked) -> None:
    """Time passed: do what is due."""
    recovery.end_recovery(state)
    state.do_what_is_due()


HANDLERS: dict[type[events.Event], Callable[[State, Effects, Any], None]] = {
    events.TasksSubmitted: submission.on_tasks_submitted,
    events.TasksAnswered: submission.on_tasks_answered,
    events.TasksWatched: submission.on_tasks_watched,
    events.TasksRecovered: recovery.on_tasks_recovered,
    events.AwaitedEnginesEnded: recovery.on_awaited_engines_ended,
    events.TaskStarted: results.on_task_started,
    events.TasksFinished: results.on_tasks_finished,
    events.TasksReturned: results.on_tasks_returned,
    events.TasksWaiting: results.on_tasks_waiting,
    events.EngineJoined: engine_events.on_engine_joined,
    events.EnginesSilent: engine_events.on_engines_silent,
    events.EngineLost: engine_events.on_engine_lost,
    events.EnginesLost: engine_events.on_engines_lost,
    events.EngineLeft: engine_events.on_engine_left,
    events.EnginesStopped: engine_events.on_engines_stopped,
    events.PropertiesAnswered: engine_events.on_properties_answered,
    events.PropertiesChanged: engine_events.on_properties_changed,
    events.AbortRequested: cancellation.on_abort_requested,
    events.TasksFailed: cancellation.on_tasks_failed,
    events.ControllerStopped: cancellation.on_controller_stopped,
    events.OutcomesFound: waiting.on_outcomes_found,
    events.Ticked: on_ticked,
}


class Scheduler:
    """Decides which engine runs which task, and when.

    `handle` is the only way to change anything. All other methods and properties are for reading: a caller must not
    change what they return. `state` is for the core's own modules (`explain.py`, `checks.py`) and its tests.
    """

    def __init__(self, settings: SchedulerSettings | None = None, seed: int = 0) -> None:
        self.settings = settings or SchedulerSettings()
        self._effects = Effects()
        self.state = State(self.settings, seed, self._effects)

    def handle(self, event: events.Event, now: float) -> list[Action]:
        """Take in one event, which came at `now` (seconds since the epoch); returns what is to be done, in order."""
        state, effects = self.state, self._effects
        effects.begin()
        state.now = now
        HANDLERS[type(event)](state, effects, event)
        while state.dependencies.news or state.to_wait:
            waiting.settle(state)
            waiting.wait_again(state)
        for engine, tasks in state.pools.assign():
            state.hold(engine, tasks)
        effects.close_batches()
        if self.settings.scheme != "pure":
            self._balance()
        return effects.actions

    def _balance(self) -> None:
        """Recall tasks from engines that are stuck, and for engines that are idle."""
        state = self.state
        balancer, engines, pools, now = state.balancer, state.engines, state.pools, state.now
        if balancer.stuck_at is None and self.settings.hwm is None:
            for id in self._effects.sends:
                if len(engines[id].held) > 1:
                    balancer.watch(len(engines), now)
                    break
        for engine, ids in balancer.from_stuck(engines, now):
            engine.hold_one()
            self._recall(engine, ids)
        if pools.ready:
            balancer.look_at = None
            return
        for engine, ids in balancer.for_idle(engines, pools.idle.values(), pools.may_run, now):
            self._recall(engine, ids)

    def _recall(self, engine: Engine, ids: list[TaskId]) -> None:
        self.state.recall(engine, ids)
        self.state.pools.changed(engine)
        engine_events.expect_return(self.state, engine)

    # ------------------------------------------------------------------------------------------ for reading

    def next_deadline(self) -> float | None:
        """When to send Ticked, unless something happens before; None: not needed."""
        state = self.state
        balancer = state.balancer
        deadlines = (state.recovery_deadline, balancer.look_at, balancer.stuck_at, state.deadlines.next)
        return min((at for at in deadlines if at is not None), default=None)

    @property
    def now(self) -> float:
        """When the last event came."""
        return self.state.now

    @property
    def tasks(self) -> Mapping[TaskId, Task]:
        """The tasks that have not ended."""
        return self.state.tasks

    @property
    def engines(self) -> Mapping[EngineId, Engine]:
        """The engines there are."""
        return self.state.engines

    @property
    def numbers(self) -> Set[EngineId]:
        """The numbers that engines have, and those that direct tasks wait for after a restart."""
        return self.state.backlogs.keys()

    @property
    def recovery_deadline(self) -> float | None:
        """Until when engines may come back after a restart; None: all are back, or had their time; or no restart."""
        return self.state.recovery_deadline

    def task(self, id: TaskId) -> Task | None:
        """A task that has not ended; None: the core does not know it (any more)."""
        return self.state.tasks.get(id)

    def tasks_of(self, client: ClientId) -> Iterator[Task]:
        """The tasks of a client that have not ended."""
        return (task for task in self.state.tasks.values() if task.client == client)

    def queued(self) -> Iterator[Task]:
        """The load-balanced tasks that wait for an engine."""
        return iter(self.state.pools)

    def queued_count(self) -> int:
        """How many load-balanced tasks wait for an engine."""
        return len(self.state.pools)

    def outcome(self, id: TaskId) -> TaskOutcome | None:
        """How a task ended; None: it has not ended, or the core has forgotten it (`outcomes_kept`)."""
        return self.state.dependencies.outcomes.get(id)

    @property
    def clients_awaited_until(self) -> float | None:
        """Until when clients may say tasks again that engines have from before a restart; None: they had their time."""
        return self.state.unclaimed.until

    def has_unclaimed_of(self, engine: EngineUuid) -> bool:
        """Whether an engine has sent outcomes, after a restart, of tasks that their clients have not said again."""
        return self.state.unclaimed.has_outcomes_of(engine)

    def wants(self, id: TaskId) -> bool:
        """Whether a task that has not ended takes the result of this one as an argument."""
        return id in self.state.dependencies.wanted
