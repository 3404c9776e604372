"""What clients and the controller say to each other."""

from typing import Any

from ..ids import TaskId
from .connection import Message
from .requests import Question
from .structs import EngineInfo, Environment, ErrorInfo, Function, TaskSpec

# ---------------------------------------------------------------------------------------------- to the controller


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


class Request(Message):
    """A question; answered by Reply(number)."""

    number: int
    body: Question


# ---------------------------------------------------------------------------------------------- from the controller


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


class Gone(Message):
    """These cannot be waited for: unknown, purged, or never kept."""

    tasks: list[TaskId]
    reason: str


class Engines(Message):
    """The engines there are now, and how many more are starting."""

    engines: list[EngineInfo]
    starting: int = 0


class Reply(Message):
    """The answer to Request(number)."""

    number: int
    value: Any = None
    error: ErrorInfo | None = None
