"""What messages are made of: tasks, their options, outcomes, functions. None of these is sent by itself."""

from typing import Any

import msgspec

from ..ids import Digest, EngineId, EngineUuid, TaskId
from .bounds import Count, EngineNumber, FrameIndex, Integer, Kind, Moment, Name, Seconds, SmallInteger, Status


class NestedStruct(msgspec.Struct, array_like=True, gc=False):
    """Base of structs that are sent inside messages."""


class GraphDependency(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Met when all (or any) of these tasks have ended with success, with failure, or either."""

    tasks: tuple[TaskId, ...]
    all: bool = True
    success: bool = True
    failure: bool = False


class CacheKey(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Two calls with the same key are equal. A call with an empty key is equal to no other: it runs."""

    #: digest of what the function does (`wire.identity`)
    code: str = ""
    #: digest of its arguments
    arguments: str = ""


class Call(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Which tasks make one result. The first of them carries it; of a map that grows, the first of each piece."""

    #: of their msg_ids: runs of (first number, how many)
    numbers: tuple[tuple[Count, Count], ...]
    #: "list", "map" (of items) or "parts" (of sequences); the latter two after "dealt " if split round robin
    shape: str = "list"
    #: of a map: runs of (items of a task, how many tasks); (): each has one
    sizes: tuple[tuple[Count, Count], ...] = ()
    #: of a map that grows: the number of its very first task
    first: Count | None = None
    #: … and how many items it has in all
    items: Count = 0


class TaskOptions(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """Options of a task. A task that has none carries None instead."""

    retries: Count = 0
    #: engines a load-balanced task may run on; None: any
    targets: tuple[EngineNumber, ...] | None = None
    label: str | None = None
    metadata: dict[str, Any] | None = None
    #: `execute` only: show nothing, keep no history
    silent: bool = True
    #: it runs only after these tasks have ended
    after: GraphDependency | None = None
    #: it runs only on an engine on which these tasks ran
    follow: GraphDependency | None = None
    #: seconds within which its dependencies must be met; None: no limit
    timeout: Seconds | None = None
    #: tasks with a higher priority go first
    priority: Integer = 0
    #: how much of each named resource its engine must have
    resources: dict[str, Integer] | None = None
    #: seconds an attempt may run; None: no limit
    run_timeout: Seconds | None = None
    #: the scheme that chooses its engine; None: the controller's
    scheme: str | None = None
    #: tasks whose results are arguments of this one; it waits until they have succeeded
    inputs: tuple[TaskId, ...] = ()
    #: its result may be that of an equal call that has succeeded; None: it must run
    cache: CacheKey | None = None
    #: it runs only on engines whose properties the `depend` of its function allows
    depend: bool = False
    #: once it may have been started, it is not started again
    at_most_once: bool = False
    #: which tasks make one result with this one, which is the first of them; None: it is one of the others, or alone
    call: Call | None = None


class TaskSpec(NestedStruct):
    """A task as its client made it. The controller forwards and records it unchanged."""

    id: TaskId
    #: digest of the function; b"" for `execute`
    function: Digest
    #: pickled (args, kwargs), or the source for `execute`; b"" if the first of `frames` holds it
    payload: bytes
    submitted: Moment
    #: the engine a direct task is for; -1: load-balanced
    engine: EngineNumber = EngineId(-1)
    #: indexes of this task's buffers among the frames of the message
    frames: tuple[FrameIndex, ...] = ()
    options: TaskOptions | None = None
    #: "apply": call a function; "execute": run a cell; "map": call a function on each item of a list; "part": call a
    #: function on a part of a sequence
    kind: Kind = "apply"
    #: the arguments as a short text; "": they are not recorded
    arguments: str = ""


class ErrorInfo(NestedStruct):
    """An exception as text. An exception of any class can be sent so."""

    ename: str
    evalue: str
    traceback: str = ""
    engine_id: Integer | None = None
    engine_uuid: str | None = None
    method: str = "apply"
    #: it did not come from the task's code: the task was cancelled, was out of time, could not begin, or died with its
    #: engine
    stopped: bool = False
    #: where the engine runs
    host: str | None = None
    #: of a map: the number of the item within its task
    index: Count | None = None
    #: of that item's call, if it is not the arguments of the whole task: a short text
    arguments: str | None = None
    #: the exception itself (`wire.exceptions`); b"": there is only the text
    packed: bytes = b""


class TaskDone(NestedStruct):
    """The outcome of one attempt. The controller makes it for tasks that did not end on an engine.

    A chunk of a map in which some items failed has both an error, that of the first such item, and a payload.
    """

    id: TaskId
    attempt: Count
    #: "ok", "error" or "aborted"; from engines also "unmet": a dependency function said no, try another engine
    status: Status
    started: Moment | None
    completed: Moment
    #: pickled result; b"" if the first of `frames` holds it
    payload: bytes = b""
    engine: EngineNumber = EngineId(-1)
    frames: tuple[FrameIndex, ...] = ()
    stdout: str = ""
    stderr: str = ""
    error: ErrorInfo | None = None
    #: what `execute` showed: execution_count, execute_result, outputs, …; and the `data` of publish_data
    content: dict[str, Any] | None = None
    #: of the engine process until the end of this attempt, in bytes; None: not measured
    peak_memory: Count | None = None
    #: the task with an equal call whose result this is
    cached_from: TaskId | None = None


class Attempt(NestedStruct):
    """One attempt to run a task, for its record."""

    number: Count
    engine: EngineNumber
    engine_uuid: EngineUuid
    host: str
    started: Moment | None
    ended: Moment
    #: "ok", or why it failed
    cause: str
    #: of the engine process until the end of this attempt, in bytes; None: not measured
    peak_memory: Count | None = None
    traceback: str | None = None
    #: what ended it: "task" (it returned or raised), "refusal" (UnmetDependency), "death" of its engine, "run_timeout",
    #: "preemption" (its engine had to leave), "stop" of the cluster, "controller" (it could not record the task)
    ended_by: str = "task"


class Function(NestedStruct):
    """A pickled function under its content address, with its name and source for readers."""

    digest: Digest
    payload: bytes
    name: str | None = None
    #: "" if it is not known
    source: str = ""


class Environment(NestedStruct):
    """The environment of a client (Python, packages, host, …) under its content address, as JSON."""

    digest: str
    content: bytes


class OptionChanges(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """New values of a task's options for when it is run again. None: the old value stays."""

    retries: Count | None = None
    label: str | None = None
    metadata: dict[str, Any] | None = None


class InputResult(NestedStruct):
    """The result of a finished task that is an argument of tasks in the same Run message."""

    id: TaskId
    payload: bytes
    frames: tuple[FrameIndex, ...] = ()


class EngineInfo(NestedStruct):
    """What clients know of an engine."""

    id: EngineNumber
    uuid: EngineUuid
    host: str
    pid: SmallInteger
    #: the indexes it owns of each named resource
    resources: dict[str, list[Count]] = {}
    #: version of its Python: "3.11.7"
    python: Name = ""
    #: seconds that its clock is ahead of the controller's (below 0: behind), if it is wrong
    ahead: Seconds = 0.0


class AttemptKey(NestedStruct):
    """Names one attempt of one task."""

    id: TaskId
    attempt: Count


class PropertyCheck(NestedStruct):
    """Whether an engine's properties allow tasks with this function."""

    digest: Digest
    #: why not; "": they are allowed
    reason: str = ""
