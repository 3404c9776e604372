"""The values that fields of messages may have, where the type alone allows too many.

Decoding checks them, so that a wrong value is refused at the door, and its sender alone is harmed. A value within these
bounds fits a column of every database, a C int where the operating system wants one, and a date.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta

from ..ids import EngineId, TaskId

#: So many things one list of a message to the controller may name: while it handles them it hears nobody else. Who has
#: more to name sends several messages (`pieces`).
MOST_NAMED = 10_000
#: Bytes of a message that asks something: a query may name tasks, too, some 100,000 of them.
MOST_ASKED = 4 << 20
#: Lists and dicts within each other, in queries and in what a record holds.
MOST_LEVELS = 100

_INT32, _INT64 = 2**31 - 1, 2**63 - 1

#: an engine's number; -1: none
EngineNumber = Annotated[EngineId, Meta(ge=-1, le=_INT32)]
#: tasks that a message names
TaskIds = Annotated[list[TaskId], Meta(max_length=MOST_NAMED)]
#: numbers of engines that a message names
EngineNumbers = Annotated[list[EngineNumber], Meta(max_length=MOST_NAMED)]
#: a number of things, bytes or messages
Count = Annotated[int, Meta(ge=0, le=_INT64)]
#: a number that may be negative
Integer = Annotated[int, Meta(ge=-_INT64, le=_INT64)]
#: the number of a signal
Signal = Annotated[int, Meta(ge=0, le=64)]
#: of a process, an exit code
SmallInteger = Annotated[int, Meta(ge=-_INT32, le=_INT32)]
#: seconds since the epoch; at most in the year 9987
Moment = Annotated[float, Meta(ge=0.0, le=253e9)]
#: seconds, finite
Seconds = Annotated[float, Meta(ge=-1e308, le=1e308)]
#: any number
Number = Annotated[float, Meta(ge=-1e308, le=1e308)]
#: the place of a buffer among the frames of a message
FrameIndex = Annotated[int, Meta(ge=0, le=_INT32)]
#: a checksum
Checksum = Annotated[int, Meta(ge=0, le=2**32 - 1)]
#: the name of a process or a host: logs, tables and errors show it, so it holds no characters that steer a terminal
Name = Annotated[
    str,
    Meta(
        max_length=256,
        pattern="^[^\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff]*\\Z",
    ),
]

Kind = Literal["apply", "execute", "map", "part"]
Status = Literal["ok", "error", "aborted", "unmet"]
StreamName = Literal["stdout", "stderr"]


def pieces(named: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """What messages are to name, a part for each message. Nothing takes one message, too."""
    for start in range(0, max(1, len(named)), MOST_NAMED):
        yield named[start : start + MOST_NAMED]
