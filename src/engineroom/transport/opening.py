"""Which transport serves an address: `ipc://PATH` on one host, `tcp://HOST:PORT` across hosts.

A controller that other hosts can reach has one of each.

What TCP needs (`ssl` and more) is imported only then: that takes a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress

from .._version import __version__
from ..config import ConnectionInfo, is_local, is_of_zeromq
from ..errors import ConnectionFileError, ProtocolError
from ..printable import one_line
from ..shared_memory.pool import Pool
from .base import Link, Listener
from .connection import Entrance
from .stream_listener import StreamListener
from .unix_entrance import UnixEntrance
from .unix_link import UnixLink


def new_identity() -> tuple[str, str]:
    """A certificate for a controller that other hosts can reach, and its secret."""
    from .tcp import certificates

    return certificates.new_identity()


def listen(urls: Sequence[str], key: str, *, secret: str = "", max_message_size: int) -> Listener:
    """A listener at each of these: `ipc://PATH`, or `tcp://IP[:PORT]` with the secret of the controller's certificate.

    Raises
    ------
    OSError, ValueError
        It cannot listen there.
    """
    with ExitStack() as opened:
        entrances = [opened.enter_context(closing(_entrance(url, key, secret))) for url in urls]
        listener = StreamListener(entrances, max_message_size=max_message_size)
        opened.pop_all()
        return listener


def _entrance(url: str, key: str, secret: str) -> Entrance:
    if url.startswith("ipc://"):
        return UnixEntrance(url)
    from .tcp.entrance import TcpEntrance

    return TcpEntrance(url, key, secret=secret)


def is_by_socket(info: ConnectionInfo) -> bool:
    """Whether this process reaches the controller through its Unix socket: it has no other, or is on this host."""
    if info.url.startswith("ipc://"):
        return True
    path = info.socket
    with suppress(OSError):  # a path that no file can have
        return path is not None and is_local(info.location) and path.is_socket()
    return False


def urls_from_here(info: ConnectionInfo) -> Sequence[str]:
    """The addresses that this process tries, in order."""
    return [f"ipc://{info.socket}"] if is_by_socket(info) else info.urls


def connect(info: ConnectionInfo, lender: str = "", pool: Pool | None = None) -> Link:
    """A link to the controller of a connection file.

    Across hosts, large buffers come through the `lender` of this host, if there is one: see `lending`. Who makes them
    shared buffers has them received into the pages of a `pool`.

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
    if is_by_socket(info):
        if info.location and not is_local(info.location):
            raise ConnectionFileError(
                f"the connection file names a Unix socket of the host {info.location}, and this is another host. "
                "Start the controller with --ip='*', so that other hosts can reach it"
            )
        return UnixLink(f"ipc://{info.socket}")
    if not all(url.startswith("tcp://") for url in info.urls):
        raise ConnectionFileError(f"the connection file names no address of a controller: {one_line(info.url)!r}")
    from .tcp.link import TcpLink

    link = TcpLink(info.urls, info.key, certificate=info.certificate, takes_host_frames=bool(lender), pool=pool)
    if not lender:
        return link
    from .lending import BorrowingLink

    return BorrowingLink(link, lender)
