"""The link across hosts: `tcp://HOST:PORT`, encrypted.

A link talks only to the controller whose certificate the connection file holds (`certificates.py`), and shows the
certificate of everybody who has the cluster's key.
"""

from __future__ import annotations

import select
import socket
import ssl
import time

from ...errors import ConnectionFileError
from ..connection import Socket
from ..stream_link import StreamLink
from .certificates import link_context
from .sealed_socket import SealedSocket, new_chunks

#: An attempt to connect may take so long. Then, after half a second at most, comes the next.
CONNECT_SECONDS = 1.0
#: … and its handshake: the controller may be busy, and so may many others that connect.
HANDSHAKE_SECONDS = 5.0


class TcpLink(StreamLink):
    """A link through an encrypted connection. It connects in a thread of its own.

    Raises
    ------
    ConnectionFileError
        The address, or the certificate of the controller, is none.
    """

    shares_memory = False

    def __init__(self, url: str, key: str, *, certificate: str) -> None:
        super().__init__()
        try:
            self._address = address_of(url)
            self._context = link_context(certificate, key)
        except ValueError as error:  # of which SSLError is no kind, and Python's own are
            self._epoll.close()
            raise ConnectionFileError(f"the connection file names no controller that can be reached: {error}") from None
        except ssl.SSLError:
            self._epoll.close()
            raise ConnectionFileError("the connection file holds no certificate of a controller") from None
        self._chunks = new_chunks()
        with self._lock:
            self._need_helper()

    def _open(self) -> Socket:
        new = socket.create_connection(self._address, CONNECT_SECONDS)
        deadline = time.monotonic() + HANDSHAKE_SECONDS
        connection = SealedSocket(new, self._context, self._chunks, is_listener=False)
        try:
            poll = select.poll()
            poll.register(new, select.POLLIN)
            while not connection.shake():
                poll.poll(100)
                if self._closed.is_set() or time.monotonic() > deadline:
                    raise TimeoutError("the controller has not completed the handshake")
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_refusal(self, error: Exception) -> bool:
        return isinstance(error, ssl.SSLError)  # it refuses our certificate, or we its


def address_of(url: str) -> tuple[str, int]:
    """Host and port of `tcp://HOST:PORT`. The host may be an IPv6 address in brackets.

    Raises
    ------
    ValueError
        It is no such url.
    """
    host, colon, port = url.removeprefix("tcp://").rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{url!r} is no address")
    return host.strip("[]"), int(port)
