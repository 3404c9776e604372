"""Addresses of this host, and why another one cannot be reached. Nothing here carries messages."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Sequence

from ..errors import ConfigError
from .reaching import Attempt, address_of, attempts

#: Seconds for one attempt to reach a host.
PROBE_SECONDS = 3.0
#: How many addresses a connection file names at most: a host with many containers has many.
MOST_ADDRESSES = 16
#: An address for documentation (RFC 5737): the route to it is that to all far hosts. Nothing is sent.
FAR = "203.0.113.1"


def addresses_of_interface(name: str, family: int = socket.AF_INET) -> list[str]:
    """The addresses of a network interface of this host; []: there is none of this name."""
    import psutil  # late: most controllers have no address of other hosts

    return [each.address for each in psutil.net_if_addrs().get(name, ()) if each.family == family]


def listening_address(given: str) -> str:
    """The address that `--ip=` means: an address, a name, "*", or the name of an interface.

    Raises
    ------
    ConfigError
        The interface has no address.
    """
    import psutil

    if given not in psutil.net_if_addrs():
        return given
    found = addresses_of_interface(given)
    if not found:
        raise ConfigError(f"the network interface {given} has no IPv4 address")
    return found[0]


def is_loopback(url: str) -> bool:
    """Whether only processes of this host can connect to `tcp://HOST:PORT`."""
    host = url.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def told_addresses(host: str, location: str = "") -> list[str]:
    """The addresses of a listener that other hosts are told, the most likely one first.

    Parameters
    ----------
    host : str
        Where it listens: an address, or "0.0.0.0" or "::", which mean all addresses of this host.
    location : str
        The name or address that the user gave for this host; "": none.
    """
    if host == "0.0.0.0":
        found = own_addresses()
    elif host == "::":
        found = own_addresses(socket.AF_INET6)
    else:
        return [host]
    return list(dict.fromkeys(filter(None, [location, *found])))[:MOST_ADDRESSES]


def own_addresses(family: int = socket.AF_INET) -> list[str]:
    """The addresses by which other hosts may reach this one, the most likely one first.

    That of its name; then that from which far hosts are reached; then those of its interfaces. Loopback addresses
    (many systems name themselves 127.0.1.1) and those of one link are left out. If none is left: that of the loopback.
    """
    import psutil

    candidates: list[str] = []
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(socket.gethostname(), None, family, socket.SOCK_STREAM)
        candidates += [str(each[-1][0]) for each in found]
    if family == socket.AF_INET:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((FAR, 9))
            candidates.append(probe.getsockname()[0])
    states = psutil.net_if_stats()
    for name in psutil.net_if_addrs():
        if name not in states or states[name].isup:
            candidates += addresses_of_interface(name, family)
    told = [each for each in dict.fromkeys(candidates) if _is_told(each)]
    return told or ["127.0.0.1" if family == socket.AF_INET else "::1"]


def _is_told(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)


def url_of(host: str, port: str) -> str:
    """`tcp://HOST:PORT`, with an IPv6 address in brackets."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def why_unreachable(urls: Sequence[str]) -> str:
    """Try to reach a controller, and say what comes of it: "connection refused", "no route to host" and so on.

    Of several addresses each is named, with what came of it.
    """
    if urls[0].startswith("ipc://"):
        return "its socket is there" if os.path.exists(urls[0].removeprefix("ipc://")) else "its socket is not there"
    told: dict[tuple[str, int], list[str]] = {address_of(url): [] for url in urls if url.startswith("tcp://")}
    if not told:
        return "it has no address"
    for attempt in attempts(list(told), PROBE_SECONDS):
        told[attempt.host, attempt.port].append(_outcome(attempt))
    if len(told) == 1:
        return "; ".join(*told.values())
    return "; ".join(f"{url_of(host, str(port))}: {', '.join(words)}" for (host, port), words in told.items())


def _outcome(attempt: Attempt) -> str:
    if attempt.connection is not None:
        attempt.connection.close()
        words = "something listens there, and does not answer as a controller"
    elif isinstance(attempt.error, TimeoutError):
        words = f"nothing came back within {PROBE_SECONDS:g} s (a firewall, or the host is off)"
    elif not attempt.ip:
        assert attempt.error is not None
        return f"the name {attempt.host} has no address: {attempt.error.strerror or attempt.error}"
    else:
        assert attempt.error is not None
        words = (attempt.error.strerror or str(attempt.error)).lower()
    return words if attempt.ip == attempt.host else f"{attempt.host} is {attempt.ip}; {words}"
