"""A task inside the core, its states, and the moves between them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ..ids import ClientId, EngineUuid, TaskId
from ..messages import Attempt, TaskSpec

if TYPE_CHECKING:
    from .engines import Engine


class State(enum.IntEnum):
    """Where a task is."""

    QUEUED = 0  #: in a queue of the core
    HELD = 1  #: given to an engine: running, or waiting there
    RECOVERING = 2  #: known from the store after a restart; an engine may still have it
    ENDED = 3  #: it has its outcome
    WAITING = 4  #: until the tasks it depends on have ended


#: Every legal move, and the events that cause it.
TRANSITIONS: dict[tuple[State, State], str] = {
    (State.WAITING, State.QUEUED): "its dependencies are met",
    (State.WAITING, State.ENDED): "aborted; its dependencies are not met (in time); or an input is missing",
    (State.QUEUED, State.HELD): "an engine has room",
    (State.QUEUED, State.ENDED): "aborted; no engine that may run it is left; or an input is missing",
    (State.HELD, State.QUEUED): "given back unstarted; retried; refused by the engine; or its engine is lost",
    (State.HELD, State.ENDED): "finished; aborted; refused by the last engine; lost with its engine; or not sent",
    (State.RECOVERING, State.HELD): "its engine came back",
    (State.RECOVERING, State.QUEUED): "nobody came back with it in time",
    (State.RECOVERING, State.WAITING): "nobody came back with it in time, and it depends on others",
    (State.RECOVERING, State.ENDED): "its result came late; aborted; its engine did not come back; or an input is missing",
}


class Needs(msgspec.Struct, gc=False, eq=False):
    """What the scheduler has learnt about where a task may run, and by when."""

    #: engines that have said UnmetDependency
    refused: frozenset[EngineUuid] = frozenset()
    #: engines on which the tasks it follows ran; None: it follows none
    followed: frozenset[EngineUuid] | None = None
    #: when its dependencies must be met
    deadline: float | None = None


class Task(msgspec.Struct, gc=False, eq=False):
    """One task from its submission to its outcome.

    `engine` is set exactly while the task is HELD. `attempt` counts the times it may have been started.
    """

    # A Struct is made four times faster than an object with __slots__, and the garbage collector need not look
    # at it: its one cycle (engine, and back by `held`) is undone when the task leaves the engine.

    spec: TaskSpec
    client: ClientId
    frames: Sequence[Any] = ()
    retries_left: int = 0
    state: State = State.QUEUED
    engine: Engine | None = None
    attempt: int = 1
    #: engines that died while running it
    deaths: int = 0
    #: past attempts; None as long as there are none
    attempts: list[Attempt] | None = None
    #: clients other than its own that wait for it
    watchers: set[ClientId] | None = None
    #: an abort was asked for while an engine held it
    aborting: bool = False
    #: … and it is to be stopped if it has started
    cancelling: bool = False
    #: None as long as nothing has been learnt
    needs: Needs | None = None

    @property
    def id(self) -> TaskId:
        return self.spec.id

    @property
    def is_direct(self) -> bool:
        return self.spec.engine >= 0

    def move(self, state: State) -> None:
        """Change state; a move that is not in `TRANSITIONS` is a bug."""
        if (self.state, state) not in TRANSITIONS:
            raise AssertionError(f"task {self.id} cannot go from {self.state.name} to {state.name}")
        self.state = state

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.state.name} attempt {self.attempt}>"
