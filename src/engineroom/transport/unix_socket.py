"""What both ends of a Unix stream socket do with it: receive, send, look who is at the other end."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from array import array
from collections.abc import Sequence
from typing import Any

from ..shared_memory.buffer import SharedBuffer
from .stream import BrokenStream, Reader, Unsent

#: So much is received at a time.
CHUNK = 256 << 10
#: The size of the kernel's buffer of a connection that we ask for. The system may allow less.
KERNEL_BUFFER = 256 << 10
#: Between two log lines of one kind about what strangers do.
LOG_SECONDS = 10.0

#: Room for the file descriptors that one call may bring, and a flag: programs that we start do not get them.
_ANCILLARY = socket.CMSG_SPACE(256 * array("i").itemsize)
_CLOSE_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
# As a plain int: an `&` of enums costs as much as the system call.
_TRUNCATED = int(socket.MSG_CTRUNC)
_PEER = struct.Struct("iII")  # process, user, group


class TooManyPassed(Exception):
    """The kernel takes no more file descriptors now. It counts those of all processes of a user."""


def why_not_ours(connection: socket.socket) -> str:
    """Why the process at the other end is not to be trusted; "": it is ours."""
    _, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return "" if user == os.geteuid() else f"the process at the other end belongs to the user with the number {user}"


def prepare(connection: socket.socket) -> None:
    """Let no call on a socket block, and give it a large buffer in the kernel."""
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)


def give(connection: socket.socket, buffers: Sequence[Any], passed: Sequence[SharedBuffer] = ()) -> int:
    """Give buffers to the kernel, and with the first byte what is passed. Returns how many bytes it has taken.

    Raises
    ------
    TooManyPassed
        Nothing was taken: too many descriptors of our user are on their way to processes that do not receive.
    """
    try:
        if passed:
            descriptors = array("i", [buffer.descriptor for buffer in passed])
            return connection.sendmsg(buffers, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        if len(buffers) == 1:
            return connection.send(buffers[0])
        return connection.sendmsg(buffers)
    except BlockingIOError:
        return 0
    except OSError as error:
        if passed and error.errno == errno.ETOOMANYREFS:
            raise TooManyPassed from None
        raise


def give_unsent(connection: socket.socket, unsent: Unsent) -> None:
    """Give to the kernel what it takes."""
    while unsent:
        buffers, passed = unsent.next()
        try:
            count = give(connection, buffers, passed)
        except TooManyPassed:  # whoever does not receive may never do so: the content itself is sent
            unsent.unpass()
            continue
        unsent.taken(count)
        if count < sum(buffer.nbytes for buffer in buffers):
            return


def close_both(connection: socket.socket) -> None:
    """Close for both ends, also if a forked process has the socket, too."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


class Chunk:
    """Memory to receive into, for one thread at a time."""

    def __init__(self) -> None:
        self._memory = memoryview(bytearray(CHUNK))

    def receive(self, connection: socket.socket, reader: Reader) -> tuple[list[list[Any]], int, bool]:
        """Receive what has come: (the messages that are complete, how many bytes, whether there may be more).

        Raises
        ------
        BlockingIOError
            Nothing has come.
        OSError, BrokenStream, MemoryError
            The connection is of no use any more. Its end is an OSError, too.
        """
        room = reader.room
        if room is None:
            count, ancillary, flags, _ = connection.recvmsg_into([self._memory], _ANCILLARY, _CLOSE_ON_EXEC)
            if ancillary:
                reader.take_descriptors(_descriptors(ancillary))
            if flags & _TRUNCATED:
                raise BrokenStream("it brings file descriptors, and this process may open no more: raise `ulimit -n`")
            messages = reader.feed(self._memory[:count]) if count else []
            is_full = count == CHUNK
        else:
            count = connection.recv_into(room)
            messages = reader.filled(count) if count else []
            is_full = count == room.nbytes
        if not count:
            raise OSError(errno.ECONNRESET, "the other end has closed the connection")
        return messages, count, is_full


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> array[int]:
    """The file descriptors in ancillary data."""
    found = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found


class Often:
    """Says when to write a log line that could come often."""

    def __init__(self) -> None:
        self._quiet_until = 0.0

    def may_log(self) -> bool:
        """Whether a line may be written now."""
        now = time.monotonic()
        if now < self._quiet_until:
            return False
        self._quiet_until = now + LOG_SECONDS
        return True
