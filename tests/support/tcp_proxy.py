"""A TCP proxy that is a bad network. It passes bytes on, and knows nothing of what they mean.

`up` is the direction from who connects to the server behind the proxy, `down` the other one.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable

PIECE = 1 << 16
#: Bytes that wait for a stalled direction, at most: then the proxy reads no more.
MOST_WAITING = 16 << 20


class _Stream:
    """One direction of a connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, way: str, record: bytearray) -> None:
        self.source, self.sink, self.way, self.record = source, sink, way, record
        self.waiting = bytearray()
        self.is_ended = False


class TcpProxy:
    """Listens on a free port of this host, and connects to `port` of this host for each connection."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        #: directions ("up", "down") in which nothing is passed on; the connections stay
        self.stalled: set[str] = set()
        #: pass on one byte at a time
        self.trickles = False
        #: pieces that go up twice before this is 0 again
        self.repeats = 0
        #: all that went up, by connection, in order
        self.recorded: list[bytearray] = []
        #: connections made and cut, bytes passed on, pieces that went twice: that the fault happened
        self.made = self.cuts = self.passed = self.repeated = 0
        self._is_cut = False
        self._streams: list[_Stream] = []
        self._orders: list[Callable[[], None]] = []
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="tcp-proxy")
        self._thread.start()

    def cut(self) -> None:
        """Close all connections, and each new one at once, until `mend`."""
        self._is_cut = True
        self._order(self._drop_all)

    def mend(self) -> None:
        """Be a good network again."""
        self._is_cut, self.trickles, self.repeats = False, False, 0
        self.stalled.clear()

    def has_waiting(self, way: str) -> bool:
        """Whether something waits because this direction is stalled."""
        return any(stream.waiting for stream in list(self._streams) if stream.way == way)

    def close(self) -> None:
        """End everything."""
        self._is_closing = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _order(self, function: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders.append(lambda: (function(), done.set())[0])
        assert done.wait(60)

    # ------------------------------------------------------------------------------------------ in its thread

    def _run(self) -> None:
        with self._listener, selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            self._selector = selector
            while not self._is_closing:
                for key, _ in selector.select(0.002 if any(s.waiting for s in self._streams) else 0.02):
                    if key.data is None:
                        self._accept()
                    else:
                        self._read(key.data)
                for stream in list(self._streams):
                    self._pass_on(stream)
                while self._orders:
                    self._orders.pop(0)()
            self._drop_all()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            here, _ = self._listener.accept()
            if self._is_cut:
                self.cuts += 1
                here.close()
                return
            there = socket.create_connection(("127.0.0.1", self._target))
            self.made += 1
            for end in (here, there):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.recorded.append(bytearray())
            for source, sink, way in ((here, there, "up"), (there, here, "down")):
                stream = _Stream(source, sink, way, self.recorded[-1])
                self._streams.append(stream)
                self._selector.register(source, selectors.EVENT_READ, stream)

    def _read(self, stream: _Stream) -> None:
        if stream.is_ended or len(stream.waiting) > MOST_WAITING:
            return
        try:
            data = stream.source.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            stream.is_ended = True
            self._selector.unregister(stream.source)
            return
        if stream.way == "up":
            stream.record += data
            if self.repeats:
                self.repeats -= 1
                self.repeated += 1
                data += data
        stream.waiting += data

    def _pass_on(self, stream: _Stream) -> None:
        if stream.way in self.stalled:
            return
        while stream.waiting:
            try:
                sent = stream.sink.send(stream.waiting[: 1 if self.trickles else PIECE])
            except BlockingIOError:
                return
            except OSError:
                self._drop(stream)
                return
            self.passed += sent
            del stream.waiting[:sent]
        if stream.is_ended:
            self._drop(stream)

    def _drop(self, stream: _Stream) -> None:
        """A connection ends: both its directions."""
        for other in [s for s in self._streams if stream.source in (s.source, s.sink)]:
            self._streams.remove(other)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(other.source)
        stream.source.close()
        stream.sink.close()

    def _drop_all(self) -> None:
        while self._streams:
            self.cuts += 1
            self._drop(self._streams[0])
