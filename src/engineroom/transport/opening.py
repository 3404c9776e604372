"""Which transport serves an address: `ipc://PATH` on one host, `tcp://HOST:PORT` across hosts.

What TCP needs (`ssl` and more) is imported only then: that takes a while.
"""

from __future__ import annotations

from .._version import __version__
from ..config import ConnectionInfo, is_local, is_of_zeromq
from ..errors import ConnectionFileError, ProtocolError
from ..printable import one_line
from .base import Link, Listener
from .unix_link import UnixLink
from .unix_listener import UnixListener


def new_identity() -> tuple[str, str]:
    """A certificate for a controller that other hosts can reach, and its secret."""
    from .tcp import certificates

    return certificates.new_identity()


def listen(url: str, key: str, *, secret: str = "", max_message_size: int) -> Listener:
    """A listener at `ipc://PATH`, or at `tcp://IP[:PORT]` with the secret of the controller's certificate.

    Raises
    ------
    OSError, ValueError
        It cannot listen there.
    """
    if url.startswith("ipc://"):
        return UnixListener(url, max_message_size=max_message_size)
    from .tcp.listener import TcpListener

    return TcpListener(url, key, secret=secret, max_message_size=max_message_size)


def connect(info: ConnectionInfo, lender: str = "") -> Link:
    """A link to the controller of a connection file.

    Across hosts, large buffers come through the `lender` of this host, if there is one: see `lending`.

    Raises
    ------
    ConnectionFileError
        The file names a socket of another host, a socket in a folder that is not ours alone, or no address at all.
    ProtocolError
        The controller is one of Engineroom 0.1.
    """
    if is_of_zeromq(info):
        raise ProtocolError(
            f"this connection file is of a controller of engineroom {one_line(info.version)}, which speaks ZeroMQ. "
            f"This process has engineroom {__version__}, which does not. Stop that cluster and start it with "
            f"{__version__} (`ipcluster stop`, `ipcluster start`), or use its release here: `pip install "
            f"engineroom=={one_line(info.version)}`"
        )
    if info.url.startswith("ipc://"):
        if info.location and not is_local(info.location):
            raise ConnectionFileError(
                f"the connection file names a Unix socket of the host {info.location}, and this is another host. "
                "Start the controller with --ip='*', so that other hosts can reach it"
            )
        return UnixLink(info.url)
    if not all(url.startswith("tcp://") for url in info.urls):
        raise ConnectionFileError(f"the connection file names no address of a controller: {one_line(info.url)!r}")
    from .tcp.link import TcpLink

    link = TcpLink(info.urls, info.key, certificate=info.certificate, takes_host_frames=bool(lender))
    if not lender:
        return link
    from .lending import BorrowingLink

    return BorrowingLink(link, lender)
