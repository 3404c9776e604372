"""How frames travel between processes. The only home of sockets and of zmq."""

from .base import Frames, Link, Listener
from .opening import connect, curve_keypair, listen

__all__ = ["Frames", "Link", "Listener", "connect", "curve_keypair", "listen"]
