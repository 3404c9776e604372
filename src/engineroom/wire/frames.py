"""Messages to and from frames: a header in msgpack, then the large buffers, uncopied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from ..errors import ProtocolError
from ..ids import TaskId
from ..messages import (
    FromClient,
    FromEngine,
    FromNanny,
    Hello,
    InputResult,
    Message,
    Ping,
    TaskDone,
    TaskSpec,
    ToClient,
    ToEngine,
    ToNanny,
)

#: Anything with the buffer protocol.
Buffer = Any
Frames = Sequence[Buffer]

_frames_of = attrgetter("frames")

_encode_any = msgspec.msgpack.Encoder().encode
#: The header of a message. No function of ours around it: this is done for each message.
encode: Callable[[Message], bytes] = _encode_any


def encode_columns(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Some records in columns: key → its values."""
    return _encode_any(columns)


def decode_columns(frame: Buffer) -> dict[str, list[Any]]:
    """What `encode_columns` made.

    Raises
    ------
    ProtocolError
        It is something else.
    """
    columns: dict[str, list[Any]] = _decode_columns(frame)
    if len({len(values) for values in columns.values()}) > 1:
        raise ProtocolError("the columns of an answer are not equally long")
    return columns


def _refuse_extension(code: int, data: memoryview) -> Any:
    """Nothing that is sent has extension types of msgpack, and a record that holds one could not be shown."""
    raise ProtocolError(f"this kind of peer may not send such a message: it holds the extension type {code}")


def _decoder(union: Any) -> Callable[[bytes], Any]:
    decode: Callable[[bytes], Any] | None = None  # made when it is needed: no process has use for all of them

    def checked(data: bytes) -> Any:
        nonlocal decode
        if decode is None:
            decode = msgspec.msgpack.Decoder(union, ext_hook=_refuse_extension).decode
        try:
            return decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"this kind of peer may not send such a message: {error}") from None

    return checked


#: of a peer that has no session with the controller
decode_from_unknown: Callable[[bytes], Hello | Ping] = _decoder(Hello | Ping)
decode_from_client: Callable[[bytes], FromClient] = _decoder(FromClient)
decode_to_client: Callable[[bytes], ToClient] = _decoder(ToClient)
decode_from_engine: Callable[[bytes], FromEngine] = _decoder(FromEngine)
decode_to_engine: Callable[[bytes], ToEngine] = _decoder(ToEngine)
decode_from_nanny: Callable[[bytes], FromNanny] = _decoder(FromNanny)
decode_to_nanny: Callable[[bytes], ToNanny] = _decoder(ToNanny)
_decode_columns: Callable[[Buffer], dict[str, list[Any]]] = _decoder(dict[str, list[Any]])


#: How often a task may name a frame, on the average. It names one twice if its function holds a large array that is
#: also among its arguments. The other frames of a message do not count: the task travels on without them.
MOST_TIMES = 4


class FrameTable:
    """Collects the frames of one message. A buffer that several tasks share is sent once."""

    def __init__(self) -> None:
        self.frames: list[Buffer] = []
        self._index: dict[int, int] = {}

    def add(self, buffers: Iterable[Buffer]) -> tuple[int, ...]:
        """Add buffers to the message. Returns their indexes."""
        indexes = []
        for buffer in buffers:
            index = self._index.get(id(buffer))
            if index is None:
                index = self._index[id(buffer)] = len(self.frames)
                self.frames.append(buffer)
            indexes.append(index)
        return tuple(indexes)


def pick(part: TaskSpec | TaskDone | InputResult, frames: Frames) -> tuple[Buffer, ...]:
    """The frames of a task, an outcome or an input.

    Raises
    ------
    ProtocolError
        The message has fewer frames than it names. One frame may be named by many tasks, but not without end by one.
    """
    named = part.frames
    if len(named) > MOST_TIMES * len(set(named)) or not all(0 <= index < len(frames) for index in named):
        raise ProtocolError(f"task {part.id:.200} names frames {part.frames!s:.100} of {len(frames)}")
    return tuple([frames[index] for index in part.frames])


def pick_all(parts: Sequence[TaskSpec] | Sequence[TaskDone], frames: Frames) -> dict[TaskId, tuple[Buffer, ...]]:
    """The frames of those tasks or outcomes in a message that have some. Errors are those of `pick`."""
    if not any(map(_frames_of, parts)):  # most often: no step of the interpreter for each
        return {}
    return {part.id: pick(part, frames) for part in parts if part.frames}


def size(payload: bytes, frames: Frames) -> int:
    """The size of a payload with its frames, in bytes."""
    return len(payload) + sum(memoryview(f).nbytes for f in frames) if frames else len(payload)
