"""Bytes in which backends keep parts of an entry: many buffers as one blob, the rare parts of an outcome as msgpack."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ..errors import StoreDamaged
from ..messages import Attempt, ErrorInfo, TaskOptions
from ..shared_memory.buffer import SharedBuffer


class Shared(msgspec.Struct, frozen=True):
    """Stands for a large buffer that is stored once, outside the blob, under this number."""

    number: int


#: Reads a shared buffer by its number: bytes or a `SharedBuffer`; None: it is damaged, or missing.
Load = Callable[[int], Any]

#: Flag in the place of a length: the other bits are the number of a shared buffer.
_SHARED = 1 << 63


def pack(frames: Sequence[Any]) -> bytes:
    """Buffers as one blob: their number, their lengths, their bytes."""
    lengths, parts = [], []
    for frame in frames:
        if isinstance(frame, Shared):
            lengths.append(_SHARED | frame.number)
            continue
        view = memoryview(frame.read_all() if isinstance(frame, SharedBuffer) else frame)
        lengths.append(view.nbytes)
        parts.append(view if view.contiguous else view.tobytes())
    return b"".join([struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths), *parts])


def unpack(blob: bytes | None, load: Load | None = None) -> list[Any]:
    """The buffers in a blob; `load` reads shared ones. StoreDamaged if a shared buffer cannot be read."""
    if not blob:
        return []
    (count,) = struct.unpack_from("<I", blob)
    start = 4 + 8 * count
    buffers: list[Any] = []
    for length in struct.unpack_from(f"<{count}Q", blob, 4):
        if length & _SHARED:
            found = None if load is None else load(length ^ _SHARED)
            if found is None:
                raise StoreDamaged("a large buffer of this task is damaged; `engineroom db verify` tells more")
            buffers.append(found)
            continue
        buffers.append(blob[start : start + length])
        start += length
    return buffers


class Outcome(msgspec.Struct, array_like=True, omit_defaults=True):
    """The rare parts of an outcome, which share one value."""

    error: ErrorInfo | None = None
    content: dict[str, Any] | None = None
    attempts: list[Attempt] | None = None


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode
decode_options = msgspec.msgpack.Decoder(TaskOptions).decode
_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode


def decode_outcome(packed: bytes | None) -> Outcome:
    """The rare parts of an outcome; all None if none were stored."""
    return Outcome() if packed is None else _decode_outcome(packed)
