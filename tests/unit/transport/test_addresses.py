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


def test_a_loopback_address_is_not_told_to_other_hosts(
    interfaces: dict[str, list[SimpleNamespace]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "192.168.5.5")
    assert addresses.own_address() == "192.168.5.5"
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.1.1")  # as Debian names itself
    monkeypatch.setattr(addresses, "FAR", "not an address")
    assert addresses.own_address() == "10.1.0.7"
    del interfaces["ib0"]
    assert addresses.own_address() == "127.0.0.1"


def test_why_a_controller_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        assert addresses.why_unreachable(url) == "connection refused"
        probe.listen()
        assert "something listens there" in addresses.why_unreachable(url)
    assert "the name no-such-host.invalid has no address" in addresses.why_unreachable("tcp://no-such-host.invalid:1")
    assert addresses.why_unreachable(f"ipc://{tmp_path}/none") == "its socket is not there"
