"""A task inside the core, its states, and the legal transitions between them. Knows no engines: only their ids."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import msgspec

from ..ids import ClientId, EngineId, EngineUuid, TaskId
from ..messages import Attempt, TaskSpec


class TaskState(enum.IntEnum):
    """Where a task is."""

    QUEUED = 0  #: in a queue of the core
    HELD = 1  #: given to an engine: running, or waiting there
    RECOVERING = 2  #: read from the store after a restart; an engine may still have it
    ENDED = 3  #: it has its outcome
    WAITING = 4  #: for the tasks it depends on
    NEW = 5  #: it has just come


#: Every legal transition, and what causes it.
TRANSITIONS: dict[tuple[TaskState, TaskState], str] = {
    (TaskState.NEW, TaskState.QUEUED): "submitted, and it waits for no other task",
    (TaskState.NEW, TaskState.WAITING): "submitted, and it depends on others",
    (TaskState.NEW, TaskState.RECOVERING): "read from the store after a restart",
    (TaskState.NEW, TaskState.ENDED): "its outcome is known already; or it can never run",
    (TaskState.WAITING, TaskState.QUEUED): "its dependencies are met",
    (TaskState.WAITING, TaskState.ENDED): "aborted; its dependencies are not met (in time); or an input is missing",
    (TaskState.QUEUED, TaskState.HELD): "an engine has room",
    (TaskState.QUEUED, TaskState.WAITING): "an engine that came back with it gave it back; its arguments are made anew",
    (TaskState.QUEUED, TaskState.ENDED): "aborted; no engine that may run it is left; or an input is missing",
    (TaskState.HELD, TaskState.QUEUED): "returned unstarted; retried; refused by the engine; or its engine is lost",
    (TaskState.HELD, TaskState.ENDED): "finished; aborted; refused by its last engine; lost with it; or not sent",
    (TaskState.RECOVERING, TaskState.HELD): "its engine came back",
    (TaskState.RECOVERING, TaskState.QUEUED): "no engine came back with it in time",
    (TaskState.RECOVERING, TaskState.WAITING): "no engine came back with it in time, and it depends on others",
    (TaskState.RECOVERING, TaskState.ENDED): "its result came; aborted; its engine stayed away; or an input is missing",
}


class Needs(msgspec.Struct, gc=False, eq=False):
    """What the scheduler has learnt about where a task may run, and by when."""

    #: engines that have raised UnmetDependency for it
    refused: frozenset[EngineUuid] = frozenset()
    #: engines on which it has failed: a retry avoids them as long as another is left
    failed: frozenset[EngineUuid] = frozenset()
    #: engines on which the tasks it follows ran; None: it follows none
    followed: frozenset[EngineUuid] | None = None
    #: when its dependencies must be met
    deadline: float | None = None


class Task(msgspec.Struct, gc=False, eq=False):
    """One task from its submission to its outcome.

    `engine` is set exactly while the task is HELD. `attempt` counts the times the task may have been started.
    """

    # A Struct is made four times faster than an object with __slots__. It is in no reference cycle, so the garbage
    # collector need not look at it.

    spec: TaskSpec
    client: ClientId
    frames: Sequence[Any] = ()
    retries_left: int = 0
    state: TaskState = TaskState.NEW
    #: the engine that holds it
    engine: EngineId | None = None
    attempt: int = 1
    #: engines that died while running it
    deaths: int = 0
    #: past attempts; None as long as there are none
    attempts: list[Attempt] | None = None
    #: clients other than its own that wait for it
    watchers: set[ClientId] | None = None
    #: an abort was asked for while an engine held it
    aborting: bool = False
    #: … and it is to be interrupted if it has started
    cancelling: bool = False
    #: … and its engine is to be killed later, unless the task has ended
    kill_is_due: bool = False
    #: when its running attempt began, by the clock of its engine; None: no engine has announced that it runs the task
    started: float | None = None
    #: None as long as nothing has been learnt
    needs: Needs | None = None
    #: bytes of memory that the controller counts for it; only the controller's shell reads and changes this
    counted: int = 0

    @property
    def id(self) -> TaskId:
        return self.spec.id

    @property
    def is_direct(self) -> bool:
        """Whether it is for one certain engine."""
        return self.spec.engine >= 0

    @property
    def named_engines(self) -> Sequence[EngineId]:
        """The numbers of the only engines that may run it; empty: any may, as far as it names none."""
        if self.is_direct:
            return (self.spec.engine,)
        return (self.spec.options is not None and self.spec.options.targets) or ()

    @property
    def is_queued(self) -> bool:
        """Whether no engine is known to have it, and it has not ended."""
        return self.engine is None and self.state is not TaskState.ENDED

    @property
    def at_most_once(self) -> bool:
        """Whether it must not be started again once it may have been started."""
        options = self.spec.options
        return options is not None and options.at_most_once

    def move(self, state: TaskState) -> None:
        """Change state. Only `State` calls this, because its tables change with it. An illegal transition is a bug."""
        if (self.state, state) not in TRANSITIONS:
            raise AssertionError(f"{self} cannot go from {self.state.name} to {state.name}")
        self.state = state

    def note(self, attempt: Attempt) -> None:
        """Add a past attempt."""
        # A new list: the store's writer may be reading the old one.
        self.attempts = [*(self.attempts or ()), attempt]

    @property
    def last_refusal(self) -> str:
        """What the last engine said that raised UnmetDependency for it, as the end of a sentence; "": none did."""
        if self.needs is None or not self.needs.refused or not self.attempts:
            return ""
        last = self.attempts[-1]
        return f". Engine {last.engine} said: {last.cause}"

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.state.name} attempt {self.attempt}>"
