"""Messages in a stream of bytes, as a socket carries them. There is no socket here.

A link begins its stream with a greeting: `MAGIC`, then its name, 16 random bytes. After it, and from the listener at
once, come messages. A message is a head, then its frames:

    1 byte    MARK; another byte means that the stream is not ours, or out of step
    1 byte    how many file descriptors belong to the message. They come with its first byte, or before
    2 bytes   0
    4 bytes   how many frames, at least one
    8 bytes   the length of the first frame
    8 bytes   each: the lengths of the other frames

A frame whose length has the bit `PASSED` does not come in the stream. It is a shared buffer, and comes as the next of
the file descriptors. A frame whose length has the bit `ELSEWHERE` is a `HostFrame`: its number and its size come, 8
bytes each. All numbers are little-endian.

`pack` makes a message of frames, a `Reader` cuts the stream into messages again, and `Unsent` keeps what the kernel has
not taken yet.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

from .._version import __version__
from ..shared_memory.buffer import SharedBuffer, is_sealed, received
from ..shared_memory.pool import Blank, Pool
from .base import Frames, HostFrame

MAGIC = b"engineroom1\n"
NAME_BYTES = 16
MARK = 0xE7

_HEAD = struct.Struct("<BBHIQ")
_LENGTH = 8
_HOST_FRAME = struct.Struct("<QQ")
_GREETING = len(MAGIC) + NAME_BYTES

#: A frame of this size is received into memory of its own. Shorter ones are copied out of what was received together.
LARGE = 64 << 10
#: A frame of this size is received into pages of its own, which the system has back at once when it is gone.
MAPPED = 1 << 20
#: A message up to this size is sent in one piece, copied together. Of longer ones each frame is sent from where it is.
JOINED = 32 << 10
#: Frames in one message.
MOST_FRAMES = 1 << 20
#: What a peer may send before it is admitted: bytes and frames, of all its messages together. An engine's Hello names
#: every attempt that it holds, some 40 bytes each.
STRANGER_BYTES = 16 << 20
STRANGER_FRAMES = 1000
#: Buffers in one system call, and bytes, of what waits.
_CALL_BUFFERS, _CALL_BYTES = 64, 8 << 20
_UNLIMITED = 1 << 62
#: In the length of a frame: it comes as a file descriptor.
PASSED = 1 << 63
#: In the length of a frame: only its number comes.
ELSEWHERE = 1 << 62
#: File descriptors in one message: so many the kernel takes. Further shared buffers are sent as bytes.
MOST_DESCRIPTORS = 250
#: A connection was lost through which file descriptors went: perhaps the other end cannot open as many. The next one
#: brings a part of them in one message, one in so many.
FEWER_DESCRIPTORS = 4


#: What begins with 0xFF.
_ZEROMQ = (
    f"it speaks ZeroMQ, as engineroom 0.1 does, and this is engineroom {__version__}. Use one release at both ends: "
    f"there `pip install engineroom=={__version__}`"
)
_UNCLAIMED = "it brings more file descriptors than its messages announce"


class BrokenStream(Exception):
    """What has come is no stream of ours, or more than the peer may send: the connection is of no use any more."""


def greeting(name: bytes) -> bytes:
    """How a link begins its stream."""
    return MAGIC + name


def pack(frames: Frames, most_passed: int = MOST_DESCRIPTORS) -> tuple[list[Any], int, Sequence[SharedBuffer]]:
    """The bytes of a message: (buffers, to be sent one after the other; how many bytes they have; what is passed).

    The descriptors of the last are to be sent with the first byte. They are `most_passed` at most: what other shared
    buffers hold is sent as bytes.
    """
    first = frames[0]
    if len(frames) == 1 and type(first) is bytes:
        size = len(first)
        head = _HEAD.pack(MARK, 0, 0, 1, size)
        return ([head + first] if size <= JOINED else [head, first]), _HEAD.size + size, ()
    views: list[Any] = []
    lengths: list[int] = []
    passed: list[SharedBuffer] = []
    for frame in frames:
        if isinstance(frame, SharedBuffer):
            if len(passed) < most_passed:
                passed.append(frame)
                lengths.append(len(frame) | PASSED)
                continue
            if not is_sealed(frame.descriptor):  # to read pages of a file that somebody shortens would end us
                frame = frame.read_all()
        elif isinstance(frame, HostFrame):
            views.append(memoryview(_HOST_FRAME.pack(*frame)))
            lengths.append(_HOST_FRAME.size | ELSEWHERE)
            continue
        views.append(view := _flat(frame))
        lengths.append(view.nbytes)
    head = _HEAD.pack(MARK, len(passed), 0, len(lengths), lengths[0])
    head += struct.pack(f"<{len(lengths) - 1}Q", *lengths[1:])
    size = len(head) + sum(view.nbytes for view in views)
    buffers = [b"".join([head, *views])] if size <= JOINED else [head, *(v for v in views if v.nbytes)]
    return buffers, size, passed


def unpassed(views: Sequence[memoryview], passed: Sequence[SharedBuffer]) -> list[Any]:
    """A message that `pack` has made, with the content of the shared buffers in the place of their descriptors.

    Raises
    ------
    OSError
        A shared buffer cannot be read.
    """
    stream, rest = b"".join(views), iter(passed)
    _, _, _, count, _ = _HEAD.unpack_from(stream)
    lengths = struct.unpack_from(f"<{count}Q", stream, _HEAD.size - _LENGTH)
    at = _HEAD.size + (count - 1) * _LENGTH
    frames: list[Any] = []
    for length in lengths:
        if length & PASSED:
            frames.append(next(rest).read_all())
        else:
            frames.append(stream[at : at + length])
            at += length
    buffers, _, _ = pack(frames)
    return buffers


def _flat(buffer: Any) -> memoryview:
    """The bytes of a buffer, which must be contiguous."""
    view = memoryview(buffer)
    if view.format == "B" and view.ndim == 1:
        return view
    return view.cast("B") if view.nbytes else memoryview(b"")


def _memory(size: int) -> Any:
    """Fresh memory for a large frame. With huge pages receiving takes half the time: there are fewer to prepare."""
    if size < MAPPED:
        return bytearray(size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class Unsent:
    """What is to be sent through one connection, and the kernel has not taken. The buffers must not change."""

    def __init__(self) -> None:
        #: (bytes, whether a message ends with them, what is passed with their first byte)
        self._queue: deque[tuple[memoryview, bool, Sequence[SharedBuffer]]] = deque()
        self.messages = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, buffers: Sequence[Any], skip: int = 0, passed: Sequence[SharedBuffer] = ()) -> None:
        """Keep a message, but for the first `skip` bytes of it: fewer than it has."""
        last = len(buffers) - 1
        if skip:
            passed = ()
        for index, buffer in enumerate(buffers):
            view = memoryview(buffer)
            if skip >= view.nbytes:
                skip -= view.nbytes
                continue
            self._queue.append((view[skip:], index == last, passed))
            self.bytes += view.nbytes - skip
            skip, passed = 0, ()
        self.messages += 1

    def next(self) -> tuple[list[memoryview], Sequence[SharedBuffer]]:
        """What to give to the kernel next: bytes, and what is passed with the first of them."""
        chosen: list[memoryview] = []
        size, passed = 0, self._queue[0][2]
        for view, _, more in self._queue:
            if more and chosen:
                break
            chosen.append(view)
            size += view.nbytes
            if len(chosen) >= _CALL_BUFFERS or size >= _CALL_BYTES:
                break
        return chosen, passed

    def unpass(self) -> None:
        """Send the first message, of which nothing has been sent, without file descriptors.

        Raises
        ------
        OSError
            A shared buffer cannot be read.
        """
        queue, views, ends = self._queue, [], False
        passed = queue[0][2]
        while not ends:
            view, ends, _ = queue.popleft()
            views.append(view)
        buffers = [memoryview(buffer) for buffer in unpassed(views, passed)]
        last = len(buffers) - 1
        queue.extendleft([(view, index == last, ()) for index, view in reversed(list(enumerate(buffers)))])
        self.bytes += sum(view.nbytes for view in buffers) - sum(view.nbytes for view in views)

    def taken(self, count: int) -> None:
        """The kernel has taken so many bytes."""
        self.bytes -= count
        queue = self._queue
        while queue:
            view, ends, passed = queue[0]
            if count < view.nbytes:
                queue[0] = view[count:], ends, () if count else passed
                return
            count -= view.nbytes
            queue.popleft()
            self.messages -= ends

    def clear(self) -> None:
        """Nothing of it can be sent any more."""
        self._queue.clear()
        self.messages = self.bytes = 0


class Reader:
    """Cuts a stream into messages.

    The caller receives into `room`, if there is one, and then calls `filled`. Otherwise it receives into memory of its
    own, and calls `feed`. Both return the messages that are complete. The first frame of a message is bytes, or a
    memoryview if it is large. The others are memoryviews that can be written to, or, of a size of `MAPPED` or more
    and with a pool, shared buffers. After a BrokenStream the reader is of no use any more.
    """

    def __init__(
        self,
        most_bytes: int = _UNLIMITED,
        *,
        greets: bool = False,
        is_admitted: bool = True,
        is_trusted: bool = False,
        takes_host_frames: bool = False,
        pool: Pool | None = None,
    ) -> None:
        """`most_bytes`: in one message. `greets`: the stream begins with a greeting.

        `is_trusted`: the other end may hand over files that it could shorten (see `shared_memory.buffer.received`).
        `takes_host_frames`: the other end may name buffers that are on this host.
        `pool`: has the pages into which large frames are received, so that they need no copy to become shared buffers.
        """
        self._is_trusted, self._is_admitted, self._takes_host_frames = is_trusted, is_admitted, takes_host_frames
        #: file descriptors that have come, and belong to no message yet
        self._descriptors: deque[int] = deque()
        self._most_bytes = most_bytes
        #: the name in the greeting; b"": it has not come yet, or there is none
        self.name = b""
        self._greets = greets
        #: how much more the peer may send
        self._bytes_left, self._frames_left = _UNLIMITED, _UNLIMITED
        if not is_admitted:
            self._bytes_left, self._frames_left = STRANGER_BYTES, STRANGER_FRAMES
        #: where a large frame that has not come whole is to be received: the rest of its memory; None: there is none
        self.room: memoryview | None = None
        #: … if that is pages of the pool
        self._blank: Blank | None = None
        self._pool = pool
        #: the beginning of something short that has not come whole
        self._rest = b""
        #: of the message that is coming: its frames so far, and the lengths of all; empty: its head has not come
        self._frames: list[Any] = []
        self._lengths: Sequence[int] = ()

    def admit(self) -> None:
        """The peer may send as much as it likes, from now on."""
        self._bytes_left = self._frames_left = _UNLIMITED
        self._is_admitted = True

    def take_descriptors(self, descriptors: Sequence[int]) -> None:
        """These have come. Call this before `feed` with the bytes that came with them."""
        self._descriptors.extend(descriptors)
        if not self._is_admitted:
            raise BrokenStream("it brings file descriptors before it may")
        if len(self._descriptors) > MOST_DESCRIPTORS:
            raise BrokenStream(_UNCLAIMED)

    def close(self) -> None:
        """Close the file descriptors that no message has claimed."""
        while self._descriptors:
            with contextlib.suppress(OSError):
                os.close(self._descriptors.popleft())

    def arriving(self) -> tuple[Sequence[Any], int]:
        """The frames of a message whose last one is large and has come in part, and how many bytes of that; or ()."""
        if self.room is None:
            return (), 0
        return self._frames, self._frames[-1].nbytes - self.room.nbytes

    def filled(self, count: int) -> list[list[Any]]:
        """So many bytes have been received into `room`."""
        room = self.room
        assert room is not None
        if count < room.nbytes:
            self.room = room[count:]
            return []
        self.room = None
        if self._blank is not None:
            self._frames[-1], self._blank = self._blank.finish(), None
        return self._cut(memoryview(b""))

    def feed(self, data: memoryview) -> list[list[Any]]:
        """These bytes have been received. They are copied: the caller may use their memory again."""
        if self._rest:
            data = memoryview(self._rest + data)
            self._rest = b""
        return self._cut(data)

    def _cut(self, data: memoryview) -> list[list[Any]]:
        messages: list[list[Any]] = []
        at, end = 0, data.nbytes
        if self._greets:
            if not MAGIC.startswith(bytes(data[: len(MAGIC)])):
                raise BrokenStream(_ZEROMQ if data[0] == 0xFF else "it does not begin as a stream of ours")
            if end < _GREETING:
                self._rest = bytes(data)
                return messages
            at, self._greets = _GREETING, False
            self.name = bytes(data[len(MAGIC) : at])
        while True:
            if not self._lengths:
                if end - at < _HEAD.size:
                    break
                _, passed, _, count, length = head = _HEAD.unpack_from(data, at)
                self._check(head)
                begin = at + _HEAD.size
                if count == 1 and length <= end - begin:  # nearly all messages
                    at = begin + length
                    messages.append([bytes(data[begin:at])])
                    self._bytes_left -= length
                    self._frames_left -= 1
                    continue
                table = begin + (count - 1) * _LENGTH
                if table > end:
                    break
                lengths = (length, *struct.unpack_from(f"<{count - 1}Q", data, begin))
                self._begin(lengths, passed)
                at = table
            at = self._take_frames(data, at)
            if len(self._frames) < len(self._lengths) or self.room is not None:
                break
            messages.append(self._frames)
            self._frames, self._lengths = [], ()
        if at < end:
            self._rest = bytes(data[at:])
        elif self._descriptors and not self._lengths:
            raise BrokenStream(_UNCLAIMED)
        return messages

    def _check(self, head: tuple[int, int, int, int, int]) -> None:
        mark, passed, unused, count, length = head
        if mark != MARK or unused or not count or length & (PASSED | ELSEWHERE) or passed >= count:
            raise BrokenStream("it is out of step")
        if passed and (not self._is_admitted or passed > len(self._descriptors)):
            raise BrokenStream(f"a message with {passed} file descriptors, and fewer have come or are allowed")
        if length > self._most_bytes or length > self._bytes_left:
            raise BrokenStream(f"a message of {length} bytes or more, and fewer are allowed")
        if count > MOST_FRAMES or count > self._frames_left:
            raise BrokenStream(f"a message of {count} frames, and fewer are allowed")

    def _begin(self, lengths: Sequence[int], passed: int) -> None:
        """The head and the lengths of a message have come."""
        size = sum(lengths)
        if size >= ELSEWHERE or passed:
            if sum(1 for length in lengths if length & PASSED) != passed:
                raise BrokenStream("a message that announces other file descriptors than it has")
            elsewhere = [length for length in lengths if length & ELSEWHERE and not length & PASSED]
            if elsewhere and (not self._takes_host_frames or set(elsewhere) != {_HOST_FRAME.size | ELSEWHERE}):
                raise BrokenStream("a message with a buffer that should be on this host")
            size = sum(length & ~(PASSED | ELSEWHERE) for length in lengths)
        if size > self._most_bytes or size > self._bytes_left:
            raise BrokenStream(f"a message of {size} bytes, and fewer are allowed")
        self._bytes_left -= size
        self._frames_left -= len(lengths)
        self._lengths = lengths

    def _take_frames(self, data: memoryview, at: int) -> int:
        """Take the frames of a message out of the data, as far as they have come. Returns where they end."""
        end, frames = data.nbytes, self._frames
        for length in self._lengths[len(frames) :]:
            if length & PASSED:
                frames.append(self._passed(length & ~PASSED))
                continue
            if length & ELSEWHERE:
                if end - at < _HOST_FRAME.size:
                    break
                frames.append(HostFrame(*_HOST_FRAME.unpack_from(data, at)))
                at += _HOST_FRAME.size
                continue
            there = min(length, end - at)
            if there < length < LARGE:
                break
            if not frames and there == length:
                frames.append(bytes(data[at : at + length]))
            elif there == length:
                frames.append(memoryview(bytearray(data[at : at + length])))
            else:
                memory = self._room_for(length, is_first=not frames)
                memory[:there] = data[at : at + there]
                self.room = memory[there:]
                frames.append(memory)
            at += there
            if there < length:
                break
        return at

    def _room_for(self, size: int, *, is_first: bool) -> memoryview:
        """Memory for a frame of which a part has come."""
        if self._pool is not None and not is_first and size >= MAPPED:
            self._blank = self._pool.blank(size)
        return memoryview(_memory(size)) if self._blank is None else self._blank.room

    def _passed(self, size: int) -> Any:
        """A frame that has come as a file descriptor."""
        try:
            return received(self._descriptors.popleft(), size, is_trusted=self._is_trusted)
        except (OSError, ValueError) as error:
            raise BrokenStream(f"a file descriptor that is of no use: {error}") from None
