"""How frames travel between processes. The only home of sockets."""

from .base import Frames, Link, Listener
from .opening import connect, listen, new_identity

__all__ = ["Frames", "Link", "Listener", "connect", "listen", "new_identity"]
