"""Transports in memory: `transport.base`'s Listener and Link, with faults on demand; and a listener in virtual time.

Both ends may live in one thread or in several. What is sent arrives at once and in order. `cut` breaks a link:
what is on its way to it and what is sent to it is lost; what it sends itself waits for `mend`.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, TypeVar

from ..transport import Frames
from .clock import VirtualClock

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
        #: peers of which a test says that they have closed their connections
        self.gone: set[bytes] = set()

    @property
    def urls(self) -> Sequence[str]:
        return ["memory://"]

    def fileno(self) -> int:
        return self.inbox.fileno()

    def receive(self, limit: int = 64, timeout: float = 0.0) -> list[tuple[bytes, Frames]]:
        return self.inbox.take(limit, timeout)

    def receive_last(self, peer: bytes) -> list[tuple[bytes, Frames]]:
        """The messages of others come, too."""
        return self.receive(1 << 20)

    def closed(self) -> Collection[bytes]:
        return self.gone

    def wake(self) -> None:
        self.inbox.wake()

    def admit(self, peer: bytes) -> None:
        """Nothing changes: strangers have no limits here."""

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

    shares_memory = takes_host_frames = False

    def __init__(self, network: MemoryNetwork, identity: bytes) -> None:
        self._network, self._identity = network, identity
        self.inbox: _Mailbox[Frames] = _Mailbox()
        self.is_cut = False
        self.unsent: deque[Frames] = deque()

    def fileno(self) -> int:
        return self.inbox.fileno()

    def receive(self, limit: int = 64, timeout: float = 0.0) -> list[Frames]:
        return self.inbox.take(limit, timeout)

    def wake(self) -> None:
        self.inbox.wake()

    def send(self, frames: Frames) -> None:
        if self.is_cut:
            self.unsent.append(frames)
        else:
            self._network.listener.inbox.put((self._identity, frames))

    def lend(self, buffer: Any) -> int:
        return 0

    def flush(self, timeout: float) -> bool:
        return True

    def refused(self) -> bool:
        return False

    def take_renewed(self) -> bool:
        return False

    def close(self, linger: float = 0.0) -> None:
        self.inbox.close()


# ---------------------------------------------------------------------------------------------- in virtual time


class VirtualNetwork:
    """A listener in virtual time, and the ways to it.

    `arrived` is called when the listener has something to receive, `wake_up` when it is woken. A fault that is set
    as `fault` is called before each message is sent to a peer, with its address; it may raise.
    """

    def __init__(self, clock: VirtualClock, arrived: Callable[[], None], wake_up: Callable[[], None]) -> None:
        self.clock, self._arrived, self._wake_up = clock, arrived, wake_up
        self._ways: dict[bytes, Way] = {}
        self._inbox: deque[tuple[bytes, Frames]] = deque()
        self.fault: Callable[[bytes], None] | None = None

    def way(self, address: bytes, hear: Callable[[Frames], None], delay: Callable[[], float] | None = None) -> Way:
        """A new peer: `hear` is called with what is sent to it. `delay` tells the seconds a message takes; None: 0."""
        way = self._ways[address] = Way(self, address, hear, delay)
        return way

    def arrive(self, address: bytes, frames: Frames, *, now: bool) -> None:
        """A message has come; `now`: this is called by the clock."""
        self._inbox.append((address, frames))
        (self._arrived if now else self._wake_up)()

    def forget_arrived(self) -> None:
        """What has come and was not received is lost."""
        self._inbox.clear()

    # the listener

    @property
    def urls(self) -> Sequence[str]:
        return ["virtual://"]

    def receive(self, limit: int = 64, timeout: float = 0.0) -> list[tuple[bytes, Frames]]:
        return [self._inbox.popleft() for _ in range(min(limit, len(self._inbox)))]

    def receive_last(self, peer: bytes) -> list[tuple[bytes, Frames]]:
        """The messages of others come, too."""
        return self.receive(len(self._inbox))

    def closed(self) -> Collection[bytes]:
        return ()

    def wake(self) -> None:
        self._wake_up()

    def admit(self, peer: bytes) -> None:
        """Nothing changes: strangers have no limits here."""

    def send(self, peer: bytes, frames: Frames) -> bool:
        if self.fault is not None:
            self.fault(peer)
        way = self._ways.get(peer)
        if way is None or not way.is_open:
            return False
        way.deliver(frames)
        return True

    def close(self) -> None:
        self._inbox.clear()


class Way:
    """The way between one peer and the listener. Messages keep their order, both ways."""

    def __init__(
        self,
        network: VirtualNetwork,
        address: bytes,
        hear: Callable[[Frames], None],
        delay: Callable[[], float] | None,
    ) -> None:
        self._network, self.address, self._hear, self._delay = network, address, hear, delay
        self._cuts = 0
        self._up = self._down = 0.0  # when the latest message arrives
        self.is_open = True

    def send(self, frames: Frames) -> None:
        """Send to the listener."""
        if self._delay is None:
            self._network.arrive(self.address, frames, now=False)
            return
        cuts, clock = self._cuts, self._network.clock
        self._up = max(self._up, clock() + self._delay())
        clock.at(self._up, lambda: self._network.arrive(self.address, frames, now=True) if self._cuts == cuts else None)

    def deliver(self, frames: Frames) -> None:
        """The listener sends to the peer."""
        if self._delay is None:
            self._hear(frames)
            return
        cuts, clock = self._cuts, self._network.clock
        self._down = max(self._down, clock() + self._delay())
        clock.at(self._down, lambda: self._hear(frames) if self.is_open and self._cuts == cuts else None)

    def cut(self) -> None:
        """What is on its way, both ways, is lost."""
        self._cuts += 1

    def close(self) -> None:
        """The peer hears nothing any more; what it has sent arrives."""
        self.is_open = False
