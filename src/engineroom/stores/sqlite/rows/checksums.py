"""The checksums of rows: CRC-32 of what was submitted, and of the outcome.

Large buffers that are stored outside the rows are not part of it; they have digests of their own.
"""

from __future__ import annotations

import struct
from typing import Any
from zlib import crc32

two_numbers = struct.Struct("<2d").pack
four_numbers = struct.Struct("<4d").pack


def request_sum(
    msg_id: str, kind: str | None, client: str | None, submitted: float | None, target: int | None, function: Any,
    payload: bytes | None, frames: bytes | None, options: bytes | None, document: bytes | None,
    arguments: str | None,
) -> int:  # fmt: skip
    """The checksum of what was submitted."""
    name = function.encode() if isinstance(function, str) else function or b""
    names = f"{msg_id} {client} {kind}{arguments or ''}".encode("utf-8", "surrogatepass")
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


#: The columns of each checksum, in the order of the function's arguments.
SUMMED_REQUEST = (
    "msg_id", "kind", "client_uuid", "submitted", "target", "function", "payload", "frames", "options", "document",
    "arguments",
)  # fmt: skip
SUMMED_OUTCOME = (
    "state", "started", "completed", "received", "engine_id", "result_payload", "result_frames", "outcome", "stdout",
    "stderr",
)  # fmt: skip
