"""Listener and link across hosts: `tcp://`, over ZeroMQ, encrypted with CurveZMQ.

The link knows the controller's public key, so nobody else can answer it. All links
of a cluster use one key pair, which is derived from the cluster's key; the listener refuses every other one before it
takes in a single message.

A link has a random name. The listener knows it by this name, also after a reconnection. Nobody else knows the name.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import secrets
import threading
from typing import Any

import zmq
from zmq.utils import z85

from ..descriptors import require_descriptors
from ..shared_memory.buffer import SharedBuffer
from .base import LAST_MESSAGES, SEND_QUEUE, Frames

# As plain ints: combining zmq's flags anew for every message costs more than sending it.
_NOBLOCK, _SNDMORE, _RCVMORE = int(zmq.NOBLOCK), int(zmq.SNDMORE), int(zmq.RCVMORE)
_NOBLOCK_SNDMORE = _NOBLOCK | _SNDMORE


#: A connection that has not shown within so many seconds that it has the cluster's keys is closed. Each takes a
#: descriptor meanwhile, and anybody on the network can make them.
HANDSHAKE_SECONDS = 5.0


def curve_keypair() -> tuple[str, str]:
    """A fresh (public, secret) pair for CurveZMQ, in Z85."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def _peers_keypair(key: str) -> tuple[bytes, bytes]:
    """The (public, secret) pair for CurveZMQ of everybody who has the cluster's key, in Z85."""
    secret = z85.encode(hashlib.sha256(b"engineroom: the key pair of links\0" + key.encode()).digest())
    return zmq.curve_public(secret), secret


def _send(socket: zmq.Socket[bytes], frames: Frames, flags: int) -> None:
    last = len(frames) - 1
    if last == 0:
        socket.send(frames[0], flags)
        return
    socket.send(frames[0], flags | _SNDMORE)
    for frame in frames[1:last]:
        socket.send(_content(frame), flags | _SNDMORE, copy=False)
    socket.send(_content(frames[last]), flags, copy=False)


def _content(frame: Any) -> Any:
    """What is sent of a frame. Reading a mapped file that has been shortened would end this process."""
    return frame.read_all() if isinstance(frame, SharedBuffer) else frame


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


class _Gate:
    """Lets peers with one key pair in, and no others: a thread that answers ZeroMQ's ZAP requests (its RFC 27)."""

    ADDRESS = "inproc://zeromq.zap.01"

    def __init__(self, context: zmq.Context[Any], public: bytes) -> None:
        self._context, self._public = context, z85.decode(public)
        self._socket = context.socket(zmq.REP)
        self._socket.bind(self.ADDRESS)
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._socket as socket:
            while len(request := socket.recv_multipart()) > 1:
                version, number, *rest = request
                is_known = rest[3:] == [b"CURVE", self._public]
                status, text = (b"200", b"OK") if is_known else (b"400", b"no peer of this cluster")
                socket.send_multipart([version, number, status, text, b"", b""])

    def close(self) -> None:
        """End the thread."""
        with self._context.socket(zmq.REQ) as socket:
            socket.connect(self.ADDRESS)
            socket.send(b"")
            self._thread.join()
            socket.close(linger=0)


class ZmqListener:
    """A ROUTER socket.

    Parameters
    ----------
    address : str
        `tcp://IP[:PORT]`. A free port is taken if none is given.
    key : str
        The cluster's key: only links that have it can connect.
    curve : (str, str)
        The controller's key pair.
    max_message_size : int
        Bytes in one frame; -1: any number.
    """

    def __init__(
        self, address: str, key: str, *, curve: tuple[str, str] | None, max_message_size: int = -1
    ) -> None:
        self._context = zmq.Context()
        self._gate: _Gate | None = None
        socket = self._context.socket(zmq.ROUTER)
        try:
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
            socket.setsockopt(zmq.SNDHWM, SEND_QUEUE)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.MAXMSGSIZE, max_message_size)
            socket.setsockopt(zmq.HANDSHAKE_IVL, int(HANDSHAKE_SECONDS * 1000))
            if curve is None or not key:
                raise ValueError("a tcp listener needs a key, and a key pair")
            self._gate = _Gate(self._context, _peers_keypair(key)[0])
            socket.setsockopt(zmq.IPV6, int("[" in address))
            socket.curve_server = True
            socket.curve_publickey, socket.curve_secretkey = (k.encode() for k in curve)
            if address.count(":") == 1 or address.endswith("]"):
                address += ":*"
            socket.bind(address)
            self._url = socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        except BaseException:
            socket.close()
            if self._gate is not None:
                self._gate.close()
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

    def receive_last(self, peer: bytes) -> list[tuple[bytes, Frames]]:
        """The messages of others come, too: ZeroMQ has one queue for all."""
        return self.receive(LAST_MESSAGES)

    def _take(self, peer: bytes, received: list[tuple[bytes, Frames]]) -> None:
        """Take in the rest of a message whose first frame has been received."""
        parts = _rest(self._socket, copy_first=True)
        if parts and peer != self._waker_name:
            received.append((peer, parts))

    def admit(self, peer: bytes) -> None:
        """Nothing changes: the handshake of CurveZMQ has let nobody in who does not have the key."""

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
            if self._gate is not None:
                self._gate.close()
            self._context.term()


class ZmqLink:
    """A DEALER socket with a random name, by which the listener knows it after a reconnection."""

    shares_memory = False
    stays_readable = False

    def __init__(self, url: str, key: str, *, curve_serverkey: str) -> None:
        require_descriptors("a connection")
        self._context = zmq.Context()
        socket = self._context.socket(zmq.DEALER)
        self._monitor: zmq.Socket[bytes] | None = None
        self._failures = 0
        try:
            socket.setsockopt(zmq.IDENTITY, b"p" + secrets.token_bytes(16))
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, 10)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
            socket.setsockopt(zmq.IPV6, 1)
            socket.curve_serverkey = curve_serverkey.encode()
            socket.curve_publickey, socket.curve_secretkey = _peers_keypair(key)
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
        with contextlib.suppress(zmq.Again):  # the listener has refused our keys: ZeroMQ has given up this link
            _send(self._socket, frames, _NOBLOCK)

    def flush(self, timeout: float) -> bool:
        return True  # threads of ZeroMQ send; `close` has a time limit of its own

    def refused(self) -> bool:
        if self._monitor is None:
            return False
        from zmq.utils.monitor import recv_monitor_message  # slow to import, and only links over tcp need it

        monitor = self._monitor
        while monitor.poll(0):
            event = recv_monitor_message(monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:  # ZeroMQ does not try again
                self._failures += 2
            else:
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
