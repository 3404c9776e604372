"""The listener: the controller's end of many connections, which have come through one entrance or several.

The listener knows a link by the random name in its greeting (`stream.py`), also after a reconnection. A connection
that lives keeps its name. Before a peer is admitted it may send little, and has little time. What the kernel does not
take at once waits in a queue, and is sent by `receive`. Peers are heard in turn: one that sends without end keeps no
other waiting.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence

from ..descriptors import require_descriptors
from .base import LAST_MESSAGES, SEND_BYTES, SEND_QUEUE, SHORT_MESSAGE, Frames
from .connection import Entrance, Often, Socket, TooManyPassed, give_unsent
from .stream import FEWER_DESCRIPTORS, MOST_DESCRIPTORS, BrokenStream, Reader, Unsent, pack
from .unix_socket import CHUNK

log = logging.getLogger(__name__)

#: How long a connection may take until it is admitted.
STRANGER_SECONDS = 10.0
#: So many connections may wait to be admitted. Then the oldest makes room for the next, once it has had so long.
MOST_STRANGERS, STRANGER_LEAST_SECONDS = 256, 0.5
#: After an error no connection is accepted for so long.
ACCEPT_PAUSE_SECONDS = 0.2
#: Messages of one peer that are handed over in its turn, and bytes in their headers: a long one takes long to handle.
TURN, TURN_HEADERS = 16, 64 << 10
#: Bytes in the headers that one call of `receive` hands over, for each message that it may.
HEADER_BYTES = 4 << 10
#: Bytes of one connection that are received in its turn: all that the kernel holds of it, as a rule.
TURN_BYTES = 4 * CHUNK
#: Peers whose connections were lost that are remembered.
MOST_REMEMBERED = 1000
#: How long the listener goes on sending when it closes.
CLOSE_SECONDS = 0.2

_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT


class _Connection:
    """One connection of the listener."""

    __slots__ = ("has_passed", "is_broken", "most_passed", "passed_bytes", "reader", "since", "socket", "unsent")

    def __init__(self, accepted: Socket, most_bytes: int, now: float) -> None:
        self.socket = accepted
        self.reader = Reader(most_bytes, greets=True, is_admitted=False)
        self.unsent = Unsent()
        self.since = now
        #: how many file descriptors one message may bring, and whether one has
        self.most_passed, self.has_passed = MOST_DESCRIPTORS if accepted.passes else 0, False
        #: bytes of the buffers that were passed since the other end had received everything
        self.passed_bytes = 0
        #: whether nothing can be sent any more; what has come may still be received
        self.is_broken = False

    def unread(self) -> int:
        """About how many bytes are in memory because the other end has not received them."""
        if self.passed_bytes >= SEND_BYTES and not self.unsent and self.socket.is_received():
            self.passed_bytes = 0
        return self.unsent.bytes + self.passed_bytes


class StreamListener:
    """The controller's end.

    Parameters
    ----------
    entrances : sequence of Entrance
        Where links connect to. The listener closes them when it is closed.
    max_message_size : int
        Bytes in one message. A connection that brings a longer one is closed.
    """

    def __init__(self, entrances: Sequence[Entrance], *, max_message_size: int = 1 << 62) -> None:
        require_descriptors("a listener")
        self._most_bytes = max_message_size
        self._entrances = {entrance.fileno(): entrance for entrance in entrances}
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake_lock = threading.RLock()  # a signal handler may interrupt a wake
        self._epoll.register(self._wake, _READ)
        for descriptor in self._entrances:
            self._epoll.register(descriptor, _READ)
        self._is_accepting = True
        self._pause_until = 0.0
        #: by file descriptor; those that are not admitted, the oldest first; and by name
        self._connections: dict[int, _Connection] = {}
        self._strangers: dict[int, _Connection] = {}
        self._peers: dict[bytes, _Connection] = {}
        #: of peers whose connections were lost: how many file descriptors one message may bring; the latest
        self._fewer_passed: dict[bytes, int] = {}
        #: peers that have closed their connections, and have not connected again; the latest
        self._closed: dict[bytes, None] = {}
        #: what has come, by the peer's name; whose turn it is comes first. No queue is empty.
        self._arrived: dict[bytes, deque[Frames]] = {}
        self._refusals, self._breaks, self._failures = Often(), Often(), Often()

    @property
    def urls(self) -> Sequence[str]:
        return [entrance.url for entrance in self._entrances.values()]

    def fileno(self) -> int:
        """A file descriptor that is readable when `receive` has something to do."""
        return self._epoll.fileno()

    def receive(self, limit: int = 64, timeout: float = 0.0) -> list[tuple[bytes, Frames]]:
        arrived = self._arrived
        self._receive(limit, 0.0 if arrived else timeout)
        taken: list[tuple[bytes, Frames]] = []
        size, most = 0, limit * HEADER_BYTES
        while arrived and len(taken) < limit and size < most:
            name = next(iter(arrived))
            queue = arrived.pop(name)
            until = size + TURN_HEADERS
            for _ in range(min(len(queue), TURN, limit - len(taken))):
                frames = queue.popleft()
                taken.append((name, frames))
                size += len(frames[0])
                if size >= until:
                    break
            if queue:
                arrived[name] = queue
        return taken

    def receive_last(self, peer: bytes) -> list[tuple[bytes, Frames]]:
        connection = self._peers.get(peer)
        if connection is not None:
            self._read(connection.socket.fileno(), connection, LAST_MESSAGES)
        queue = self._arrived.pop(peer, None) or deque()
        taken = [(peer, queue.popleft()) for _ in range(min(LAST_MESSAGES, len(queue)))]
        if queue:
            self._arrived[peer] = queue
        return taken

    def _receive(self, limit: int, timeout: float) -> None:
        """Take in what has come. If nothing has, waits, until a message is complete or `wake` is called."""
        until = None
        while True:
            was_woken = False
            if self._strangers or not self._is_accepting:
                self._look_after_strangers()
                timeout = min(timeout, STRANGER_LEAST_SECONDS)
            for descriptor, event in (events := self._epoll.poll(timeout)):
                connection = self._connections.get(descriptor)
                if connection is not None:
                    if event & ~_WRITE:
                        self._read(descriptor, connection, limit)
                    if event & _WRITE:
                        self._write(descriptor, connection)
                elif descriptor == self._wake:
                    was_woken = True
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(descriptor)
                elif (entrance := self._entrances.get(descriptor)) is not None:
                    self._accept(entrance)
            if self._arrived or was_woken or timeout <= 0.0 or not events:
                return
            now = time.monotonic()  # a part of a message has come, or a connection
            until = now + timeout if until is None else until
            timeout = max(0.0, until - now)

    def _read(self, descriptor: int, connection: _Connection, limit: int) -> None:
        """Take in what has come through a connection, unless so many messages of it wait."""
        reader, arrived = connection.reader, self._arrived
        left = TURN_BYTES
        try:
            while left > 0 and len(arrived.get(reader.name, ())) < limit:
                messages, count, is_full = connection.socket.receive(reader)
                if reader.name:
                    name = reader.name
                    if self._peers.get(name) is not connection and not self._is_named(name, connection):
                        raise BrokenStream("it has the name of another connection")
                    if messages:
                        arrived.setdefault(name, deque()).extend(messages)
                if not is_full:
                    return
                left -= count
        except BlockingIOError:
            return
        except BrokenStream as error:
            if self._breaks.may_log():
                log.warning("a connection is closed because of what came through it: %s", error)
            self._drop(descriptor)
        except MemoryError:
            log.error("a connection is closed: there is no memory for a message that came through it")
            self._drop(descriptor)
        except OSError as error:
            if error.errno == errno.ECONNRESET and self._peers.get(reader.name) is connection:
                self._note_closed(reader.name)
            self._drop(descriptor)

    def _note_closed(self, name: bytes) -> None:
        """The other end has closed its connection: it has ended, or connects again soon."""
        self._closed[name] = None
        if len(self._closed) > MOST_REMEMBERED:
            del self._closed[next(iter(self._closed))]

    def closed(self) -> Collection[bytes]:
        return self._closed.keys()

    def _is_named(self, name: bytes, connection: _Connection) -> bool:
        """Give a connection its name, unless a connection that lives has it."""
        before = self._peers.get(name)
        if before is not None:  # that of a link that connects again has ended: we may not have seen that
            self._read(before.socket.fileno(), before, 1 << 62)
            if self._peers.get(name) is before:
                if before.socket.sees_end:  # only the link knows its name
                    return False
                self._drop(before.socket.fileno())
        self._peers[name] = connection
        self._closed.pop(name, None)
        connection.most_passed = min(connection.most_passed, self._fewer_passed.get(name, MOST_DESCRIPTORS))
        return True

    def _write(self, descriptor: int, connection: _Connection) -> None:
        try:
            give_unsent(connection.socket, connection.unsent)
        except (OSError, MemoryError):
            self._break(connection)
        if not connection.unsent and connection.socket.is_clear and descriptor in self._connections:
            self._epoll.modify(descriptor, _READ)

    def _break(self, connection: _Connection) -> None:
        """Nothing can be sent any more. What the other end has sent before is received first, then its end."""
        connection.is_broken = True
        connection.unsent.clear()

    def _drop(self, descriptor: int) -> None:
        connection = self._connections.pop(descriptor)
        self._strangers.pop(descriptor, None)
        name = connection.reader.name
        if self._peers.get(name) is connection:
            del self._peers[name]
            if connection.has_passed:
                self._fewer_passed[name] = connection.most_passed // FEWER_DESCRIPTORS
                if len(self._fewer_passed) > MOST_REMEMBERED:
                    del self._fewer_passed[next(iter(self._fewer_passed))]
        self._epoll.unregister(descriptor)
        connection.socket.close()
        connection.reader.close()

    # ------------------------------------------------------------------------------------------ strangers

    def _accept(self, entrance: Entrance) -> None:
        """Accept connections, as long as there is room for strangers."""
        while len(self._strangers) < MOST_STRANGERS:
            try:
                entered = entrance.enter()
            except OSError as error:
                if self._failures.may_log():
                    log.error("no connection can be accepted: %s", error)
                self._pause_until = time.monotonic() + ACCEPT_PAUSE_SECONDS
                break
            if entered is None:
                return
            descriptor = entered.fileno()
            connection = _Connection(entered, self._most_bytes, time.monotonic())
            self._connections[descriptor] = self._strangers[descriptor] = connection
            self._epoll.register(descriptor, _READ)
            self._read(descriptor, connection, TURN)  # something may have come with it
        self._is_accepting = False
        for each in self._entrances:
            self._epoll.modify(each, 0)

    def _look_after_strangers(self) -> None:
        """Close connections that take too long to be admitted; accept others when there is room again."""
        now, strangers = time.monotonic(), self._strangers
        while strangers:
            descriptor, oldest = next(iter(strangers.items()))
            wanted = not self._is_accepting and len(strangers) >= MOST_STRANGERS
            if now - oldest.since < (STRANGER_LEAST_SECONDS if wanted else STRANGER_SECONDS):
                break
            self._drop(descriptor)
        if not self._is_accepting and len(strangers) < MOST_STRANGERS and now >= self._pause_until:
            self._is_accepting = True
            for each in self._entrances:
                self._epoll.modify(each, _READ)

    def admit(self, peer: bytes) -> None:
        connection = self._peers.get(peer)
        if connection is not None:
            connection.reader.admit()
            self._strangers.pop(connection.socket.fileno(), None)

    # ------------------------------------------------------------------------------------------ sending

    def wake(self) -> None:
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def send(self, peer: bytes, frames: Frames) -> bool:
        connection = self._peers.get(peer)
        if connection is None or connection.is_broken or connection.unsent.messages >= SEND_QUEUE:
            return False
        buffers, size, passed = pack(frames, connection.most_passed)
        if (passed or size > SHORT_MESSAGE) and connection.unread() >= SEND_BYTES:
            return False
        if passed:
            connection.has_passed = True
            connection.passed_bytes += sum(map(len, passed))
        count = 0
        if not connection.unsent and connection.socket.is_clear:
            try:
                count = connection.socket.give(buffers, passed)
            except TooManyPassed:
                pass  # it waits, and then `give_unsent` sends the content
            except OSError:
                self._break(connection)
                return False
            if count == size and connection.socket.is_clear:
                return True
            self._epoll.modify(connection.socket, _READ | _WRITE)
        if count < size:
            connection.unsent.add(buffers, count, passed)
        return True

    def close(self) -> None:
        if self._wake < 0:
            return
        with self._wake_lock:
            wake, self._wake = self._wake, -1
            os.close(wake)
        for entrance in self._entrances.values():
            entrance.close()
        self._epoll.close()
        self._send_rest()
        for connection in self._connections.values():
            connection.socket.close()
            connection.reader.close()
        self._connections.clear()
        self._peers.clear()

    def _send_rest(self) -> None:
        """Send what waits in queues, for a moment."""
        deadline = time.monotonic() + CLOSE_SECONDS
        poll = select.poll()
        waiting = {c.socket.fileno(): c for c in self._connections.values() if c.unsent or not c.socket.is_clear}
        for descriptor in waiting:
            poll.register(descriptor, select.POLLOUT)
        while waiting and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                connection = waiting[descriptor]
                try:
                    give_unsent(connection.socket, connection.unsent)
                except (OSError, MemoryError):
                    connection.unsent.clear()
                if not connection.unsent and connection.socket.is_clear:
                    poll.unregister(descriptor)
                    del waiting[descriptor]
