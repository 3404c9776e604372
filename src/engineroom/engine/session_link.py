"""A link to the controller with its session: for engines and nannies.

It sends what the session says, and counts what is sent and received. In an engine it is called with the link's
lock held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ..ids import EngineId
from ..messages import AttemptKey, Message
from ..transport import Link
from ..wire import frames as wire
from ..wire.session import ANY_NUMBER, LinkSession

#: The longest wait for something to arrive.
WAIT_SECONDS = 2.0


class SessionLink:
    """Sends and receives messages."""

    def __init__(
        self, session: LinkSession, link: Link, decode: Callable[[bytes], Any], lends: int | None = None
    ) -> None:
        """`decode`: the decoder of what the controller sends to us. `lends`: a nanny's, see `Hello`."""
        self.session = session
        self._lends = lends
        self._link = link
        self._decode = decode

    def hello(self, wish: EngineId = ANY_NUMBER, held: Sequence[AttemptKey] = (), stored: int = -1) -> None:
        """Begin the session (anew)."""
        lends = int(self._link.takes_host_frames) if self._lends is None else self._lends
        self._link.send([wire.encode(self.session.hello(time.monotonic(), wish, held, lends, stored))])

    def send(self, message: Message, buffers: Sequence[Any] = ()) -> None:
        """Send a message."""
        self.send_frames([wire.encode(message), *buffers])

    def send_frames(self, frames: Sequence[Any]) -> None:
        """Send a message that has been encoded."""
        self.session.count_sent(frames[0])
        self._link.send(frames)

    def lend(self, buffer: Any) -> int:
        """Let other engines of this host have a buffer that is sent next. Returns its number; 0: it is not lent."""
        return self._link.lend(buffer)

    def ping(self) -> None:
        """Give a sign of life, if it is time."""
        now = time.monotonic()
        if now >= self.session.next_ping:
            self.ping_now(now)

    def ping_now(self, now: float) -> None:
        """Give a sign of life, and have the controller confirm what we have sent."""
        self.send(self.session.ping(now, time.time()))

    def receive(self, *, wait: bool, most: float = WAIT_SECONDS) -> list[Sequence[Any]]:
        """The messages that have arrived.

        With `wait`, waits for one, until the next sign of life is due, and for `most` seconds at most. After another
        connection was made, the controller is asked at once whether it missed something, or is another one.
        """
        if not wait:
            arrived = self._link.receive()
        else:
            until = min(self.session.next_ping - time.monotonic(), most)
            arrived = self._link.receive(timeout=max(0.001, until))
        if self._link.take_renewed():
            self.ping_now(time.monotonic())
        return arrived

    def wake(self) -> None:
        """End a `receive` that waits, or the next one. Safe from a signal handler."""
        self._link.wake()

    def read(self, frames: Sequence[Any]) -> Any:
        """The message in one of the results of `receive`: counted and decoded. None: it is not to be believed."""
        self.session.count_received(frames[0], time.monotonic())
        message = self._decode(frames[0])
        return message if self.session.believes(message) else None

    def flush(self, timeout: float) -> None:
        """Wait until what was sent has left this process, for so many seconds at most."""
        self._link.flush(timeout)

    def fileno(self) -> int:
        """A file descriptor that becomes readable when something may have arrived."""
        return self._link.fileno()

    def refused(self) -> bool:
        """Whether the controller has turned down our encryption keys."""
        return self._link.refused()

    def close(self) -> None:
        """Let what was sent go out, for a second at most."""
        self._link.close(linger=1.0)
