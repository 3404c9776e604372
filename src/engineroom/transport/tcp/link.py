"""The link across hosts: `tcp://HOST:PORT`, encrypted. The controller may have several addresses.

A link talks only to the controller whose certificate the connection file holds (`certificates.py`), and shows the
certificate of everybody who has the cluster's key.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import time
from collections.abc import Sequence

from ...errors import ConnectionFileError
from ...shared_memory.pool import Pool
from ..connection import Socket
from ..reaching import address_of, attempts
from ..stream_link import StreamLink
from .certificates import link_context
from .sealed_socket import SealedSocket, new_chunks

log = logging.getLogger(__name__)

#: An attempt to connect may take so long. Then, after half a second at most, comes the next.
CONNECT_SECONDS = 1.0
#: … and its handshake: the controller may be busy, and so may many others that connect.
HANDSHAKE_SECONDS = 5.0


class TcpLink(StreamLink):
    """A link through an encrypted connection. It connects in a thread of its own.

    Parameters
    ----------
    urls : sequence of str
        The addresses of the controller, `tcp://HOST:PORT`. The one that was reached last is tried first.
    key : str
        The cluster's key.
    certificate : str
        That of the controller: what else listens at one of the addresses is not talked to.
    takes_host_frames : bool
        Whether the controller may send a `HostFrame` in the place of a large buffer.
    pool : Pool, optional
        Has the pages into which large buffers are received.

    Raises
    ------
    ConnectionFileError
        An address, or the certificate of the controller, is none.
    """

    shares_memory = False

    def __init__(
        self,
        urls: Sequence[str],
        key: str,
        *,
        certificate: str,
        takes_host_frames: bool = False,
        pool: Pool | None = None,
    ) -> None:
        super().__init__()
        self.takes_host_frames, self.pool = takes_host_frames, pool
        try:
            self._addresses = list(dict.fromkeys(map(address_of, urls)))
            self._context = link_context(certificate, key)
        except ValueError as error:  # of which SSLError is no kind, and Python's own are
            self._stop_waiting()
            raise ConnectionFileError(f"the connection file names no controller that can be reached: {error}") from None
        except ssl.SSLError:
            self._stop_waiting()
            raise ConnectionFileError("the connection file holds no certificate of a controller") from None
        #: the address that was reached last
        self._reached: tuple[str, int] | None = None
        #: that of this host in the last connection; "": there was none
        self.own_address = ""
        self._chunks = new_chunks()
        with self._lock:
            self._need_helper()

    def _open(self) -> Socket:
        errors: list[OSError] = []
        with contextlib.closing(attempts(self._addresses, CONNECT_SECONDS, self._closed.is_set)) as tried:
            for attempt in tried:
                address, error = (attempt.host, attempt.port), attempt.error
                if attempt.connection is not None:
                    try:
                        connection = self._shaken(attempt.connection)
                    except OSError as failed:
                        error = failed
                    else:
                        self._note_reached(address)
                        self.own_address = str(connection.socket.getsockname()[0])
                        return connection
                assert error is not None
                if isinstance(error, ssl.SSLError) and self._reached not in (None, address):
                    continue  # another controller listens at an address that was not ours before, either
                errors.append(error)
        # A refusal is certain, and comes again. Other errors may pass.
        refusals = [error for error in errors if isinstance(error, ssl.SSLError)]
        raise next(iter(refusals + errors), TimeoutError("there is no connection"))

    def _shaken(self, new: socket.socket) -> SealedSocket:
        """A connection with the handshake done. Raises OSError."""
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

    def _note_reached(self, address: tuple[str, int]) -> None:
        """Try this address first from now on."""
        if address != self._reached and len(self._addresses) > 1:
            log.info("the controller is reached at %s:%d", *address)
        self._reached = address
        self._addresses.remove(address)
        self._addresses.insert(0, address)

    def _is_refusal(self, error: Exception) -> bool:
        return isinstance(error, ssl.SSLError)  # it refuses our certificate, or we its
