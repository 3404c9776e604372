"""Which transport serves an address: `ipc://PATH` on one host, `tcp://HOST:PORT` across hosts.

ZeroMQ is imported only for TCP: that takes a while.
"""

from __future__ import annotations

from ..config import ConnectionInfo, is_local
from ..errors import ConnectionFileError
from ..printable import one_line
from .base import Link, Listener
from .unix_link import UnixLink
from .unix_listener import UnixListener


def curve_keypair() -> tuple[str, str]:
    """A fresh (public, secret) pair for CurveZMQ, in Z85."""
    from . import zeromq

    return zeromq.curve_keypair()


def listen(url: str, key: str, *, curve: tuple[str, str] | None = None, max_message_size: int) -> Listener:
    """A listener at `ipc://PATH`, or at `tcp://IP[:PORT]` with the controller's key pair.

    Raises
    ------
    OSError, ValueError
        It cannot listen there.
    """
    if url.startswith("ipc://"):
        return UnixListener(url, max_message_size=max_message_size)
    from .zeromq import ZmqListener

    return ZmqListener(url, key, curve=curve, max_message_size=max_message_size)


def connect(info: ConnectionInfo) -> Link:
    """A link to the controller of a connection file.

    Raises
    ------
    ConnectionFileError
        The file names a socket of another host, a socket in a folder that is not ours alone, or no address at all.
    """
    if info.url.startswith("ipc://"):
        if info.location and not is_local(info.location):
            raise ConnectionFileError(
                f"the connection file names a Unix socket of the host {info.location}, and this is another host. "
                "Start the controller with --ip='*', so that other hosts can reach it"
            )
        return UnixLink(info.url)
    if not info.url.startswith("tcp://"):
        raise ConnectionFileError(f"the connection file names no address of a controller: {one_line(info.url)!r}")
    from .zeromq import ZmqLink

    return ZmqLink(info.url, info.key, curve_serverkey=info.curve_serverkey)
