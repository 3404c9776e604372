"""TCP connections to several addresses of one host at a time. What is sent through them is not decided here."""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

#: An attempt that has neither succeeded nor failed after so many seconds gets company: the next address is tried, too.
HEAD_START_SECONDS = 0.25
#: Seconds between two looks at whether the attempts are still wanted.
LOOK_SECONDS = 0.1


class Attempt(NamedTuple):
    """How an attempt to connect has ended: with a connection, or an error."""

    host: str
    port: int
    ip: str  #: "": the name of the host has no address
    connection: socket.socket | None
    error: OSError | None


class _Started(NamedTuple):
    host: str
    port: int
    ip: str
    connection: socket.socket
    deadline: float


def address_of(url: str) -> tuple[str, int]:
    """Host and port of `tcp://HOST:PORT`. The host may be an IPv6 address in brackets.

    Raises
    ------
    ValueError
        It is no such url.
    """
    host, colon, port = url.removeprefix("tcp://").rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{url!r} is no address")
    return host.strip("[]"), int(port)


def attempts(
    addresses: Sequence[tuple[str, int]], seconds: float, is_over: Callable[[], bool] = lambda: False
) -> Generator[Attempt]:
    """Try to connect with each address, and yield how each attempt ends, as it ends. Close this after the one you take.

    Parameters
    ----------
    addresses : sequence of (str, int)
        Hosts and ports, in the order in which they are tried. Each but the last has a head start.
    seconds : float
        What one attempt may take.
    is_over : callable
        Whether no attempt is wanted any more.
    """
    left: deque[tuple[str, int, Any]] = deque((host, port, None) for host, port in addresses)
    started: dict[int, _Started] = {}
    poll = select.poll()
    next_start = 0.0
    try:
        while (left or started) and not is_over():
            now = time.monotonic()
            if left and (now >= next_start or not started):
                host, port, found = left.popleft()
                try:
                    if found is None:
                        left.extendleft((host, port, each) for each in reversed(_resolved(host, port)))
                        continue
                    connection = _begin(found)
                except OSError as error:
                    yield Attempt(host, port, found[-1][0] if found else "", None, error)
                    continue
                started[connection.fileno()] = _Started(host, port, found[-1][0], connection, now + seconds)
                poll.register(connection, select.POLLOUT)
                next_start = now + HEAD_START_SECONDS
            until = min([each.deadline for each in started.values()] + ([next_start] if left else []), default=now)
            ready = poll.poll(1000 * max(0.0, min(until - now, LOOK_SECONDS))) if started else []
            for descriptor, _ in ready:
                one = started.pop(descriptor)
                poll.unregister(descriptor)
                code = one.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    one.connection.close()
                    next_start = 0.0  # nobody needs a head start of this one any more
                    yield Attempt(*one[:3], None, OSError(code, os.strerror(code)))
                else:
                    yield Attempt(*one[:3], one.connection, None)
            for descriptor, one in list(started.items()):
                if time.monotonic() >= one.deadline:
                    del started[descriptor]
                    poll.unregister(descriptor)
                    one.connection.close()
                    yield Attempt(*one[:3], None, TimeoutError(f"nothing came back within {seconds:g} s"))
    finally:
        for one in started.values():
            one.connection.close()


def _resolved(host: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a name that cannot be one
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from None


def _begin(found: Any) -> socket.socket:
    """A socket that begins to connect."""
    family, kind, protocol, _, address = found
    new = socket.socket(family, kind, protocol)
    try:
        new.setblocking(False)
        new.connect(address)
    except BlockingIOError:
        pass
    except BaseException:
        new.close()
        raise
    return new
