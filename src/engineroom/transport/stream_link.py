"""What links have in common: messages through one connection with the controller, which is made again after a loss.

The thread that calls `send` sends, as much as the kernel takes. A helper, a thread of the link, sends the rest, and
connects again after a loss. It runs only while there is something to do. The random name of a link in the greeting
(`stream.py`) tells the listener who connects again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import select
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any

from ..descriptors import require_descriptors
from ..shared_memory.pool import Pool
from .base import Frames
from .connection import Often, Socket, TooManyPassed, give_unsent
from .stream import (
    FEWER_DESCRIPTORS,
    MOST_DESCRIPTORS,
    NAME_BYTES,
    STRANGER_BYTES,
    STRANGER_FRAMES,
    BrokenStream,
    Reader,
    Unsent,
    greeting,
    pack,
)

log = logging.getLogger(__name__)

#: Between two attempts to connect: the first, and the longest.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.01, 0.5
#: Messages that a link has received, and its owner has not taken, after which it receives no more.
MOST_READ = 1000
#: Bytes that one call of `receive` takes in, about. It looks at nothing else meanwhile.
MOST_READ_BYTES = 16 << 20
#: What a link keeps while it is not connected: the first so many bytes and messages that are sent. More are lost.
KEPT_BYTES, KEPT_MESSAGES = STRANGER_BYTES // 2, STRANGER_FRAMES // 2
#: So many attempts to connect must end with a refusal in turn, before it is certain that the keys do not fit.
REFUSALS = 2
#: One key of AES-GCM is safe for some 350 GB. After so many bytes a link connects anew, with fresh keys.
MOST_OF_ONE_KEY = 200 << 30


class StreamLink(ABC):
    """The end of a client, an engine or a nanny. One thread at a time may call `receive`, `send` and `close`."""

    shares_memory: bool
    #: whether messages may name buffers that are on this host already
    takes_host_frames = False
    #: has the pages for what comes in bytes and is large
    pool: Pool | None = None

    def __init__(self) -> None:
        require_descriptors("a connection")
        self._name = secrets.token_bytes(NAME_BYTES)
        self._pid = os.getpid()
        #: readable when something has come; its number stays the same when we connect again
        self._epoll = select.epoll()
        #: readable when `wake` was called, also by the helper, which then says so here; -1: closed
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_woken = False
        self._epoll.register(self._wake, select.EPOLLIN)
        self._arrived: deque[Frames] = deque()
        #: whether `receive` or `send` is in the middle of a message
        self._is_busy = False
        # The lock guards what follows: the helper uses it, too.
        self._lock = threading.Lock()
        self._socket: Socket | None = None
        self._reader = Reader(is_trusted=self.shares_memory)
        #: whether nothing can be sent through the connection any more
        self._is_broken = False
        self._unsent = Unsent()
        #: how many file descriptors one message may bring, and whether one has through this connection
        self._most_passed, self._has_passed = MOST_DESCRIPTORS if self.shares_memory else 0, False
        self._helper: threading.Thread | None = None
        self._has_sent = threading.Event()  # nothing is unsent
        self._has_sent.set()
        self._closed = threading.Event()
        self._refusals = Often()
        #: how many attempts in turn have ended with a refusal
        self._refused = 0
        #: whether nothing has been received through the connection
        self._is_new = True
        #: whether there has been a connection; whether the owner does not know yet that another was made
        self._has_connected = self._is_renewed = False

    @abstractmethod
    def _open(self) -> Socket:
        """A new connection with the controller. The helper calls this; it may take some seconds.

        Raises
        ------
        PermissionError
            What listens there cannot be trusted.
        OSError
            There is none.
        """

    def _is_refusal(self, error: Exception) -> bool:
        """Whether an attempt that ended so has shown that one end turns down the other's keys."""
        return False

    def fileno(self) -> int:
        return self._epoll.fileno()

    # ------------------------------------------------------------------------------------------ receiving

    def receive(self, limit: int = 64, timeout: float = 0.0) -> list[Frames]:
        if self._is_busy:  # a signal handler's exception has ended a call too early: bytes may be lost
            self._lose()
        arrived = self._arrived
        if not arrived:
            if timeout > 0:
                self._wait(timeout)
            else:
                self._read()
                self._take_wake()
        if len(arrived) == 1:
            return [arrived.popleft()]
        return [arrived.popleft() for _ in range(min(limit, len(arrived)))]

    def arriving(self) -> tuple[Sequence[Any], int]:
        """See `Reader`: for the thread that receives."""
        return self._reader.arriving()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as we know."""
        return self._socket is not None

    def wake(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)
            self._is_woken = True  # after the writing: who sees it can read

    def _take_wake(self) -> bool:
        """Whether `wake` was called since the last look."""
        if not self._is_woken:
            return False
        self._is_woken = False
        with contextlib.suppress(BlockingIOError):  # two calls were read at once the last time
            os.eventfd_read(self._wake)
        return True

    def _wait(self, timeout: float) -> None:
        """Wait until a message is complete, or `wake` is called."""
        until = None
        while timeout > 0:
            if self._epoll.poll(timeout, 1):
                self._read()
                if self._take_wake() or self._arrived:
                    return
            now = time.monotonic()
            until = now + timeout if until is None else until
            timeout = until - now

    def _read(self) -> None:
        """Take in what has come."""
        connection = self._socket
        if connection is None:
            return
        self._is_busy = True
        try:
            is_full, left = True, MOST_READ_BYTES
            while is_full and left > 0 and len(self._arrived) < MOST_READ:
                messages, count, is_full = connection.receive(self._reader)
                self._arrived += messages
                left -= count
            if self._is_new and self._arrived:
                self._is_new = False
                self._refused = 0
            if connection.moved > MOST_OF_ONE_KEY:
                self._lose()
        except BlockingIOError:
            pass
        except (OSError, BrokenStream, MemoryError) as error:
            if not isinstance(error, OSError):
                why = error if isinstance(error, BrokenStream) else "there is no memory for a message that has come"
                log.error("the connection with the controller is closed, and made anew: %s", why)
            if self._is_new and self._is_refusal(error):
                self._refused += 1
            self._lose()
        self._is_busy = False

    def _lose(self) -> None:
        """The connection is of no use any more: have another made. What is unsent is lost, as what was on its way."""
        with self._lock:
            connection, self._socket = self._socket, None
            self._unsent.clear()
            self._has_sent.set()
            if self._has_passed:
                self._most_passed, self._has_passed = self._most_passed // FEWER_DESCRIPTORS, False
            if connection is not None:
                self._epoll.unregister(connection)
                connection.close()
            self._reader.close()
            self._is_busy = False
            self._need_helper()

    # ------------------------------------------------------------------------------------------ sending

    def send(self, frames: Frames) -> None:
        if self._is_busy:
            self._lose()
        buffers, size, passed = pack(frames, self._most_passed)
        with self._lock:
            self._has_passed = self._has_passed or bool(passed)
            unsent, count = self._unsent, 0
            if self._socket is None:
                # The controller that answers next may be another one, which does not know us: it hears little.
                if passed or unsent.bytes + size > KEPT_BYTES or unsent.messages >= KEPT_MESSAGES:
                    return
            elif self._is_broken:
                return
            elif not unsent and self._socket.is_clear:
                self._is_busy = True
                try:
                    count = self._socket.give(buffers, passed)
                except TooManyPassed:
                    pass  # the helper sends the content
                except OSError:
                    self._break()
                    count = size
                self._is_busy = False
                if count == size and (self._is_broken or self._socket.is_clear):
                    return
            if count < size:
                unsent.add(buffers, count, passed)
            self._has_sent.clear()
            self._need_helper()

    def lend(self, buffer: Any) -> int:
        return 0

    def flush(self, timeout: float) -> bool:
        return self._has_sent.is_set() or self._has_sent.wait(timeout)

    def _break(self) -> None:
        """Nothing can be sent any more; `receive` finds the end of what has come. Called with the lock held."""
        self._is_broken = True
        self._unsent.clear()

    def refused(self) -> bool:
        return self._refused >= REFUSALS

    def take_renewed(self) -> bool:
        is_renewed, self._is_renewed = self._is_renewed, False
        return is_renewed

    # ------------------------------------------------------------------------------------------ the helper

    def _need_helper(self) -> None:
        """Have a thread connect, and send what is unsent. Called with the lock held."""
        if self._helper is None and not self._closed.is_set():
            helper = threading.Thread(target=self._help, name="engineroom-link", daemon=True)
            with contextlib.suppress(RuntimeError):  # no memory for a thread: it is tried again when something is sent
                helper.start()
                self._helper = helper

    def _help(self) -> None:
        retry = FIRST_RETRY_SECONDS
        while not self._closed.is_set():
            with self._lock:
                connection = self._socket
                if connection is not None:
                    if self._is_broken or (not self._unsent and connection.is_clear):
                        self._helper = None
                        self._has_sent.set()
                        return
                    descriptor = connection.fileno()
            if connection is not None:
                self._send_when_possible(connection, descriptor)
                continue
            try:
                self._connect()
                retry = FIRST_RETRY_SECONDS
            except OSError as error:
                if self._is_refusal(error):
                    self._refused += 1
                if isinstance(error, PermissionError) and self._refusals.may_log():
                    log.warning("not connected with the controller: %s", error)
                self._closed.wait(retry)
                retry = min(LAST_RETRY_SECONDS, 2 * retry)

    def _send_when_possible(self, connection: Socket, descriptor: int) -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        poll.poll(LAST_RETRY_SECONDS * 1000)
        with self._lock:
            if self._socket is connection:
                try:
                    give_unsent(connection, self._unsent)
                except (OSError, MemoryError):
                    self._break()

    def _connect(self) -> None:
        """Connect, and send what has gathered. Raises what `_open` does."""
        new = self._open()
        try:
            new.give([greeting(self._name)])
        except BaseException:
            new.close()
            raise
        with self._lock:
            if self._closed.is_set():
                new.close()
                return
            self._reader = Reader(
                is_trusted=self.shares_memory, takes_host_frames=self.takes_host_frames, pool=self.pool
            )
            self._is_broken = False
            self._socket, self._is_new = new, True
            try:
                give_unsent(new, self._unsent)
            except (OSError, MemoryError):
                self._break()
            self._epoll.register(new, select.EPOLLIN)
            if self._has_connected:  # what was on its way is lost, and the owner is to ask at once
                self._is_renewed = True
                self.wake()
            self._has_connected = True
            if not new.is_clear:
                self._need_helper()

    # ------------------------------------------------------------------------------------------ the end

    def close(self, linger: float = 0.0) -> None:
        if self._closed.is_set() or self._pid != os.getpid():  # a forked child has no business with it
            return
        if linger > 0:
            until = time.monotonic() + linger
            self.flush(linger)
            if self._socket is not None:
                self._socket.finish(until - time.monotonic())
        self._closed.set()
        with self._lock:
            connection, self._socket = self._socket, None
            helper = self._helper
            if connection is not None:
                connection.close()
            self._reader.close()
        if helper is not None:
            helper.join()
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        """`receive` is not called again."""
        wake, self._wake = self._wake, -1  # a signal handler may come in between
        os.close(wake)
        self._epoll.close()
