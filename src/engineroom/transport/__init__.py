"""How frames travel between processes. The only home of zmq."""

from .base import Frames, Link, Listener
from .zeromq import ZmqLink, ZmqListener, connect, curve_keypair

__all__ = ["Frames", "Link", "Listener", "ZmqLink", "ZmqListener", "connect", "curve_keypair"]
