"""Messages between clients and the controller. `requests` has what a client may ask in a Request."""

from typing import Annotated, Any

from msgspec import Meta

from ..ids import TaskId
from .bounds import MOST_NAMED, Count, TaskIds
from .connection import Message
from .requests import AnyRequestBody
from .structs import EngineInfo, Environment, ErrorInfo, Function, TaskSpec

# ---------------------------------------------------------------------------------------------- to the controller


class Submit(Message):
    """New tasks. The controller answers with Accepted once they are recorded, or with Rejected."""

    number: Count
    tasks: Annotated[list[TaskSpec], Meta(max_length=MOST_NAMED)]
    functions: Annotated[list[Function], Meta(max_length=MOST_NAMED)] = []
    #: the client sends this again after a reconnection: the controller may have received it before
    resent: bool = False
    #: some of the tasks have a `cache` key
    cached: bool = False
    #: of the client; sent with its first tasks
    environment: Environment | None = None
    #: counts the messages sent since Hello, this one included. A controller that counts otherwise has missed some,
    #: perhaps tasks that come before these: it takes none, and the client says all of them again. 0: not said
    sent: Count = 0
    #: the client has said these tasks to the controller of before a restart: an engine may have begun them
    former: bool = False
    #: with `former`: tasks that the client was told to have been aborted
    aborted: TaskIds = []


class Watch(Message):
    """Asks for the results of tasks: now, or when they have ended."""

    tasks: TaskIds


class Request(Message):
    """A request with one answer: Reply(number)."""

    number: Count
    body: AnyRequestBody


# ---------------------------------------------------------------------------------------------- from the controller


class Accepted(Message):
    """The tasks of each Submit with one of these numbers are recorded. Each will end with exactly one outcome."""

    numbers: list[Count]


class Rejected(Message):
    """The controller refuses Submit(number). None of its tasks will run.

    `code` "functions": the controller does not have the functions of these tasks. It takes none that were sent after
    them until the client says Hello, and all of them again, with the functions.
    """

    number: Count
    error: ErrorInfo
    code: str = ""


class ResultsUnavailable(Message, tag="gone"):
    """There will be no results of these tasks: unknown, purged, not kept, or damaged."""

    tasks: list[TaskId]
    reason: str
    #: the name of the error: there may be a result that cannot be read
    ename: str = "UnknownTask"


class Engines(Message):
    """The registered engines, and how many more are starting."""

    engines: list[EngineInfo]
    starting: Count = 0
    #: the controller was restarted a moment ago: engines that it had before, and that are not listed, may come back
    returning: bool = False


class Reply(Message):
    """The answer to Request(number). Records are in the frames."""

    number: Count
    value: Any = None
    error: ErrorInfo | None = None
