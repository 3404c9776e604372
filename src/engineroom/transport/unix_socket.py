"""What both ends of a Unix stream socket do with it: receive, send, look who is at the other end."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from .stream import Reader, Unsent

#: So much is received at a time.
CHUNK = 256 << 10
#: The size of the kernel's buffer of a connection that we ask for. The system may allow less.
KERNEL_BUFFER = 256 << 10
#: Between two log lines of one kind about what strangers do.
LOG_SECONDS = 10.0

_PEER = struct.Struct("iII")  # process, user, group


def why_not_ours(connection: socket.socket) -> str:
    """Why the process at the other end is not to be trusted; "": it is ours."""
    _, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return "" if user == os.geteuid() else f"the process at the other end belongs to the user with the number {user}"


def prepare(connection: socket.socket) -> None:
    """Let no call on a socket block, and give it a large buffer in the kernel."""
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)


def give(connection: socket.socket, buffers: Sequence[Any]) -> int:
    """Give buffers to the kernel. Returns how many bytes it has taken."""
    try:
        if len(buffers) == 1:
            return connection.send(buffers[0])
        return connection.sendmsg(buffers)
    except BlockingIOError:
        return 0


def give_unsent(connection: socket.socket, unsent: Unsent) -> None:
    """Give to the kernel what it takes."""
    while unsent:
        buffers = unsent.next()
        count = give(connection, buffers)
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

    def receive(self, connection: socket.socket, reader: Reader) -> tuple[list[list[Any]], bool]:
        """Receive what has come: (the messages that are complete, whether there may be more).

        Raises
        ------
        BlockingIOError
            Nothing has come.
        OSError, BrokenStream, MemoryError
            The connection is of no use any more. Its end is an OSError, too.
        """
        room = reader.room
        if room is None:
            count = connection.recv_into(self._memory)
            messages = reader.feed(self._memory[:count]) if count else []
            is_full = count == CHUNK
        else:
            count = connection.recv_into(room)
            messages = reader.filled(count) if count else []
            is_full = count == room.nbytes
        if not count:
            raise OSError(errno.ECONNRESET, "the other end has closed the connection")
        return messages, is_full


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
