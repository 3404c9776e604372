"""What both ends of a Unix stream socket do with it: receive, send, look who is at the other end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
from array import array
from collections.abc import Sequence
from typing import Any

from ..shared_memory.buffer import SharedBuffer
from .connection import TooManyPassed
from .stream import BrokenStream, Reader

#: So much is received at a time.
CHUNK = 256 << 10
#: The size of the kernel's buffer of a connection that we ask for. The system may allow less.
KERNEL_BUFFER = 256 << 10
#: Buffers in one system call: the kernel refuses more.
MOST_BUFFERS = 1024
#: Room for the file descriptors that one call may bring, and a flag: programs that we start do not get them.
_ANCILLARY = socket.CMSG_SPACE(256 * array("i").itemsize)
_CLOSE_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
# As a plain int: an `&` of enums costs as much as the system call.
_TRUNCATED = int(socket.MSG_CTRUNC)
_INT = 4  # bytes that the system call writes
_PEER = struct.Struct("iII")  # process, user, group


def why_not_ours(connection: socket.socket) -> str:
    """Why the process at the other end is not to be trusted; "": it is ours."""
    _, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return "" if user == os.geteuid() else f"the process at the other end belongs to the user with the number {user}"


class PlainSocket:
    """One end of a Unix socket."""

    passes = sees_end = True
    #: the kernel has all that was given
    is_clear = True
    moved = 0

    def __init__(self, connection: socket.socket, chunk: memoryview) -> None:
        """`chunk`: memory to receive into. Sockets that one thread reads may have the same."""
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
        self.socket, self._chunk = connection, chunk

    def fileno(self) -> int:
        return self.socket.fileno()

    def give(self, buffers: Sequence[Any], passed: Sequence[SharedBuffer] = ()) -> int:
        """Give buffers to the kernel, and with the first byte what is passed. Returns how many bytes it has taken.

        Raises
        ------
        TooManyPassed
            Nothing was taken: too many descriptors of our user are on their way to processes that do not receive.
        """
        connection = self.socket
        if len(buffers) > MOST_BUFFERS:
            buffers = buffers[:MOST_BUFFERS]
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

    def receive(self, reader: Reader) -> tuple[list[list[Any]], int, bool]:
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
            count, ancillary, flags, _ = self.socket.recvmsg_into([self._chunk], _ANCILLARY, _CLOSE_ON_EXEC)
            if ancillary:
                reader.take_descriptors(_descriptors(ancillary))
            if flags & _TRUNCATED:
                raise BrokenStream("it brings file descriptors, and this process may open no more: raise `ulimit -n`")
            messages = reader.feed(self._chunk[:count]) if count else []
            is_full = count == CHUNK
        else:
            count = self.socket.recv_into(room)
            messages = reader.filled(count) if count else []
            is_full = count == room.nbytes
        if not count:
            raise OSError(errno.ECONNRESET, "the other end has closed the connection")
        return messages, count, is_full

    def is_received(self) -> bool:
        """Whether the other end has received all that the kernel was given."""
        return not any(fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(_INT)))

    def finish(self, seconds: float) -> None:
        """Nothing is lost when a Unix socket is closed."""

    def close(self) -> None:
        """Close for both ends, also if a forked process has the socket, too."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def new_chunk() -> memoryview:
    """Memory to receive into."""
    return memoryview(bytearray(CHUNK))


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> array[int]:
    """The file descriptors in ancillary data."""
    found = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found
