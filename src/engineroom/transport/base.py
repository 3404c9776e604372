"""The seam between the parts and the network.

A *listener* is the controller's end: it hears everybody. A *link* is everybody else's end: it knows only the
controller. Both send and receive messages as lists of frames, the header first; order holds between two ends.
Sending never blocks. Receiving waits for `timeout` seconds at most. A caller that polls `fileno()` instead uses timeout
0: when the descriptor becomes readable, it calls `receive` until nothing comes, and again after every `send`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol

#: [header, *buffers]
Frames = Sequence[Any]

#: Messages queued for one peer that reads nothing, before it counts as congested.
SEND_QUEUE = 10_000
#: … and bytes of them, buffers that it is handed included: then it gets short messages only.
SEND_BYTES = 1 << 30
#: Bytes of a message that a peer gets all the same, so that it hears signs of life and notices what it misses.
SHORT_MESSAGE = 16 << 10
#: Messages that `receive_last` gives at most.
LAST_MESSAGES = 10_000
#: Smaller frames are sent to each process of a host: to get one from another process takes about as long.
HOST_FRAME_FROM = 1 << 20
#: Numbers of buffers that come from engines are random, and have this bit: those of the controller do not reach it.
OF_AN_ENGINE = 1 << 62


class HostFrame(NamedTuple):
    """Stands for a large frame that the receiver gets from another process of its host (`transport.lending`)."""

    number: int
    #: its bytes
    size: int


class Listener(Protocol):
    """The controller's end."""

    @property
    def urls(self) -> Sequence[str]:
        """Where links connect to."""

    def receive(self, limit: int = 64, timeout: float = 0.0) -> list[tuple[bytes, Frames]]:
        """Up to `limit` messages that have arrived: (peer, frames). If there is none, waits for one, or for `wake`."""

    def receive_last(self, peer: bytes) -> list[tuple[bytes, Frames]]:
        """What a peer has sent and nobody has received; its process has ended. It may be cut short if it is much."""

    def closed(self) -> Collection[bytes]:
        """The latest peers that have closed their connections and have not connected again."""

    def wake(self) -> None:
        """End a `receive` that waits. Safe from any thread and from a signal handler."""

    def admit(self, peer: bytes) -> None:
        """The peer has proved that it has the key. Before that it may send little, and not take long."""

    def send(self, peer: bytes, frames: Frames) -> bool:
        """Send to a peer. False: the peer is gone or its queue is full; the message is dropped."""

    def close(self) -> None:
        """Close. May be called twice."""


class Link(Protocol):
    """The end of a client, an engine or a nanny."""

    #: whether a `SharedBuffer` is handed over as it is; else its content is sent
    shares_memory: bool

    @property
    def takes_host_frames(self) -> bool:
        """Whether the controller may send a `HostFrame` in the place of a large buffer."""

    def fileno(self) -> int:
        """A file descriptor that becomes readable when something may have arrived."""

    def receive(self, limit: int = 64, timeout: float = 0.0) -> list[Frames]:
        """Up to `limit` messages that have arrived. If there is none, waits for one, or for `wake`."""

    def wake(self) -> None:
        """End a `receive` that waits, or the next one. Safe from a signal handler."""

    def send(self, frames: Frames) -> None:
        """Send to the controller, now or when it can be reached."""

    def lend(self, buffer: Any) -> int:
        """Let other processes of this host have a buffer that is sent next. Returns its number; 0: it is not lent."""

    def flush(self, timeout: float) -> bool:
        """Wait until everything sent has left this process, for `timeout` seconds at most. Returns whether it has."""

    def refused(self) -> bool:
        """Whether the other end has turned down our encryption keys."""

    def take_renewed(self) -> bool:
        """Whether the connection was lost and made anew since the last call. `receive` does not wait longer then."""

    def close(self, linger: float = 0.0) -> None:
        """Close, after at most `linger` seconds for what has not left yet. May be called twice."""
