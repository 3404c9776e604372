"""Which address others are told, and why a host cannot be reached."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from engineroom.errors import ConfigError
from engineroom.transport import addresses


def interface(*found: str) -> list[SimpleNamespace]:
    return [SimpleNamespace(family=socket.AF_INET, address=address) for address in found]


@pytest.fixture
def interfaces(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[SimpleNamespace]]:
    made = {"lo": interface("127.0.0.1"), "ib0": interface("10.1.0.7"), "tun0": interface()}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: made)
    return made


def test_an_interface_is_named(interfaces: object):
    assert addresses.listening_address("ib0") == "10.1.0.7"
    assert addresses.listening_address("*") == "*"
    assert addresses.listening_address("10.0.0.1") == "10.0.0.1"
    with pytest.raises(ConfigError, match="the network interface tun0 has no IPv4 address"):
        addresses.listening_address("tun0")


def address_info(*found: str) -> object:
    return lambda *args: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]


@pytest.fixture
def no_route(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(addresses, "FAR", "not an address")


def test_other_hosts_are_told_all_addresses_but_those_of_the_loopback(
    interfaces: dict[str, list[SimpleNamespace]], monkeypatch: pytest.MonkeyPatch, no_route: None
):
    interfaces["eth1"] = interface("192.168.5.5", "169.254.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", address_info("192.168.5.5"))
    assert addresses.own_addresses() == ["192.168.5.5", "10.1.0.7"]
    monkeypatch.setattr(socket, "getaddrinfo", address_info("127.0.1.1"))  # as Debian names itself
    assert addresses.own_addresses() == ["10.1.0.7", "192.168.5.5"]
    monkeypatch.setattr(psutil, "net_if_stats", lambda: {"ib0": SimpleNamespace(isup=False)})
    assert addresses.own_addresses() == ["192.168.5.5"]
    del interfaces["eth1"]
    assert addresses.own_addresses() == ["127.0.0.1"]
    interfaces["eth1"] = [SimpleNamespace(family=socket.AF_INET6, address=each) for each in ("fe80::1", "2001:db8::1")]
    assert addresses.own_addresses(socket.AF_INET6) == ["2001:db8::1"]


def test_what_a_listener_is_told_by(interfaces: dict[str, list[SimpleNamespace]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(addresses, "own_addresses", lambda family=socket.AF_INET: ["10.1.0.7", "10.2.0.7"])
    assert addresses.told_addresses("10.9.9.9") == ["10.9.9.9"]
    assert addresses.told_addresses("10.9.9.9", "login1") == ["10.9.9.9"]
    assert addresses.told_addresses("0.0.0.0") == ["10.1.0.7", "10.2.0.7"]
    assert addresses.told_addresses("0.0.0.0", "login1") == ["login1", "10.1.0.7", "10.2.0.7"]
    assert addresses.told_addresses("0.0.0.0", "10.2.0.7") == ["10.2.0.7", "10.1.0.7"]
    assert addresses.url_of("10.2.0.7", "1") == "tcp://10.2.0.7:1"
    assert addresses.url_of("::1", "1") == "tcp://[::1]:1"


def test_why_a_controller_cannot_be_reached(tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        url = f"tcp://127.0.0.1:{port}"
        assert addresses.why_unreachable([url]) == "connection refused"
        probe.listen()
        assert "something listens there" in addresses.why_unreachable([url])
        assert addresses.why_unreachable([f"tcp://127.0.0.2:{port}", url, f"tcp://no-such-host.invalid:{port}"]) == (
            f"tcp://127.0.0.2:{port}: connection refused; "
            f"{url}: something listens there, and does not answer as a controller; "
            f"tcp://no-such-host.invalid:{port}: the name no-such-host.invalid has no address: "
            "Name or service not known"
        )
    assert addresses.why_unreachable([f"ipc://{tmp_path}/none"]) == "its socket is not there"
