"""Listener and link over ZeroMQ: `ipc://` on one host, `tcp://` with CurveZMQ across hosts.

On one host the socket lies in a folder with mode 0700. Over TCP the link knows the controller's public key,
so everything is encrypted, and the peer knows that it talks to the controller. The peer shows that it may come in by
the key in its Hello, inside the encrypted channel.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import threading
from pathlib import Path
from typing import Any

import zmq

from ..descriptors import require_descriptors
from .base import Frames

#: Messages queued for one peer that reads nothing, before it counts as congested.
SEND_QUEUE = 10_000

# As plain ints: combining zmq's flags anew for every message costs more than sending it.
_NOBLOCK, _SNDMORE, _RCVMORE = int(zmq.NOBLOCK), int(zmq.SNDMORE), int(zmq.RCVMORE)
_NOBLOCK_SNDMORE = _NOBLOCK | _SNDMORE


def curve_keypair() -> tuple[str, str]:
    """A fresh (public, secret) pair for CurveZMQ, in Z85."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def _send(socket: zmq.Socket[bytes], frames: Frames, flags: int) -> None:
    last = len(frames) - 1
    if last == 0:
        socket.send(frames[0], flags)
        return
    socket.send(frames[0], flags | _SNDMORE)
    for frame in frames[1:last]:
        socket.send(frame, flags | _SNDMORE, copy=False)
    socket.send(frames[last], flags, copy=False)


def _rest(socket: zmq.Socket[bytes], *, copy_first: bool = False) -> list[Any]:
    """The frames that follow the one just received: memoryviews of what ZeroMQ received; the header as bytes."""
    frames: list[Any] = []
    while socket.getsockopt(_RCVMORE):
        if copy_first and not frames:
            frames.append(socket.recv(_NOBLOCK))
        else:
            frames.append(socket.recv(_NOBLOCK, copy=False).buffer)
    return frames


class _Patience:
    """The time limit of a socket's blocking receive. It is set only when it changes, because setting costs a call."""

    #: Longer waits are made of pieces of this many milliseconds.
    LONGEST = 500

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._now = -1

    def set(self, seconds: float) -> None:
        wanted = min(self.LONGEST, math.ceil(seconds * 1000))
        if wanted != self._now:
            self._now = wanted
            self._socket.setsockopt(zmq.RCVTIMEO, wanted)


class ZmqListener:
    """A ROUTER socket. `address` is `ipc://PATH` or `tcp://IP[:PORT]` (a free port is taken if none is given)."""

    def __init__(self, address: str, *, curve: tuple[str, str] | None = None, max_message_size: int = -1) -> None:
        self._context = zmq.Context()
        self._path: Path | None = None
        socket = self._context.socket(zmq.ROUTER)
        try:
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
            socket.setsockopt(zmq.SNDHWM, SEND_QUEUE)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.MAXMSGSIZE, max_message_size)
            if address.startswith("tcp://"):
                if curve is None:
                    raise ValueError("a tcp listener needs a key pair")
                socket.setsockopt(zmq.IPV6, int("[" in address))
                socket.curve_server = True
                socket.curve_publickey, socket.curve_secretkey = (k.encode() for k in curve)
                if address.count(":") == 1 or address.endswith("]"):
                    address += ":*"
            else:
                self._path = Path(address.removeprefix("ipc://"))
            socket.bind(address)
            self._url = socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        except BaseException:
            socket.close()
            self._context.term()
            raise
        self._socket = socket
        self._patience = _Patience(socket)
        # The waker is a peer like any other, with a name that nobody can guess.
        self._waker_name = secrets.token_bytes(16).hex().encode()
        socket.bind("inproc://wake")
        self._waker = self._context.socket(zmq.DEALER)
        self._waker.setsockopt(zmq.IDENTITY, self._waker_name)
        self._waker.connect("inproc://wake")
        self._waker_lock = threading.RLock()  # a signal handler may interrupt a wake

    @property
    def url(self) -> str:
        return self._url

    def receive(self, limit: int = 64, timeout: float = 0.0) -> list[tuple[bytes, Frames]]:
        received: list[tuple[bytes, Frames]] = []
        try:
            while len(received) < limit:
                self._take(self._socket.recv(_NOBLOCK), received)
        except zmq.Again:
            pass
        if not received and timeout > 0:
            # Blocking inside ZeroMQ is some 20 µs quicker than polling its descriptor.
            self._patience.set(timeout)
            with contextlib.suppress(zmq.Again):
                self._take(self._socket.recv(), received)
        return received

    def _take(self, peer: bytes, received: list[tuple[bytes, Frames]]) -> None:
        """Take in the rest of a message whose first frame has been received."""
        parts = _rest(self._socket, copy_first=True)
        if parts and peer != self._waker_name:
            received.append((peer, parts))

    def wake(self) -> None:
        with self._waker_lock:
            if not self._waker.closed:
                self._waker.send(b"w", _NOBLOCK)

    def send(self, peer: bytes, frames: Frames) -> bool:
        socket = self._socket
        try:
            socket.send(peer, _NOBLOCK_SNDMORE)
            _send(socket, frames, _NOBLOCK)
        except zmq.Again:  # it reads nothing
            return False
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:  # it is not connected
                return False
            raise
        return True

    def close(self) -> None:
        if not self._socket.closed:
            with self._waker_lock:
                self._waker.close(linger=0)
            self._socket.close(linger=200)
            self._context.term()
            if self._path is not None:
                self._path.unlink(missing_ok=True)


