"""The engine's link to the controller, with what both ends count on it. All is called with the link's lock held."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .. import _version
from ..config import ConnectionInfo
from ..ids import EngineId, EngineUuid, NannyId
from ..messages import Held, Hello, Message, Ping, Pong
from ..transport import ZmqLink
from ..wire import frames as wire

#: Between signs of life to the controller.
PING_SECONDS = 2.0


class Line:
    """Sends, receives, counts: so that both ends notice what was lost."""

    def __init__(
        self, connection: ConnectionInfo, uuid: EngineUuid, nanny: NannyId, shares: Mapping[str, list[int]]
    ) -> None:
        self._key, self._uuid, self._nanny = connection.key, uuid, nanny
        self._shares = dict(shares)
        self._link = ZmqLink(connection.url, uuid.encode(), curve_serverkey=connection.curve_serverkey)
        #: messages since our Hello, and since the controller's Welcome
        self._sent = self._heard = 0
        self._next_ping = 0.0

    def hello(self, wish: EngineId, held: list[Held]) -> None:
        """Begin (anew): as whom, and with what in hand."""
        self._link.send(
            [
                wire.encode(
                    Hello(
                        _version.PROTOCOL_VERSION,
                        "engine",
                        self._key,
                        self._uuid,
                        os.getpid(),
                        socket.gethostname(),
                        platform.python_version(),
                        self._nanny,
                        wish,
                        held,
                        self._shares,
                    )
                )
            ]
        )
        self._sent, self._heard = 1, 0
        self._next_ping = time.monotonic() + PING_SECONDS

    def welcomed(self) -> None:
        """The controller begins (anew) to count."""
        self._heard = 0

    def send(self, message: Message, buffers: Sequence[Any] = ()) -> None:
        """Send a message."""
        self.send_frames([wire.encode(message), *buffers])

    def send_frames(self, frames: list[Any]) -> None:
        """Send a message that has been encoded."""
        self._sent += 1
        self._link.send(frames)

    def ping(self) -> None:
        """Give a sign of life, if it is time."""
        if time.monotonic() >= self._next_ping:
            self._next_ping = time.monotonic() + PING_SECONDS
            self.send(Ping(self._sent + 1))

    def agrees(self, pong: Pong) -> bool:
        """Whether neither end has missed anything."""
        return pong.known and pong.sent == self._heard

    def receive(self, *, wait: bool) -> list[Sequence[Any]]:
        """What has arrived; with `wait`, something will have, unless it is time for a sign of life."""
        until = max(0.001, min(self._next_ping - time.monotonic(), PING_SECONDS)) if wait else 0.0
        return self._link.receive(timeout=until)

    def read(self, frames: Sequence[Any]) -> Message:
        """The message in what `receive` brought."""
        self._heard += 1
        return wire.decode_to_engine(frames[0])

    def close(self) -> None:
        """Let what was sent go out, for a second at most."""
        self._link.close(linger=1.0)
