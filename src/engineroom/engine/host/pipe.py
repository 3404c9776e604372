"""The pipe between a nanny and its zygote: messages over a socket pair that keeps their boundaries.

What the messages mean is in `zygote.py`.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

import msgspec

#: Bytes of a message that are sent at once, and what begins each piece: whether more of the message comes.
PIECE = 32 << 10
_MORE, _LAST = b"\1", b"\0"


class Pipe:
    """One end of the pipe. `receives`: the types of the messages that come out of it. A long one comes in pieces.

    The zygote may wait in `send` until the nanny reads. So the nanny must never wait for the zygote: it uses `put`.
    """

    def __init__(self, end: socket.socket, receives: Any) -> None:
        self._end = end
        self._decode = msgspec.msgpack.Decoder(receives).decode
        #: pieces of messages that the kernel has not taken yet
        self._left: deque[bytes] = deque()

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: Any) -> None:
        """Send a message; wait until there is room for it."""
        for piece in _pieces(message):
            self._end.send(piece)

    def put(self, message: Any) -> None:
        """Send a message when there is room for it, after those before it; see `flush`. Never waits."""
        self._left.extend(_pieces(message))
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
        """The next message; None when the other end is closed. The pieces of a message come one after the other."""
        message = b""
        while True:
            try:
                data = self._end.recv(2 * PIECE)
            except ConnectionError:
                return None
            if not data:
                return None
            message += data[1:]
            if data[:1] == _LAST:
                return self._decode(message)

    def close(self) -> None:
        self._end.close()


def _pieces(message: Any) -> list[bytes]:
    data = msgspec.msgpack.encode(message)
    parts = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
    return [*(_MORE + part for part in parts[:-1]), _LAST + parts[-1]]
