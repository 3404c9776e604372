"""What engines, nannies and the controller say to each other. What tasks bring forth goes on to their clients."""

from ..ids import Digest, EngineId, EngineUuid, TaskId
from .connection import Message
from .structs import Answer, Function, Held, TaskDone, TaskSpec, Value

# ---------------------------------------------------------------------------------------------- to engines


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


class Functions(Message):
    """The answer to NeedFunctions."""

    functions: list[Function]
    #: the digests of those that the controller does not have: their tasks end with an error
    missing: list[Digest] = []


class Stored(Message):
    """The results of this number and all before are safe: forget them."""

    number: int


class Ask(Message):
    """Do your properties allow tasks with these functions? Answered by Answers, between two tasks."""

    digests: list[Digest]
    functions: list[Function] = []


class Stop(Message):
    """Finish what is running, say Goodbye, exit."""


# ---------------------------------------------------------------------------------------------- from engines


class Results(Message):
    """Outcomes: from engine to controller (numbered, answered by Stored), and from controller to client."""

    tasks: list[TaskDone]
    number: int = 0
    #: from engines: of the process, in bytes, until now
    peak_memory: int | None = None


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


class Returned(Message):
    """Tasks given back unstarted."""

    tasks: list[Held]


class NeedFunctions(Message):
    """The engine has forgotten (or never had) these."""

    digests: list[Digest]


class Answers(Message):
    """What the engine's properties allow, until they change."""

    answers: list[Answer]


class PropertiesChanged(Message):
    """The engine's properties are not what they were: what it answered before holds no more."""


# ---------------------------------------------------------------------------------------------- from nannies


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


# ---------------------------------------------------------------------------------------------- to nannies


class SignalProcesses(Message):
    """To a nanny: signal these engines."""

    signal: int
    engines: list[EngineUuid]


class KillTask(Message):
    """To a nanny: kill this engine, if this is the task it is running."""

    engine: EngineUuid
    task: TaskId
