"""What links and listeners do with a connection, whatever kind of socket it is.

`PlainSocket` (Unix) and `SealedSocket` (TCP, encrypted) are the two kinds.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Sequence
from typing import Any, Protocol

from ..shared_memory.buffer import SharedBuffer
from .stream import Reader, Unsent

#: Between two log lines of one kind about what strangers do.
LOG_SECONDS = 10.0


class TooManyPassed(Exception):
    """The kernel takes no more file descriptors now. It counts those of all processes of a user."""


class Socket(Protocol):
    """A connected socket. No call waits."""

    #: whether shared buffers are handed over as file descriptors
    passes: bool

    #: whether the kernel tells at once that the other end is gone. Else a link may connect again while its old
    #: connection seems to live: its host was cut off
    sees_end: bool

    @property
    def is_clear(self) -> bool:
        """Whether the kernel has all that was given. If not, call `give` again, also with no buffers."""

    @property
    def moved(self) -> int:
        """How many bytes have been encrypted with one key, in either direction."""

    def fileno(self) -> int:
        """The file descriptor. It is readable if something has come that was not received."""

    def give(self, buffers: Sequence[Any], passed: Sequence[SharedBuffer] = ()) -> int:
        """Send what can be sent now; returns how many bytes were taken. Raises OSError, TooManyPassed."""

    def receive(self, reader: Reader) -> tuple[list[list[Any]], int, bool]:
        """Receive what has come: (messages, how many bytes, whether there may be more). Raises BlockingIOError …"""

    def is_received(self) -> bool:
        """Whether the other end has received all that the kernel was given. Only for sockets that pass buffers."""

    def finish(self, seconds: float) -> None:
        """Nothing more is sent: wait until the other end has it, where closing would lose it."""

    def close(self) -> None:
        """Close for both ends."""


class Entrance(Protocol):
    """Where links connect to. Its file descriptor is readable when `enter` may have new connections."""

    @property
    def url(self) -> str:
        """The address."""

    def fileno(self) -> int:
        """The file descriptor."""

    def enter(self) -> Socket | None:
        """A connection that has come, if there is one. Raises OSError, which may pass."""

    def close(self) -> None:
        """Let nobody in any more. May be called twice."""


def give_unsent(connection: Socket, unsent: Unsent) -> None:
    """Send what can be sent now."""
    if not connection.is_clear:
        connection.give([])
        if not connection.is_clear:
            return
    while unsent:
        buffers, passed = unsent.next()
        try:
            count = connection.give(buffers, passed)
        except TooManyPassed:  # whoever does not receive may never do so: the content itself is sent
            unsent.unpass()
            continue
        unsent.taken(count)
        if count < sum(buffer.nbytes for buffer in buffers):
            return


def accept(listening: socket.socket) -> socket.socket | None:
    """The next connection that waits at a socket; None: there is none. Raises OSError."""
    while True:
        try:
            accepted, _ = listening.accept()
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.ECONNABORTED:  # it has ended before we came to it
                continue
            raise
        return accepted


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
