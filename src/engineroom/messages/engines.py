"""Messages between engines, nannies and the controller.

The controller forwards Results, Output, Started and Published to the clients of the tasks.
"""

from typing import Annotated

from msgspec import Meta

from ..ids import Digest, EngineId, EngineUuid, TaskId
from .bounds import MOST_NAMED, Count, EngineNumber, Moment, Name, Signal, SmallInteger, StreamName, TaskIds
from .connection import Message
from .structs import AttemptKey, Function, InputResult, PropertyCheck, TaskDone, TaskSpec

# ---------------------------------------------------------------------------------------------- to engines


class Run(Message):
    """Tasks for an engine, to be run in this order. `attempts[i]` is the attempt number of `tasks[i]`."""

    tasks: list[TaskSpec]
    attempts: list[Count]
    functions: list[Function] = []
    #: results that these tasks take as arguments, except those the engine has in its `InputCache`
    values: list[InputResult] = []
    #: counts the messages sent to the engine since Welcome, this one included. An engine that counts otherwise has
    #: missed some, perhaps tasks that come before these: it takes none, and says Hello again. 0: not said
    sent: Count = 0


class Recall(Message):
    """Give back these tasks, except those that have started. The engine answers with Returned."""

    tasks: list[TaskId]


class Cancel(Message):
    """Give back these tasks, as for Recall, and interrupt the one that is running."""

    tasks: list[TaskId]


class Functions(Message):
    """The answer to NeedFunctions."""

    functions: list[Function]
    #: the digests of those that the controller does not have: their tasks end with an error
    missing: list[Digest] = []


class Stored(Message):
    """Results up to this number are stored. The engine may forget them."""

    number: Count


class CheckProperties(Message, tag="ask"):
    """Check whether the engine's properties allow tasks with these functions.

    The engine answers with PropertiesChecked, between two tasks.
    """

    digests: list[Digest]
    functions: list[Function] = []


class Stop(Message):
    """Finish the running task, say Goodbye, exit. With `restart`, the nanny starts another in this one's place."""

    restart: bool = False


# ---------------------------------------------------------------------------------------------- from engines


class Results(Message):
    """Outcomes of tasks. From an engine to the controller: numbered, answered by Stored. From there to clients."""

    tasks: list[TaskDone]
    number: Count = 0
    #: from engines: peak memory of the process so far, in bytes
    peak_memory: Count | None = None
    #: from engines: the numbers under which the nanny of their host has the frames, too; 0: it has not
    lent: tuple[Count, ...] = ()


class Output(Message):
    """Live output of a running task, for the clients that wait for it."""

    task: TaskId
    stream: StreamName
    text: str


class Started(Message):
    """A task has run for a moment. From an engine every few seconds, to clients that wait for the task once.

    `engine` is set by the controller.
    """

    task: TaskId
    started: Moment
    engine: EngineNumber = EngineId(-1)
    attempt: Count = 0
    #: bytes in memory of the engine process at this moment; None: unknown
    memory: Count | None = None


class Published(Message):
    """Live data of a running task (`publish_data`): a pickled dict, merged into `AsyncResult.data`."""

    task: TaskId
    payload: bytes


class Returned(Message):
    """Tasks that the engine gives back without having started them."""

    tasks: list[AttemptKey]


class Waiting(Message):
    """The tasks of this engine that have begun, and now wait for other tasks: all of them, not a change.

    The engine runs other tasks meanwhile.
    """

    tasks: TaskIds


class NeedFunctions(Message):
    """The engine does not have these functions (any more)."""

    digests: Annotated[list[Digest], Meta(max_length=MOST_NAMED)]


class PropertiesChecked(Message, tag="answers"):
    """Which functions the engine's properties allow. Valid until PropertiesChanged."""

    answers: list[PropertyCheck]


class PropertiesChanged(Message):
    """The engine's properties have changed: earlier PropertiesChecked are no longer valid."""


# ---------------------------------------------------------------------------------------------- from nannies


class Starting(Message):
    """How many engines of this nanny are starting: the number, not a change of it."""

    count: Count


class EngineDied(Message):
    """An engine process has ended without a Goodbye."""

    engine: EngineUuid
    #: if negative, the number of the signal that killed it
    exit_code: SmallInteger
    #: peak memory in bytes
    peak_memory: Count
    #: the task it was running, as the engine wrote it into memory shared with its nanny
    running: TaskId | None
    #: the nanny starts another engine in its place
    restarting: bool
    reason: str = ""
    #: the nanny killed it, because the task `running` did not stop at its run_timeout
    overran: bool = False
    #: tasks with `at_most_once` that it had begun: also those that ended, if their results may not have arrived. None:
    #: there were too many to note
    begun: list[TaskId] | None = None
    #: the kernel killed it, as memory ran out
    out_of_memory: bool = False


class Unresponsive(Message):
    """These engine processes are stopped, as by SIGSTOP: they exist, but do not run."""

    engines: Annotated[list[EngineUuid], Meta(max_length=MOST_NAMED)]


class Draining(Message):
    """The job of this nanny ends soon: its engines get no more tasks, finish what they run, and leave."""

    #: why, for the attempts that are cut short: "the walltime of its job ends"
    reason: Name


class RelayOpened(Message):
    """This nanny passes large buffers on to other hosts. Valid until its next Hello."""

    urls: Annotated[list[Name], Meta(max_length=1)]
    #: of its relay: who connects can tell it from others
    certificate: Annotated[str, Meta(max_length=4096)]
    #: with it the controller makes tickets: an HMAC of a buffer's number here lets another nanny have it
    secret: Annotated[bytes, Meta(max_length=64)]


class BufferNotFetched(Message):
    """The answer to a FetchBuffer, if the buffer could not be had from the other nanny: the controller sends it."""

    number: Count
    #: the other nanny could not be connected to; else it did not have the buffer, or did not give all of it
    unreachable: bool = False


# ---------------------------------------------------------------------------------------------- to nannies


class SignalProcesses(Message):
    """Send a signal to these engine processes."""

    signal: Signal
    engines: list[EngineUuid]


class KillTask(Message):
    """Kill this engine process, if it is running this task."""

    engine: EngineUuid
    task: TaskId


class KeepBuffers(Message):
    """Keep the frames of this message, and lend them to the engines of this nanny. Each has a number; they rise.

    A number without a frame is that of a buffer that an engine has lent (`Results.lent`): it is to be kept.
    """

    numbers: list[Count]


class FetchBuffer(Message):
    """As KeepBuffers, but the buffer comes from another nanny (`RelayOpened`)."""

    number: Count
    #: its bytes
    size: Count
    #: its number at the other nanny, and what lets us have it
    theirs: Count
    ticket: bytes
    urls: list[str]
    certificate: str


class DropBuffers(Message):
    """No message names these buffers any more."""

    numbers: list[Count]