class ZmqLink:
    """A DEALER socket with a name of its own choosing, by which the listener knows it after a reconnection."""

    def __init__(self, url: str, identity: bytes, *, curve_serverkey: str = "") -> None:
        require_descriptors("a connection")
        self._context = zmq.Context()
        socket = self._context.socket(zmq.DEALER)
        self._monitor: zmq.Socket[bytes] | None = None
        self._failures = 0
        try:
            socket.setsockopt(zmq.IDENTITY, identity)
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, 10)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
            if url.startswith("tcp://"):
                socket.setsockopt(zmq.IPV6, 1)
                socket.curve_serverkey = curve_serverkey.encode()
                socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
                self._monitor = socket.get_monitor_socket(
                    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
                    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
                    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
                    | zmq.EVENT_HANDSHAKE_SUCCEEDED
                )
            socket.connect(url)
        except BaseException:
            socket.close(linger=0)
            self._context.term()
            raise
        self._socket = socket
        self._patience = _Patience(socket)
        self._pid = os.getpid()

    def fileno(self) -> int:
        return int(self._socket.getsockopt(zmq.FD))

    def receive(self, limit: int = 64, timeout: float = 0.0) -> list[Frames]:
        socket = self._socket
        received: list[Frames] = []
        try:
            while len(received) < limit:
                received.append([socket.recv(_NOBLOCK), *_rest(socket)])
        except zmq.Again:
            pass
        if not received and timeout > 0:
            self._patience.set(timeout)
            with contextlib.suppress(zmq.Again):
                received.append([socket.recv(), *_rest(socket)])
        return received

    def send(self, frames: Frames) -> None:
        _send(self._socket, frames, 0)

    def refused(self) -> bool:
        if self._monitor is None:
            return False
        from zmq.utils.monitor import recv_monitor_message  # slow to import, and only links over tcp need it

        monitor = self._monitor
        while monitor.poll(0):
            event = recv_monitor_message(monitor)["event"]
            self._failures = 0 if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else self._failures + 1
        return self._failures >= 2

    def close(self, linger: float = 0.0) -> None:
        if self._socket.closed or self._pid != os.getpid():  # a forked child has no business with it
            return
        if self._monitor is not None:
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disable_monitor()
            self._monitor.close(linger=0)
        self._socket.close(linger=int(linger * 1000))
        self._context.term()
