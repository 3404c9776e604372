"""The entrance across hosts: `tcp://IP[:PORT]`, encrypted.

A gate, a thread of its own, accepts connections and has their handshakes. The loop gets only those that have shown the
certificate of everybody who has the cluster's key (`certificates.py`): nobody else can keep it waiting.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import ssl
import threading
import time
from collections import OrderedDict, deque

from ..connection import Often, accept
from ..stream_listener import ACCEPT_PAUSE_SECONDS, MOST_STRANGERS, STRANGER_LEAST_SECONDS
from .certificates import listener_context
from .sealed_socket import SealedSocket, new_chunks

log = logging.getLogger(__name__)

#: A connection that has not shown within so many seconds that it has the cluster's key is closed. Each takes a
#: descriptor meanwhile, and anybody on the network can make them.
HANDSHAKE_SECONDS = 5.0


def _listening(url: str) -> socket.socket:
    """A socket that listens at an address."""
    where = url.removeprefix("tcp://")
    host, colon, port = where.rpartition(":")
    if not colon or where.endswith("]"):
        host, port = where, "*"
    host = "0.0.0.0" if host == "*" else host.strip("[]")
    number = 0 if port == "*" else int(port)
    family, _, _, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=4096)


class TcpEntrance:
    """An entrance at a TCP port.

    Parameters
    ----------
    url : str
        `tcp://IP[:PORT]`. A free port is taken if none is given, or `*`. The IP `*` means all addresses.
    key : str
        The cluster's key.
    secret : str
        That of the controller's certificate.

    Raises
    ------
    OSError, ValueError
        It cannot listen there, or has no key.
    """

    def __init__(self, url: str, key: str, *, secret: str) -> None:
        if not key or not secret:
            raise ValueError("a tcp listener needs a key, and a certificate")
        self._context, self._chunks = listener_context(secret, key), new_chunks()
        self._socket = _listening(url)
        self._socket.setblocking(False)
        #: readable when `enter` has something
        self._ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._end = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        #: by file descriptor, the oldest first: (the connection, since when)
        self._strangers: OrderedDict[int, tuple[SealedSocket, float]] = OrderedDict()
        self._complete: deque[SealedSocket] = deque()
        #: False: what comes waits in the kernel
        self._is_accepting = True
        self._paused_until = 0.0
        self._refusals, self._failures = Often(), Often()
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address."""
        host, port, *_ = self._socket.getsockname()
        return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"

    def fileno(self) -> int:
        return self._ready

    def enter(self) -> SealedSocket | None:
        """A connection whose handshake is complete, if there is one. The loop calls this."""
        with contextlib.suppress(IndexError):
            return self._complete.popleft()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._ready)
        with contextlib.suppress(IndexError):  # it has come in between
            return self._complete.popleft()
        return None

    def close(self) -> None:
        """End the thread, and close what nobody has taken. May be called twice."""
        if self._ready < 0:
            return
        os.eventfd_write(self._end, 1)
        self._thread.join()
        self._socket.close()
        for connection, _ in self._strangers.values():
            connection.close()
        while self._complete:
            self._complete.popleft().close()
        os.close(self._ready)
        os.close(self._end)
        self._ready = -1

    def _run(self) -> None:
        with select.epoll() as epoll:
            epoll.register(self._end, select.EPOLLIN)
            epoll.register(self._socket, select.EPOLLIN)
            while True:
                for descriptor, _ in epoll.poll(self._wait_seconds()):
                    if descriptor == self._end:
                        return
                    if descriptor in self._strangers:
                        self._shake(epoll, descriptor)
                while self._strangers and self._oldest_age() >= HANDSHAKE_SECONDS:
                    self._drop(epoll, next(iter(self._strangers)))
                may_accept = time.monotonic() >= self._paused_until and self._accept(epoll)
                if may_accept != self._is_accepting:
                    self._is_accepting = may_accept
                    epoll.modify(self._socket, select.EPOLLIN if may_accept else 0)

    def _wait_seconds(self) -> float | None:
        """When to look again if nothing comes."""
        if self._is_accepting:
            return STRANGER_LEAST_SECONDS if self._strangers else None
        if time.monotonic() < self._paused_until or not self._strangers:
            return ACCEPT_PAUSE_SECONDS
        return max(0.01, STRANGER_LEAST_SECONDS - self._oldest_age())

    def _oldest_age(self) -> float:
        _, since = next(iter(self._strangers.values()))
        return time.monotonic() - since

    def _accept(self, epoll: select.epoll) -> bool:
        """Accept what has come. Returns False if more may have come, and there is no room now."""
        while self._has_room():
            try:
                accepted = accept(self._socket)
            except OSError as error:
                if self._failures.may_log():
                    log.error("no connection can be accepted: %s", error)
                self._paused_until = time.monotonic() + ACCEPT_PAUSE_SECONDS
                return False
            if accepted is None:
                return True
            if self._is_full():
                self._drop(epoll, next(iter(self._strangers)))
            connection = SealedSocket(accepted, self._context, self._chunks, is_listener=True)
            self._strangers[accepted.fileno()] = connection, time.monotonic()
            epoll.register(accepted, select.EPOLLIN)
        return False

    def _is_full(self) -> bool:
        return len(self._strangers) + len(self._complete) >= MOST_STRANGERS

    def _has_room(self) -> bool:
        """Whether one more may be accepted. The oldest makes room for it, once it has had its time."""
        return not self._is_full() or (bool(self._strangers) and self._oldest_age() >= STRANGER_LEAST_SECONDS)

    def _shake(self, epoll: select.epoll, descriptor: int) -> None:
        """Something has come through a connection without a complete handshake."""
        connection, _ = self._strangers[descriptor]
        try:
            if not connection.shake():
                return
        except ssl.SSLError as error:
            if self._refusals.may_log():
                log.warning("a connection over tcp is refused: it has not shown the cluster's key (%s)", error.reason)
            self._drop(epoll, descriptor)
            return
        except OSError:
            self._drop(epoll, descriptor)
            return
        del self._strangers[descriptor]
        epoll.unregister(descriptor)
        self._complete.append(connection)
        os.eventfd_write(self._ready, 1)

    def _drop(self, epoll: select.epoll, descriptor: int) -> None:
        connection, _ = self._strangers.pop(descriptor)
        epoll.unregister(descriptor)
        connection.close()
