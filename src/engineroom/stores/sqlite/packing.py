"""Buffers as one blob, and the checksums of rows."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

import msgspec

from ...errors import StoreDamaged


class Shared(msgspec.Struct, frozen=True):
    """Stands for a buffer that is stored beside the rows, by its number."""

    number: int


#: Reads a shared buffer; None: it is damaged, or not there.
Load = Callable[[int], bytes | None]

#: In the place of a length: what follows is the number of a shared buffer.
_SHARED = 1 << 63


def pack(frames: Sequence[Any]) -> bytes:
    """Buffers as one blob: their number, their lengths, their bytes."""
    lengths, parts = [], []
    for frame in frames:
        if isinstance(frame, Shared):
            lengths.append(_SHARED | frame.number)
            continue
        view = memoryview(frame)
        lengths.append(view.nbytes)
        parts.append(view if view.contiguous else view.tobytes())
    return b"".join([struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths), *parts])


def unpack(blob: bytes | None, load: Load | None = None) -> list[bytes]:
    """The buffers in a blob; `load` gets those that are stored elsewhere. StoreDamaged if one is."""
    if not blob:
        return []
    (count,) = struct.unpack_from("<I", blob)
    start, buffers = 4 + 8 * count, []
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


# ---------------------------------------------------------------------------------------------- checksums

two_numbers = struct.Struct("<2d").pack
four_numbers = struct.Struct("<4d").pack


def request_sum(
    msg_id: str, kind: str | None, client: str | None, submitted: float | None, target: int | None, function: Any,
    payload: bytes | None, frames: bytes | None, options: bytes | None, document: bytes | None,
) -> int:  # fmt: skip
    """The checksum of what was submitted."""
    name = function.encode() if isinstance(function, str) else function or b""
    names = f"{msg_id} {client} {kind}".encode("utf-8", "surrogatepass")
    parts = [two_numbers(submitted or 0.0, target or 0.0), names, name, payload or b"", frames or b"", options or b"",
             document or b""]  # fmt: skip
    return crc32(b"".join(parts))


def outcome_sum(
    state: str, started: float | None, completed: float | None, received: float | None, engine_id: int | None,
    result_payload: bytes | None, result_frames: bytes | None, outcome: bytes | None, stdout: str | None,
    stderr: str | None,
) -> int:  # fmt: skip
    """The checksum of the outcome."""
    times = four_numbers(started or 0.0, completed or 0.0, received or 0.0, -1.0 if engine_id is None else engine_id)
    texts = b"" if not stdout and not stderr else f"{stdout or ''}{stderr or ''}".encode("utf-8", "surrogatepass")
    parts = [times, result_payload or b"", result_frames or b"", outcome or b"", texts, (state or "").encode()]
    return crc32(b"".join(parts))


#: The columns of each, in the order of the arguments.
SUMMED_REQUEST = (
    "msg_id", "kind", "client_uuid", "submitted", "target", "function", "payload", "frames", "options", "document",
)  # fmt: skip
SUMMED_OUTCOME = (
    "state", "started", "completed", "received", "engine_id", "result_payload", "result_frames", "outcome", "stdout",
    "stderr",
)  # fmt: skip
