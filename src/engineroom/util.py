"""Helpers that users import: `interactive`, times, urls."""

from __future__ import annotations

import socket
import sys
import types
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any


def interactive(f: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: treat a function of a module as if it were defined in `__main__`.

    On an engine, it then looks up global names in the engine's namespace.
    """
    if not isinstance(f, types.FunctionType):
        return f
    typed = types.FunctionType(f.__code__, sys.modules["__main__"].__dict__, f.__name__, f.__defaults__, f.__closure__)
    typed.__kwdefaults__ = f.__kwdefaults__
    typed.__doc__ = f.__doc__
    typed.__module__ = "__main__"
    return typed


#: the time zone of all times in records and metadata
utc = UTC


def utcnow() -> datetime:
    """The time now, as an aware datetime in UTC."""
    return datetime.now(UTC)


def is_url(url: object) -> bool:
    """Whether this is a url of a controller: `tcp://HOST:PORT` or `ipc://PATH`."""
    if not isinstance(url, str):
        return False
    scheme, separator, rest = url.partition("://")
    if not separator or not rest:
        return False
    return scheme == "ipc" or (scheme == "tcp" and rest.rpartition(":")[2].isdigit() and ":" in rest)


def disambiguate_url(url: str, location: str | None = None) -> str:
    """A url with the host that a wildcard in it stands for.

    Parameters
    ----------
    location : str, optional
        The host on which the listener runs; default, and if it is this one: the loopback address.

    Raises
    ------
    ValueError
        It is no url.
    """
    if not is_url(url):
        raise ValueError(f"a url is tcp://HOST:PORT or ipc://PATH; got {url!r}")
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    if not url.startswith("tcp://") or host not in ("*", "0.0.0.0", "[::]", "0"):
        return url
    is_here = location is None or location in ("", "127.0.0.1", "localhost", socket.gethostname())
    return f"tcp://{'127.0.0.1' if is_here else location}:{port}"
