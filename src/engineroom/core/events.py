"""What can happen to the core. Past tense; each carries a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import msgspec

from ..ids import ClientId, Digest, EngineId, EngineUuid, NannyId, TaskId
from ..messages import Attempt, AttemptKey, ErrorInfo, TaskDone, TaskSpec
from .dependencies import TaskOutcome


class Event(msgspec.Struct, frozen=True, gc=False):
    """Base of all events."""


class TasksSubmitted(Event, frozen=True, gc=False):
    """A client submitted these tasks. Known ids are ignored: the batch may be a repetition."""

    client: ClientId
    tasks: Sequence[TaskSpec]
    frames: Mapping[TaskId, Sequence[Any]] = {}
    #: the client has said them before a restart: an engine may have begun them
    former: bool = False
    #: … and was told that these were aborted
    aborted: Set[TaskId] = frozenset()


class RecoveredTask(msgspec.Struct, frozen=True, gc=False):
    """An unfinished task from the store."""

    spec: TaskSpec
    client: ClientId
    frames: Sequence[Any] = ()
    attempts: Sequence[Attempt] = ()
    #: when the attempt that was running began; None: none was known to run
    started: float | None = None


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A new task that ends at once, and its outcome: the result of an equal task, or an error."""

    spec: TaskSpec
    frames: Sequence[Any]
    done: TaskDone
    result_frames: Sequence[Any] = ()
    #: the engine on which the equal task ran; None: it ran on no engine
    engine: EngineUuid | None = None


class TasksAnswered(Event, frozen=True, gc=False):
    """A client submitted these tasks, and they end at once, without a run.

    Either the store holds the result of an equal task, or the task cannot run (its function cannot be read, for
    example): then `done` holds an error. Both are recorded and delivered, and tasks that depend on them hear of it.
    """

    client: ClientId
    answers: Sequence[Answer]


class TasksRecovered(Event, frozen=True, gc=False):
    """The store holds these unfinished tasks (none, perhaps) from before a restart.

    Until `deadline` engines may come back, and claim theirs, and direct tasks wait for engines that are missing.
    `awaited`: the engines that were connected before the restart, with their numbers. None: nobody knows which were.
    """

    tasks: Sequence[RecoveredTask]
    deadline: float
    awaited: Mapping[EngineUuid, EngineId] | None = None


class AwaitedEnginesEnded(Event, frozen=True, gc=False):
    """These engines were connected before a restart, have not come back, and will not: their processes have ended."""

    engines: Sequence[EngineUuid]


class EngineJoined(Event, frozen=True, gc=False):
    """An engine said Hello, for the first time, or again after a reconnection. `held`: the tasks it has."""

    engine: EngineId
    uuid: EngineUuid
    host: str
    pid: int
    nanny: NannyId
    held: Sequence[AttemptKey] = ()
    #: the indices it has of each named resource
    resources: Mapping[str, Sequence[int]] = {}


class EnginesSilent(Event, frozen=True, gc=False):
    """Of these engines, and of no others, nothing has been heard for a while: their hosts may be cut off."""

    #: engine → when it was heard last
    engines: Mapping[EngineId, float]


class EngineLost(Event, frozen=True, gc=False):
    """An engine is gone without a goodbye.

    If `known`, `running` is the task it was running (None: it was idle). Otherwise the core assumes the first it held.
    """

    engine: EngineId
    cause: str
    running: TaskId | None = None
    known: bool = False
    #: it was killed because `running` had exceeded its run_timeout
    overran: bool = False
    #: the most memory its process ever used, in bytes; None: unknown
    peak_memory: int | None = None
    #: tasks with `at_most_once` that it had begun; None: unknown, so that it may have begun any
    begun: frozenset[TaskId] | None = None
    #: the kernel killed it, as memory ran out
    out_of_memory: bool = False


class EnginesLost(Event, frozen=True, gc=False):
    """These engines are gone together, without a goodbye: no task of one of them is sent to another one."""

    engines: Sequence[EngineId]
    cause: str


class EngineLeft(Event, frozen=True, gc=False):
    """An engine said goodbye, having finished what it was running."""

    engine: EngineId


class EnginesStopped(Event, frozen=True, gc=False):
    """These engines get no more work and leave; with `restart`, others take their places.

    `preempted`: why they must leave, if they may have to leave what they run: that costs a task no retry.
    """

    engines: Sequence[EngineId]
    restart: bool = False
    preempted: str = ""


class TaskStarted(Event, frozen=True, gc=False):
    """An engine has announced that it runs a task, perhaps not for the first time: it does so every few seconds."""

    engine: EngineId
    task: TaskId
    attempt: int
    #: by the clock of the engine's host
    started: float


class TasksFinished(Event, frozen=True, gc=False):
    """An engine sent outcomes of tasks; `frames` holds their large buffers."""

    engine: EngineId
    results: Sequence[TaskDone]
    frames: Mapping[TaskId, Sequence[Any]] = {}


class TasksReturned(Event, frozen=True, gc=False):
    """An engine gives back tasks it has not started."""

    engine: EngineId
    tasks: Sequence[AttemptKey]


class TasksWaiting(Event, frozen=True, gc=False):
    """These tasks of an engine have begun, and now wait for other tasks; others that were named before go on.

    A task waits for results of its own cluster. The engine has room for one more task for each of them.
    """

    engine: EngineId
    tasks: Sequence[TaskId]


class PropertiesAnswered(Event, frozen=True, gc=False):
    """An engine says why its properties forbid tasks with these functions; "": they allow them."""

    engine: EngineId
    answers: Mapping[Digest, str]


class PropertiesChanged(Event, frozen=True, gc=False):
    """The properties of these engines may have changed: their earlier answers are out of date."""

    engines: Sequence[EngineId]


class TasksWatched(Event, frozen=True, gc=False):
    """Another client waits for these tasks. Unknown ids, and tasks of this client, are ignored."""

    client: ClientId
    tasks: Sequence[TaskId]


class TasksFailed(Event, frozen=True, gc=False):
    """The shell could not do what these tasks need: sending them failed, or a function or an input is missing.

    Each known task ends now with this error, in whatever state it is. An engine that holds the task is told to drop
    it. A result that comes later is ignored.
    """

    tasks: Sequence[TaskId]
    error: ErrorInfo


class AbortRequested(Event, frozen=True, gc=False):
    """End those of these tasks that have not started; with `running`, also those that have."""

    tasks: Sequence[TaskId]
    running: bool = False


class OutcomesFound(Event, frozen=True, gc=False):
    """How tasks ended of which the store was asked; None: there is no such task."""

    outcomes: Mapping[TaskId, TaskOutcome | None]


class ControllerStopped(Event, frozen=True, gc=False):
    """The cluster is shutting down: unfinished tasks are aborted."""

    reason: str


class Ticked(Event, frozen=True, gc=False):
    """Time passed; sent when `next_deadline` is reached."""
