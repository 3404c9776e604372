"""Addresses of this host, and why another one cannot be reached. Nothing here carries messages."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket

import psutil

from ..errors import ConfigError

#: Seconds for one attempt to reach a host.
PROBE_SECONDS = 3.0
#: An address for documentation (RFC 5737): the route to it is that to all far hosts. Nothing is sent.
FAR = "203.0.113.1"


def addresses_of_interface(name: str) -> list[str]:
    """The IPv4 addresses of a network interface of this host; []: there is none of this name."""
    return [each.address for each in psutil.net_if_addrs().get(name, ()) if each.family == socket.AF_INET]


def listening_address(given: str) -> str:
    """The address that `--ip=` means: an address, a name, "*", or the name of an interface.

    Raises
    ------
    ConfigError
        The interface has no address.
    """
    if given not in psutil.net_if_addrs():
        return given
    found = addresses_of_interface(given)
    if not found:
        raise ConfigError(f"the network interface {given} has no IPv4 address")
    return found[0]


def own_address() -> str:
    """The address by which other hosts most likely reach this one.

    That of its name, if it is not this host's loopback (many systems name themselves 127.0.1.1); else that from which
    far hosts are reached; else that of any interface; else 127.0.0.1.
    """
    candidates = []
    with contextlib.suppress(OSError):
        candidates.append(socket.gethostbyname(socket.gethostname()))
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((FAR, 9))
        candidates.append(probe.getsockname()[0])
    for name in psutil.net_if_addrs():
        candidates += addresses_of_interface(name)
    return next((each for each in candidates if not _is_loopback(each)), "127.0.0.1")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def why_unreachable(url: str) -> str:
    """Try to reach a controller, and say what comes of it: "connection refused", "no route to host" and so on."""
    if url.startswith("ipc://"):
        path = url.removeprefix("ipc://")
        return "its socket is there" if os.path.exists(path) else "its socket is not there"
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    try:
        address = socket.gethostbyname(host.strip("[]")) if "[" not in host else host.strip("[]")
    except OSError as error:
        return f"the name {host} has no address: {error.strerror or error}"
    shown = f"{host} is {address}; " if address != host.strip("[]") else ""
    try:
        with socket.create_connection((address, int(port)), PROBE_SECONDS):
            return f"{shown}something listens there, and does not answer as a controller"
    except TimeoutError:
        return f"{shown}nothing came back within {PROBE_SECONDS:g} s (a firewall, or the host is off)"
    except OSError as error:
        return shown + (error.strerror or str(error)).lower()
