"""What travels inside messages, and what tasks, outcomes and records are made of."""

from typing import Any

import msgspec

from ..ids import Digest, EngineId, EngineUuid, TaskId


class Part(msgspec.Struct, array_like=True, gc=False):
    """Base of what travels inside messages."""


class GraphDependency(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Met when all (or any) of these tasks have ended in a way that counts."""

    tasks: tuple[TaskId, ...]
    all: bool = True
    success: bool = True
    failure: bool = False


class CacheKey(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What makes two calls equal. Empty where a call cannot be compared with others: it runs."""

    #: digest of what the function does
    code: str = ""
    #: digest of its arguments
    arguments: str = ""


class TaskOptions(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """What a task asks for beyond being run once, somewhere. Tasks with no wishes carry None instead."""

    retries: int = 0
    #: engines a load-balanced task may run on; None: any
    targets: tuple[EngineId, ...] | None = None
    label: str | None = None
    metadata: dict[str, Any] | None = None
    #: `execute` only: show nothing, keep no history
    silent: bool = True
    #: when it may run: once these tasks have ended
    after: GraphDependency | None = None
    #: where it may run: on an engine on which these tasks ran
    follow: GraphDependency | None = None
    #: seconds its dependencies have to be met; None: for ever
    timeout: float | None = None
    #: higher ones go first
    priority: int = 0
    #: how much of each named resource its engine must have
    resources: dict[str, int] | None = None
    #: seconds an attempt may run; None: for ever
    run_timeout: float | None = None
    #: who chooses its engine; None: the controller's scheme
    scheme: str | None = None
    #: tasks whose results are arguments of this one: it waits for their success
    inputs: tuple[TaskId, ...] = ()
    #: answer it with the result of an equal call that succeeded; None: run it
    cache: CacheKey | None = None
    #: it runs only on engines whose properties its function agrees to
    depend: bool = False


class TaskSpec(Part):
    """A task as its client made it. Never changed afterwards: the controller forwards and records it as it is."""

    id: TaskId
    #: digest of the function; b"" for `execute`
    function: Digest
    #: pickled (args, kwargs), or the source for `execute`; b"" if it travels as the first of `frames`
    payload: bytes
    submitted: float
    #: the engine a direct task is for; -1: load-balanced
    engine: EngineId = EngineId(-1)
    #: indexes of this task's buffers among the frames of the message
    frames: tuple[int, ...] = ()
    options: TaskOptions | None = None
    #: "apply": call a function; "execute": run a cell; "map": call a function on each item of a list
    kind: str = "apply"


class ErrorInfo(Part):
    """An exception as text: it can always travel, whatever its class."""

    ename: str
    evalue: str
    traceback: str = ""
    engine_id: int | None = None
    engine_uuid: str | None = None
    method: str = "apply"
    #: it did not come from the task's code: the task was cancelled, was out of time, or could not begin
    stopped: bool = False


class TaskDone(Part):
    """The outcome of one attempt. Made by an engine, or by the controller for tasks that never ended on one."""

    id: TaskId
    attempt: int
    #: "ok", "error" or "aborted"; from engines also "unmet": another engine may be able to run it
    status: str
    started: float | None
    completed: float
    #: pickled result; b"" if it travels as the first of `frames`
    payload: bytes = b""
    engine: EngineId = EngineId(-1)
    frames: tuple[int, ...] = ()
    stdout: str = ""
    stderr: str = ""
    error: ErrorInfo | None = None
    #: what `execute` published: execution_count, execute_result, outputs, …; `data` of publish_data
    content: dict[str, Any] | None = None
    #: of the engine process, in bytes, until the end of this attempt; None: it was not measured
    peak_memory: int | None = None
    #: the task whose result this is: an equal call
    cached_from: TaskId | None = None


class Attempt(Part):
    """One run of a task on one engine, for the record."""

    number: int
    engine: EngineId
    engine_uuid: EngineUuid
    host: str
    started: float | None
    ended: float
    #: "ok", or what went wrong
    cause: str
    #: of the engine process, in bytes, until the end of this attempt; None: it was not measured
    peak_memory: int | None = None
    traceback: str | None = None


class Function(Part):
    """A pickled function under its content address, and what a reader may want to know of it."""

    digest: Digest
    payload: bytes
    name: str | None = None
    #: "" where it cannot be had
    source: str = ""


class Environment(Part):
    """Where a client runs, under its content address: JSON."""

    digest: str
    content: bytes


class OptionChanges(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """Options that a task gets anew when it is run again; None: it keeps what it had."""

    retries: int | None = None
    label: str | None = None
    metadata: dict[str, Any] | None = None


class Value(Part):
    """The result of a finished task, on its way into the arguments of others."""

    id: TaskId
    payload: bytes
    frames: tuple[int, ...] = ()


class EngineInfo(Part):
    """An engine as clients see it."""

    id: EngineId
    uuid: EngineUuid
    host: str
    pid: int
    #: the indices it has of each named resource
    resources: dict[str, list[int]] = {}


class Held(Part):
    """A task an engine has been given and not answered."""

    id: TaskId
    attempt: int


class Answer(Part):
    """Whether an engine may run tasks with this function."""

    digest: Digest
    #: what speaks against it; "": nothing
    reason: str = ""
