"""The messages between clients, controller, engines and nannies: one type per message, one union per direction.

Messages are msgspec Structs, encoded as msgpack arrays. The first element is the tag. New fields come last and have
defaults. Arguments and results are opaque bytes: only clients and engines unpickle them.

A message may be followed by *frames*: large buffers that are sent with it, uncopied. A task or a result names its
frames by their indexes, in its field `frames`. Two tasks may share a frame.

Times are seconds since the epoch (UTC), as float.

Annotations in this package are not strings, because msgspec would have to evaluate each string at every start.
"""

from .bounds import pieces
from .clients import Accepted, Engines, Rejected, Reply, Request, ResultsUnavailable, Submit, Watch
from .connection import Goodbye, Hello, Message, Ping, Pong, Refused, Welcome
from .engines import (
    BufferNotFetched,
    Cancel,
    CheckProperties,
    Draining,
    DropBuffers,
    EngineDied,
    FetchBuffer,
    Functions,
    KeepBuffers,
    KillTask,
    NeedFunctions,
    Output,
    PropertiesChanged,
    PropertiesChecked,
    Published,
    Recall,
    RelayOpened,
    Results,
    Returned,
    Run,
    SignalProcesses,
    Started,
    Starting,
    Stop,
    Stored,
    Unresponsive,
    Waiting,
)
from .requests import (
    Abort,
    CountRecords,
    DistinctValues,
    Explain,
    FindRecords,
    GetEnvironment,
    GetFunction,
    GroupRecords,
    History,
    PageRecords,
    Pin,
    Purge,
    QueueStatus,
    RecheckProperties,
    RequestBody,
    Resubmit,
    ResultStatus,
    SignalEngines,
    StopController,
    StopEngines,
    Sync,
    TasksOnEngines,
    Withdraw,
    named_in,
    tasks_in_question,
)
from .rights import buffer_ticket, key_with_rights
from .signals import signal_number
from .structs import (
    Attempt,
    AttemptKey,
    CacheKey,
    Call,
    EngineInfo,
    Environment,
    ErrorInfo,
    Function,
    GraphDependency,
    InputResult,
    NestedStruct,
    OptionChanges,
    PropertyCheck,
    TaskDone,
    TaskOptions,
    TaskSpec,
)

FromClient = Hello | Submit | Watch | Request | Ping | Goodbye
ToClient = (
    Welcome
    | Refused
    | Accepted
    | Rejected
    | Results
    | ResultsUnavailable
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
    | Waiting
    | NeedFunctions
    | PropertiesChecked
    | PropertiesChanged
    | Ping
    | Goodbye
)
ToEngine = Welcome | Refused | Run | Recall | Cancel | Functions | Stored | CheckProperties | Stop | Pong
FromNanny = Hello | Starting | EngineDied | Unresponsive | Draining | RelayOpened | BufferNotFetched | Ping | Goodbye
ToNanny = Welcome | Refused | SignalProcesses | KillTask | KeepBuffers | FetchBuffer | DropBuffers | Stop | Pong

__all__ = [
    "Abort",
    "Accepted",
    "Attempt",
    "AttemptKey",
    "BufferNotFetched",
    "CacheKey",
    "Call",
    "Cancel",
    "CheckProperties",
    "CountRecords",
    "DistinctValues",
    "Draining",
    "DropBuffers",
    "EngineDied",
    "EngineInfo",
    "Engines",
    "Environment",
    "ErrorInfo",
    "Explain",
    "FetchBuffer",
    "FindRecords",
    "FromClient",
    "FromEngine",
    "FromNanny",
    "Function",
    "Functions",
    "GetEnvironment",
    "GetFunction",
    "Goodbye",
    "GraphDependency",
    "GroupRecords",
    "Hello",
    "History",
    "InputResult",
    "KeepBuffers",
    "KillTask",
    "Message",
    "NeedFunctions",
    "NestedStruct",
    "OptionChanges",
    "Output",
    "PageRecords",
    "Pin",
    "Ping",
    "Pong",
    "PropertiesChanged",
    "PropertiesChecked",
    "PropertyCheck",
    "Published",
    "Purge",
    "QueueStatus",
    "Recall",
    "RecheckProperties",
    "Refused",
    "Rejected",
    "RelayOpened",
    "Reply",
    "Request",
    "RequestBody",
    "Resubmit",
    "ResultStatus",
    "Results",
    "ResultsUnavailable",
    "Returned",
    "Run",
    "SignalEngines",
    "SignalProcesses",
    "Started",
    "Starting",
    "Stop",
    "StopController",
    "StopEngines",
    "Stored",
    "Submit",
    "Sync",
    "TaskDone",
    "TaskOptions",
    "TaskSpec",
    "TasksOnEngines",
    "ToClient",
    "ToEngine",
    "ToNanny",
    "Unresponsive",
    "Waiting",
    "Watch",
    "Welcome",
    "Withdraw",
    "buffer_ticket",
    "key_with_rights",
    "named_in",
    "pieces",
    "signal_number",
    "tasks_in_question",
]
