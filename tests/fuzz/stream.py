"""Bytes of a connection, in chunks, through the reader of `transport/stream.py`.

A case is two bytes that say who sends and how the chunks are cut, and then the stream. The same bytes must give the
same messages whatever the chunks are. The reader may raise BrokenStream, and nothing else.
"""

from __future__ import annotations

import os
import struct
from random import Random
from typing import Any

import msgspec

from engineroom.transport.base import HostFrame
from engineroom.transport.stream import (
    LARGE,
    MAGIC,
    MARK,
    NAME_BYTES,
    PASSED,
    STRANGER_BYTES,
    BrokenStream,
    Reader,
    greeting,
    pack,
)

from . import mutations, samples
from .target import Finding, Target

#: Bytes of one message of a peer that was admitted. The controller allows 8 GiB: a case must not take so much.
MOST_BYTES = 1 << 22
#: In the first byte of a case.
GREETS, ADMITTED, TRUSTED, HOST_FRAMES, DESCRIPTORS = 1, 2, 4, 8, 16

Messages = list[list[Any]]


class StreamTarget(Target):
    """The reader, as the controller uses it for strangers and peers, and as links use it."""

    name = "stream"
    longest = 8192

    def seeds(self) -> list[bytes]:
        hello = GREETS.to_bytes() + b"\1" + greeting(b"n" * NAME_BYTES)
        found = [hello + _packed([b"header"]) + _packed([b"second", b"frame", b""])]
        for flags in (ADMITTED, ADMITTED | HOST_FRAMES, ADMITTED | TRUSTED | HOST_FRAMES):
            start = bytes([flags, 7])
            found.append(start + _packed([b"header", b"a" * 300, b""]) + _packed([b"x"]))
            found.append(start + _packed([b"header", HostFrame(3, 400), b"more"]))
            found.append(start + _packed([b"h", bytes(LARGE + 5)])[:200])
        # One frame of a byte, and one of five bytes that comes as a file descriptor.
        head = struct.pack("<BBHIQQ", MARK, 1, 0, 2, 1, 5 | PASSED)
        found.append(bytes([ADMITTED | DESCRIPTORS, 3]) + head + b"h")
        headers = map(msgspec.msgpack.encode, samples.of("FromClient")[:8])
        return [*found, *(bytes([ADMITTED, 11]) + _packed([header]) for header in headers)]

    def run(self, case: bytes) -> None:
        if len(case) < 2:
            return
        flags, chunk, data = case[0], case[1], case[2:]
        before = _descriptors() if flags & DESCRIPTORS else 0
        whole = _read(flags, data, None)
        parts = _read(flags, data, Random(chunk))
        if not flags & DESCRIPTORS and whole != parts:
            raise Finding(f"chunks change what is read: {whole!r:.300}, in chunks {parts!r:.300}")
        del whole, parts
        if flags & DESCRIPTORS and (after := _descriptors()) != before:
            raise Finding(f"file descriptors are left open: {before} before, {after} after")

    def mutate(self, case: bytes, rng: Random) -> bytes:
        """Lengths and counts are changed more often than other bytes."""
        made = bytearray(mutations.change_bytes(case, rng))
        if len(made) > 20 and rng.random() < 0.3:
            at = 2 + (len(MAGIC) + NAME_BYTES if made[0] & GREETS else 0) + rng.choice((1, 4, 8, 16))
            made[at : at + 8] = rng.choice((0, 1, 16, LARGE, STRANGER_BYTES, 1 << 62, 1 << 63, 1 << 62 | 16)).to_bytes(
                8, "little"
            )
        return bytes(made)


def _packed(frames: list[Any]) -> bytes:
    buffers, _, _ = pack(frames)
    return b"".join(buffers)


def _read(flags: int, data: bytes, chunks: Random | None) -> Messages | str:
    """The messages; "broken": the reader refused the stream."""
    reader = Reader(
        MOST_BYTES,
        greets=bool(flags & GREETS),
        is_admitted=bool(flags & ADMITTED),
        is_trusted=bool(flags & TRUSTED),
        takes_host_frames=bool(flags & HOST_FRAMES),
    )
    found: list[list[Any]] = []
    try:
        if flags & DESCRIPTORS:
            reader.take_descriptors([_shared(b"12345") for _ in range(1 + (flags >> 5) % 2)])
        at = 0
        while at < len(data):
            size = len(data) - at if chunks is None else chunks.choice((1, 2, 7, 16, 100, 5000))
            piece = memoryview(data)[at : at + size]
            if reader.room is not None:
                piece = piece[: len(reader.room)]
                reader.room[: len(piece)] = piece
                found += reader.filled(len(piece))
            else:
                found += reader.feed(piece)
            at += len(piece)
    except BrokenStream:
        return "broken"
    finally:
        reader.close()
    return [[frame if isinstance(frame, HostFrame) else bytes(memoryview(frame)) for frame in each] for each in found]


def _shared(content: bytes) -> int:
    descriptor = os.memfd_create("fuzz")
    os.write(descriptor, content)
    return descriptor


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
