"""What travels between the parts: one type per message, one union per direction.

Messages are msgspec Structs encoded as msgpack arrays; the first element is the tag. New fields come last
and have defaults. Arguments and results are opaque bytes: nobody between client and engine unpickles them.

A message may be followed by *frames*: large buffers that travel beside it, uncopied. A task or result names
its own by their index in `frames`; two tasks may share one frame.

Times are seconds since the epoch (UTC), as float.

Annotations in this package are not strings: msgspec would have to evaluate each of them at every start.
"""

from .clients import Accepted, Engines, Gone, Rejected, Reply, Request, Submit, Watch
from .connection import Goodbye, Hello, Message, Ping, Pong, Refused, Welcome
from .engines import (
    Answers,
    Ask,
    Cancel,
    EngineDied,
    Functions,
    KillTask,
    NeedFunctions,
    Output,
    PropertiesChanged,
    Published,
    Recall,
    Results,
    Returned,
    Run,
    SignalProcesses,
    Started,
    Starting,
    Stop,
    Stored,
    Unresponsive,
)
from .requests import (
    Abort,
    Body,
    CountRecords,
    DistinctValues,
    Explain,
    FindRecords,
    GetEnvironment,
    GetFunction,
    GroupRecords,
    HeldTasks,
    History,
    LookAgain,
    PageRecords,
    Pin,
    Purge,
    QueueStatus,
    Resubmit,
    ResultStatus,
    SignalEngines,
    StopController,
    StopEngines,
)
from .structs import (
    Answer,
    Attempt,
    CacheKey,
    EngineInfo,
    Environment,
    ErrorInfo,
    Function,
    GraphDependency,
    Held,
    OptionChanges,
    Part,
    TaskDone,
    TaskOptions,
    TaskSpec,
    Value,
)

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

__all__ = [
    "Abort",
    "Accepted",
    "Answer",
    "Answers",
    "Ask",
    "Attempt",
    "Body",
    "CacheKey",
    "Cancel",
    "CountRecords",
    "DistinctValues",
    "EngineDied",
    "EngineInfo",
    "Engines",
    "Environment",
    "ErrorInfo",
    "Explain",
    "FindRecords",
    "FromClient",
    "FromEngine",
    "FromNanny",
    "Function",
    "Functions",
    "GetEnvironment",
    "GetFunction",
    "Gone",
    "Goodbye",
    "GraphDependency",
    "GroupRecords",
    "Held",
    "HeldTasks",
    "Hello",
    "History",
    "KillTask",
    "LookAgain",
    "Message",
    "NeedFunctions",
    "OptionChanges",
    "Output",
    "PageRecords",
    "Part",
    "Pin",
    "Ping",
    "Pong",
    "PropertiesChanged",
    "Published",
    "Purge",
    "QueueStatus",
    "Recall",
    "Refused",
    "Rejected",
    "Reply",
    "Request",
    "Resubmit",
    "ResultStatus",
    "Results",
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
    "TaskDone",
    "TaskOptions",
    "TaskSpec",
    "ToClient",
    "ToEngine",
    "ToNanny",
    "Unresponsive",
    "Value",
    "Watch",
    "Welcome",
]
