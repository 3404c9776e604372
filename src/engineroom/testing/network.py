"""A transport in memory: `transport.base`'s Listener and Link, with faults on demand.

Both ends may live in one thread or in several. What is sent arrives at once and in order. `cut` breaks a link:
what is on its way to it and what is sent to it is lost; what it sends itself waits, as with ZeroMQ, for `mend`.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from typing import Generic, TypeVar

from ..transport import Frames

T = TypeVar("T")


class _Mailbox(Generic[T]):
    """A queue with a file descriptor that is readable while there may be something in it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may wake us while we hold it
        self._items: deque[T] = deque()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def put(self, item: T) -> None:
        with self._lock:
            if self.is_open:
                self._items.append(item)
                os.eventfd_write(self._fd, 1)

    def take(self, limit: int, timeout: float) -> list[T]:
        if timeout > 0 and not self._items and self.is_open:
            select.select([self._fd], [], [], timeout)
        with self._lock:
            taken = [self._items.popleft() for _ in range(min(limit, len(self._items)))]
            if not self._items and self.is_open:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._fd)
            return taken

    def wake(self) -> None:
        with self._lock:
            if self.is_open:
                os.eventfd_write(self._fd, 1)

    def close(self) -> None:
        with self._lock:
            self._items.clear()
            if self.is_open:
                os.close(self._fd)
                self._fd = -1


class MemoryNetwork:
    """One listener and any number of links.

    >>> network = MemoryNetwork()
    >>> link = network.link(b"me")
    >>> link.send([b"hello"])
    >>> network.listener.receive()
    [(b'me', [b'hello'])]
    """

    def __init__(self) -> None:
        self.links: dict[bytes, MemoryLink] = {}
        self.listener = MemoryListener(self)

    def link(self, identity: bytes) -> MemoryLink:
        """A new link. An older one of this name hears nothing more."""
        link = self.links[identity] = MemoryLink(self, identity)
        return link

    def cut(self, identity: bytes) -> None:
        """Break the link of this name."""
        link = self.links[identity]
        link.is_cut = True
        link.receive(1 << 30)

    def mend(self, identity: bytes) -> None:
        """Make the link of this name whole; what it has sent meanwhile arrives."""
        link = self.links[identity]
        link.is_cut = False
        while link.unsent:
            self.listener.inbox.put((identity, link.unsent.popleft()))


class MemoryListener:
    """The controller's end of a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self.inbox: _Mailbox[tuple[bytes, Frames]] = _Mailbox()

    @property
    def url(self) -> str:
        return "memory://"

    def fileno(self) -> int:
        return self.inbox.fileno()

    def receive(self, limit: int = 64, timeout: float = 0.0) -> list[tuple[bytes, Frames]]:
        return self.inbox.take(limit, timeout)

    def wake(self) -> None:
        self.inbox.wake()

    def send(self, peer: bytes, frames: Frames) -> bool:
        link = self._network.links.get(peer)
        if link is None or link.is_cut or not link.inbox.is_open:
            return False
        link.inbox.put(frames)
        return True

    def close(self) -> None:
        self.inbox.close()


class MemoryLink:
    """The other end of a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, identity: bytes) -> None:
        self._network, self._identity = network, identity
        self.inbox: _Mailbox[Frames] = _Mailbox()
        self.is_cut = False
        self.unsent: deque[Frames] = deque()

    def fileno(self) -> int:
        return self.inbox.fileno()

    def receive(self, limit: int = 64, timeout: float = 0.0) -> list[Frames]:
        return self.inbox.take(limit, timeout)

    def send(self, frames: Frames) -> None:
        if self.is_cut:
            self.unsent.append(frames)
        else:
            self._network.listener.inbox.put((self._identity, frames))

    def refused(self) -> bool:
        return False

    def close(self, linger: float = 0.0) -> None:
        self.inbox.close()
