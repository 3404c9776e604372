"""A TCP connection, encrypted with TLS 1.3: what both ends do with it.

OpenSSL encrypts in memory, and this module moves what it makes through the socket. So nothing here waits, each system
call moves much more than one record of TLS (16 KB), and any thread may receive while another one sends.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any

from ...shared_memory.buffer import SharedBuffer
from ..stream import Reader

#: So much is received, and encrypted, at a time.
CHUNK = 256 << 10
#: What one call of `give` encrypts at most: it takes about a millisecond.
MOST_GIVEN = 1 << 20
#: What a stranger may send until its handshake is complete.
HANDSHAKE_BYTES = 64 << 10
#: A connection without a sign of life is probed after so many seconds, and closed after three more probes.
PROBE_AFTER, PROBE_EVERY, PROBES = 30, 10, 3
#: A connection is given up if nothing that was sent has been acknowledged for so long: the kernel would try ever more
#: seldom, and a host that was cut off would come back up to minutes after the network. On slow networks, too, something
#: is acknowledged meanwhile.
DEAD_SECONDS = 5.0


def new_chunks() -> tuple[memoryview, memoryview]:
    """Memory to receive into, encrypted and decrypted."""
    return memoryview(bytearray(CHUNK)), memoryview(bytearray(CHUNK))


class SealedSocket:
    """One end. The handshake comes first: by `shake` as long as that says False."""

    passes = sees_end = False

    def __init__(
        self,
        connection: socket.socket,
        context: ssl.SSLContext,
        chunks: tuple[memoryview, memoryview],
        *,
        is_listener: bool,
    ) -> None:
        """`chunks`: memory to receive into. Sockets that one thread reads may have the same."""
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("IDLE", PROBE_AFTER), ("INTVL", PROBE_EVERY), ("CNT", PROBES)):
            if hasattr(socket, f"TCP_KEEP{option}"):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{option}"), value)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(DEAD_SECONDS * 1000))
        self.socket = connection
        self._come, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._come, self._leaving, server_side=is_listener)
        #: what OpenSSL has made, and the kernel has not taken
        self._sealed: memoryview = memoryview(b"")
        #: guards the objects of OpenSSL: a link's helper sends while another thread receives
        self._lock = threading.Lock()
        self._chunk, self._plain = chunks
        #: whether something may have come together with the end of the handshake
        self._is_early = True
        self._shaken_bytes = 0
        #: bytes in either direction
        self.moved = 0

    def fileno(self) -> int:
        return self.socket.fileno()

    # ------------------------------------------------------------------------------------------ the handshake

    def shake(self) -> bool:
        """Go on with the handshake as far as possible now; returns whether it is complete.

        Raises
        ------
        OSError
            The other end has shown another certificate, or no handshake, or has gone. `ssl.SSLError` is an OSError.
        """
        with contextlib.suppress(BlockingIOError):
            come = self.socket.recv(HANDSHAKE_BYTES)
            self._shaken_bytes += len(come)
            if not come:
                raise ConnectionResetError(errno.ECONNRESET, "the handshake was not completed")
            self._come.write(come)
        try:
            self._tls.do_handshake()
            is_complete = True
        except ssl.SSLWantReadError:
            is_complete = False
        finally:
            with contextlib.suppress(BlockingIOError):  # an alert says why it fails
                self._flush()
        if not is_complete and self._shaken_bytes > HANDSHAKE_BYTES:  # what comes behind it does not count
            raise ConnectionResetError(errno.ECONNRESET, "the handshake is too long")
        return is_complete

    # ------------------------------------------------------------------------------------------ sending

    @property
    def is_clear(self) -> bool:
        """Whether the kernel has all that was given."""
        return not self._sealed

    def give(self, buffers: Sequence[Any], passed: Sequence[SharedBuffer] = ()) -> int:
        """Send what the kernel takes now, up to a limit. Returns how many bytes were taken.

        Of these some may still be here: until `is_clear`, call this again, at last with no buffers.
        """
        taken = 0
        with self._lock:
            if not self._flush():
                return 0
            for buffer in buffers:
                view = memoryview(buffer)
                view = view if view.format == "B" and view.ndim == 1 else view.cast("B")
                while view:
                    if taken >= MOST_GIVEN:
                        return taken
                    count = self._tls.write(view[:CHUNK])
                    taken += count
                    view = view[count:]
                    if not self._flush():
                        return taken
        return taken

    def _flush(self) -> bool:
        """Give the kernel what OpenSSL has made; returns whether it has taken all."""
        if not self._sealed and self._leaving.pending:
            self._sealed = memoryview(self._leaving.read())
        while self._sealed:
            try:
                count = self.socket.send(self._sealed)
            except BlockingIOError:
                return False
            self.moved += count
            self._sealed = self._sealed[count:]
        return True

    # ------------------------------------------------------------------------------------------ receiving

    def receive(self, reader: Reader) -> tuple[list[list[Any]], int, bool]:
        """Receive what has come: (the messages that are complete, how many bytes, whether there may be more).

        All that has been received is decrypted at once, but for the beginning of a record.

        Raises
        ------
        BlockingIOError
            Nothing has come.
        OSError, BrokenStream, MemoryError
            The connection is of no use any more. Its end is an OSError, too.
        """
        count, has_ended = 0, False
        try:
            count = self.socket.recv_into(self._chunk)
            has_ended = not count
        except BlockingIOError:
            if not self._is_early:
                raise
        self._is_early = False
        self.moved += count
        messages: list[list[Any]] = []
        with self._lock:
            if count:
                self._come.write(self._chunk[:count])
            try:
                while True:
                    room = reader.room
                    target = self._plain if room is None else room
                    read = int(self._tls.read(len(target), target))
                    if not read:
                        has_ended = True
                        break
                    messages += reader.feed(self._plain[:read]) if room is None else reader.filled(read)
            except ssl.SSLWantReadError:
                pass
            if self._leaving.pending:  # OpenSSL answers by itself
                self._flush()
        if has_ended and not messages:
            raise ConnectionResetError(errno.ECONNRESET, "the other end has closed the connection")
        return messages, count, count == CHUNK

    # ------------------------------------------------------------------------------------------ the end

    def is_received(self) -> bool:
        """No buffer is passed through this socket."""
        return True

    def finish(self, seconds: float) -> None:
        """Say that nothing more comes, and wait until the other end has closed: else what is on its way may be lost."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            poll = select.poll()
            poll.register(self.socket, select.POLLIN)
            while (left := deadline - time.monotonic()) > 0 and poll.poll(left * 1000):
                if not self.socket.recv(CHUNK):
                    return

    def close(self) -> None:
        """Close for both ends, also if a forked process has the socket, too."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
