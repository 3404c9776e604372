"""What travels between the parts: one type per message, one union per direction.

Messages are msgspec Structs encoded as msgpack arrays; the first element is the tag. New fields come last
and have defaults. Arguments and results are opaque bytes: nobody between client and engine unpickles them.

A message may be followed by *frames*: large buffers that travel beside it, uncopied. A task or result names
its own by their index in `frames`; two tasks may share one frame.

Times are seconds since the epoch (UTC), as float.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .ids import Digest, EngineId, EngineUuid, TaskId


class Message(msgspec.Struct, array_like=True, gc=False, tag=str.lower):
    """Base of everything that is sent by itself."""


class Part(msgspec.Struct, array_like=True, gc=False):
    """Base of what travels inside messages."""


# ---------------------------------------------------------------------------------------------- parts


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
    #: it was stopped from outside (cancelled, or out of time), whatever its code raised
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


# ---------------------------------------------------------------------------------------------- everyone


class Hello(Message):
    """First words on every connection, and again after every reconnection."""

    version: int
    role: str  # "client", "engine" or "nanny"
    key: str
    uuid: str
    pid: int
    host: str
    #: the Python that unpickles: "3.11.7"
    python: str = ""
    #: engines: the nanny that started it, the id it would like to keep, and the tasks it still holds
    nanny: str = ""
    wish: EngineId = EngineId(-1)
    held: list[Held] = []
    #: engines: the indices it has of each named resource
    resources: dict[str, list[int]] = {}


class Welcome(Message):
    """The peer is known now."""

    #: names this life of the controller; another value after a reconnection means it was restarted
    incarnation: str
    engines: list[EngineInfo] = []
    engine: EngineId = EngineId(-1)  # engines: your id
    #: engines that a nanny is about to start
    starting: int = 0
    #: who chooses engines, unless a task says otherwise
    scheme: str = "leastload"
    #: whether results are recorded, and can be had again
    keeps: bool = True


class Refused(Message):
    """The controller will not talk to this peer, and says why."""

    code: str  # an errors.EngineroomError.code
    reason: str


class Ping(Message):
    """A sign of life. `sent` counts the messages sent since Hello, this one included."""

    sent: int


class Pong(Message):
    """The answer to Ping.

    `sent` counts the messages sent to the peer since Welcome, this one included: a peer that counts fewer has
    missed some. `known` is False when the controller has no Hello from the peer, or has missed messages of it.
    Either way the peer says Hello again, and both ends reconcile.
    """

    sent: int
    known: bool = True


class Goodbye(Message):
    """A clean end: what this peer held may be given to others."""

    reason: str = ""


# ---------------------------------------------------------------------------------------------- client → controller


class Submit(Message):
    """Run these. Answered by Accepted once recorded."""

    number: int
    tasks: list[TaskSpec]
    functions: list[Function] = []
    #: sent before, perhaps received before
    resent: bool = False
    #: some of these have a `cache` key
    cached: bool = False
    #: the client's, with its first tasks
    environment: Environment | None = None


class Watch(Message):
    """Send me the results of these, now or when they are there."""

    tasks: list[TaskId]


class Body(msgspec.Struct, array_like=True, gc=False, tag=str.lower):
    """Base of the questions that have one answer."""


class FindRecords(Body):
    """Records that match a query; answers a list of dicts."""

    query: dict[str, Any]
    keys: list[str] | None = None
    sort: list[tuple[str, int]] | None = None
    limit: int | None = None
    skip: int = 0


class CountRecords(Body):
    """How many records match; answers an int."""

    query: dict[str, Any]


class PageRecords(Body):
    """A part of the records that match, by submission; answers {"records": …, "next": the next page's `after`}."""

    query: dict[str, Any]
    keys: list[str] | None
    limit: int
    #: where the page before ended: (seconds of submission, msg_id)
    after: tuple[float | None, str] | None = None


class DistinctValues(Body):
    """Each value of a key in the records that match, once."""

    key: str
    query: dict[str, Any]


class GroupRecords(Body):
    """The records that match, grouped by a key; answers a list of dicts."""

    key: str
    query: dict[str, Any]
    values: str | None = None
    percentiles: list[float] = []


class History(Body):
    """All msg_ids by time of submission."""


class ResultStatus(Body):
    """Which of these are pending, which completed; unknown ids are an error."""

    tasks: list[TaskId]


class HeldTasks(Body):
    """Which of this client's tasks engines have in hand; answers their ids."""


class LookAgain(Body):
    """Ask engines again what their properties allow."""


class QueueStatus(Body):
    """What each engine has done and has to do."""

    targets: list[EngineId] | None = None
    verbose: bool = False


class Resubmit(Body):
    """Run finished tasks again: `tasks[i]` under the new id `new[i]`, with the options they had but for `changes`."""

    tasks: list[TaskId]
    new: list[TaskId]
    changes: OptionChanges | None = None


class Purge(Body):
    """Forget finished tasks: by id, by engine, by query, or all. Answers how many."""

    tasks: list[TaskId] | None = None
    engines: list[EngineId] | None = None
    query: dict[str, Any] | None = None
    everything: bool = False


class Pin(Body):
    """Have retention leave records alone (or not any more): by id, or by query. Answers how many that changes."""

    tasks: list[TaskId] | None = None
    query: dict[str, Any] | None = None
    pinned: bool = True


class Abort(Body):
    """End tasks that have not started: by id, by engine, or (both None) all of this client's. Answers how many."""

    tasks: list[TaskId] | None = None
    engines: list[EngineId] | None = None
    #: those that have started, too: they are interrupted, and killed if that does not stop them
    running: bool = False


class Explain(Body):
    """What each of these waits for; answers a list of dicts."""

    tasks: list[TaskId]


class GetFunction(Body):
    """A function by the digest in its tasks' records; answers {"name": …, "source": …, "payload": …}."""

    digest: str


class GetEnvironment(Body):
    """An environment by its digest; answers a dict."""

    digest: str


class StopEngines(Body):
    """Let engines finish what they are doing, then leave."""

    targets: list[EngineId] | None = None


class StopController(Body):
    """Stop engines, then the controller."""


class SignalEngines(Body):
    """Send a signal to engine processes, also while they are busy."""

    signal: int
    targets: list[EngineId] | None = None


class Request(Message):
    """A question; answered by Reply(number)."""

    number: int
    body: (
        FindRecords
        | CountRecords
        | PageRecords
        | DistinctValues
        | GroupRecords
        | History
        | ResultStatus
        | QueueStatus
        | HeldTasks
        | LookAgain
        | Resubmit
        | Purge
        | Pin
        | Abort
        | Explain
        | GetFunction
        | GetEnvironment
        | StopEngines
        | StopController
        | SignalEngines
    )


# ---------------------------------------------------------------------------------------------- controller → client


class Accepted(Message):
    """The tasks of Submit(number), for each of these numbers, are recorded: each will end with exactly one outcome."""

    numbers: list[int]


class Rejected(Message):
    """Submit(number) was not taken, for this reason. Nothing of it will run.

    `code` "functions" means: these functions are not known here (any more), send them along.
    """

    number: int
    error: ErrorInfo
    code: str = ""


class Results(Message):
    """Outcomes: from engine to controller (numbered, answered by Stored), and from controller to client."""

    tasks: list[TaskDone]
    number: int = 0
    #: from engines: of the process, in bytes, until now
    peak_memory: int | None = None


class Gone(Message):
    """These cannot be waited for: unknown, purged, or never kept."""

    tasks: list[TaskId]
    reason: str


class Output(Message):
    """Live output of a running task: from engine to controller to the client that submitted it."""

    task: TaskId
    stream: str  # "stdout" or "stderr"
    text: str


class Started(Message):
    """A task that runs for a while has begun: from engine to controller, and on to its client."""

    task: TaskId
    started: float
    engine: EngineId = EngineId(-1)


class Published(Message):
    """Live data of a running task (`publish_data`): pickled, merged into `AsyncResult.data`."""

    task: TaskId
    payload: bytes


class Engines(Message):
    """The engines there are now, and how many more are starting."""

    engines: list[EngineInfo]
    starting: int = 0


class Reply(Message):
    """The answer to Request(number)."""

    number: int
    value: Any = None
    error: ErrorInfo | None = None


# ---------------------------------------------------------------------------------------------- engines


class Run(Message):
    """Tasks for an engine, in order; `attempts[i]` is the attempt number of `tasks[i]`."""

    tasks: list[TaskSpec]
    attempts: list[int]
    functions: list[Function] = []
    #: results that these tasks take as arguments, except those the engine has in its `ValueCache`
    values: list[Value] = []


class Recall(Message):
    """Give back those of these that have not started; answered by Returned."""

    tasks: list[TaskId]


class Cancel(Message):
    """Give back those of these that have not started, as for Recall, and interrupt the one that runs."""

    tasks: list[TaskId]


class Returned(Message):
    """Tasks given back unstarted."""

    tasks: list[Held]


class NeedFunctions(Message):
    """The engine has forgotten (or never had) these."""

    digests: list[Digest]


class Functions(Message):
    """The answer to NeedFunctions."""

    functions: list[Function]


class Stored(Message):
    """The results of this number and all before are safe: forget them."""

    number: int


class Ask(Message):
    """Do your properties allow tasks with these functions? Answered by Answers, between two tasks."""

    digests: list[Digest]
    functions: list[Function] = []


class Answer(Part):
    """Whether an engine may run tasks with this function."""

    digest: Digest
    #: what speaks against it; "": nothing
    reason: str = ""


class Answers(Message):
    """What the engine's properties allow, until they change."""

    answers: list[Answer]


class PropertiesChanged(Message):
    """The engine's properties are not what they were: what it answered before holds no more."""


class Stop(Message):
    """Finish what is running, say Goodbye, exit."""


# ---------------------------------------------------------------------------------------------- nannies


class Starting(Message):
    """This nanny is about to have this many engines started (an absolute number)."""

    count: int


class EngineDied(Message):
    """An engine process ended without a Goodbye."""

    engine: EngineUuid
    #: negative: the signal that killed it
    exit_code: int
    #: peak memory in bytes
    peak_memory: int
    #: the task it was running, as it noted in memory shared with its nanny
    running: TaskId | None
    #: the nanny starts another in its place
    restarting: bool
    reason: str = ""
    #: its nanny killed it, because `running` had used up its run_timeout and did not stop
    overran: bool = False


class Unresponsive(Message):
    """These engine processes are stopped (as by SIGSTOP): alive, but doing nothing."""

    engines: list[EngineUuid]


class SignalProcesses(Message):
    """To a nanny: signal these engines."""

    signal: int
    engines: list[EngineUuid]


class KillTask(Message):
    """To a nanny: kill this engine, if this is the task it is running."""

    engine: EngineUuid
    task: TaskId


FromClient = Hello | Submit | Watch | Request | Ping | Goodbye
ToClient = (
    Welcome
    | Refused
    | Accepted
    | Rejected
    | Results
    | Gone
    | Output
    | Started
    | Published
    | Engines
    | Reply
    | Pong
    | Goodbye
)
FromEngine = (
    Hello
    | Results
    | Output
    | Started
    | Published
    | Returned
    | NeedFunctions
    | Answers
    | PropertiesChanged
    | Ping
    | Goodbye
)
ToEngine = Welcome | Refused | Run | Recall | Cancel | Functions | Stored | Ask | Stop | Pong
FromNanny = Hello | Starting | EngineDied | Unresponsive | Ping | Goodbye
ToNanny = Welcome | Refused | SignalProcesses | KillTask | Stop | Pong
