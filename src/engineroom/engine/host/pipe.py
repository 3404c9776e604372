"""The pipe between a nanny and its zygote: messages over a socket pair that keeps their boundaries.

What the messages mean is in `zygote.py`.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

import msgspec


class Pipe:
    """One end of the pipe. `receives`: the types of the messages that come out of it.

    The zygote may wait in `send` until the nanny reads. So the nanny must never wait for the zygote: it uses `put`.
    """

    def __init__(self, end: socket.socket, receives: Any) -> None:
        self._end = end
        self._decode = msgspec.msgpack.Decoder(receives).decode
        #: messages that the kernel has not taken yet
        self._left: deque[bytes] = deque()

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: Any) -> None:
        """Send a message; wait until there is room for it."""
        self._end.send(msgspec.msgpack.encode(message))

    def put(self, message: Any) -> None:
        """Send a message when there is room for it, after those before it; see `flush`. Never waits."""
        self._left.append(msgspec.msgpack.encode(message))
        self.flush()

    def flush(self) -> bool:
        """Send what there is room for. False: some is left."""
        while self._left:
            try:
                self._end.send(self._left[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            self._left.popleft()
        return True

    def receive(self) -> Any:
        """The next message; None when the other end is closed."""
        try:
            data = self._end.recv(1 << 16)
        except ConnectionError:
            return None
        return self._decode(data) if data else None

    def close(self) -> None:
        self._end.close()
