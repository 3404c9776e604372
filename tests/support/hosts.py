"""Other hosts for tests: sshd on this host, and two network namespaces with addresses, names and an sshd of their own.

The file system is shared. Keys and configuration are made for the tests and thrown away.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from . import debian

SSHD = """\
Port {port}
ListenAddress {address}
HostKey {folder}/hostkey
PidFile {folder}/sshd.pid
AuthorizedKeysFile {key}.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""
USER = """\
Host *
  User root
  IdentityFile {folder}/id
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking yes
  ConnectTimeout 20
"""


class Hosts:
    """Hosts that ssh reaches with the configuration `config`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "ssh_config"
        #: name → address
        self.addresses: dict[str, str] = {}
        self._keygen(folder / "id")
        (folder / "known_hosts").touch()
        self.config.write_text("")

    def _keygen(self, path: Path) -> None:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)

    def add(self, name: str, address: str, port: int, prefix: tuple[str, ...] = ()) -> None:
        """Start an sshd, and let ssh know the host."""
        folder = self.folder / name
        folder.mkdir()
        self._keygen(folder / "hostkey")
        written = folder / "sshd_config"
        written.write_text(SSHD.format(port=port, address=address, folder=folder, key=self.folder / "id"))
        Path("/run/sshd").mkdir(exist_ok=True)
        command = [*prefix, str(debian.find("sshd")), "-f", str(written), "-E", str(folder / "log")]
        subprocess.run(command, check=True)
        _wait_until(lambda: (folder / "sshd.pid").exists())
        key = " ".join((folder / "hostkey.pub").read_text().split()[:2])
        with (self.folder / "known_hosts").open("a") as file:
            file.write(f"[{address}]:{port} {key}\n" if port != 22 else f"{address} {key}\n")
        entry = f"Host {name}\n  HostName {address}\n  Port {port}\n"
        self.config.write_text(entry + self.config.read_text().removesuffix(self._everywhere) + self._everywhere)
        self.addresses[name] = address

    @property
    def _everywhere(self) -> str:
        return USER.format(folder=self.folder)

    def stop(self) -> None:
        """Stop every sshd, and whatever it started."""
        for process in psutil.process_iter(["cmdline", "name"]):
            if process.info["name"] == "sshd" and str(self.folder) in " ".join(process.info["cmdline"] or []):
                for child in process.children(recursive=True):
                    child.send_signal(signal.SIGKILL)
                process.kill()


class Namespaces(Hosts):
    """host1 and host2, each a network namespace with its own address and host name. This host is `here`."""

    _made = itertools.count()

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # The kernel removes a namespace's interfaces some time after the namespace: the next ones have other names.
        tag = f"{os.getpid() % 10000}{'abcdefghijklmnopqrstuvwxyz'[next(self._made) % 26]}"
        self._bridge, self._names = f"erb{tag}", {f"host{i}": f"er{tag}h{i}" for i in (1, 2)}
        net = f"10.{64 + os.getpid() % 128}.{os.getpid() // 128 % 250}"
        self.here = f"{net}.1"
        #: the network interface of this host that leads to the others
        self.interface = self._bridge
        self._links: dict[str, str] = {}
        # A fixed address: without one, a bridge takes that of a port, and changes it as ports come and go.
        _ip("link", "add", self._bridge, "address", "02:00:00:00:00:01", "type", "bridge")
        _ip("addr", "add", f"{self.here}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for number, (name, space) in enumerate(self._names.items(), 1):
            address, link = f"{net}.1{number}", f"erv{tag}{number}"
            _ip("netns", "add", space)
            _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", link, "master", self._bridge, "up")
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")
            # As through a router: hosts do not notice that a neighbour is gone.
            mac = Path(f"/sys/class/net/{self._bridge}/address").read_text().strip()
            _ip("-n", space, "neigh", "replace", self.here, "lladdr", mac, "dev", "eth0", "nud", "permanent")
            theirs = json.loads(_ip("-n", space, "-j", "link", "show", "eth0"))[0]["address"]
            _ip("neigh", "replace", address, "lladdr", theirs, "dev", self._bridge, "nud", "permanent")
            self._links[name] = link
            inside = ("nsenter", f"--net=/run/netns/{space}", "unshare", "--uts", "sh", "-c")
            self.add(name, address, 22, (*inside, f'hostname {name}; exec "$@"', "sh"))

    def cut(self, name: str) -> None:
        """Cut a host off the network: what it sends, and what is sent to it, is lost. Nobody is told."""
        _ip("link", "set", self._links[name], "nomaster")

    def mend(self, name: str) -> None:
        """Give a host its network back."""
        _ip("link", "set", self._links[name], "master", self._bridge)

    def command(self, name: str) -> list[str]:
        """What runs a command on a host: words that go before it."""
        inside = ["nsenter", f"--net=/run/netns/{self._names[name]}", "unshare", "--uts", "sh", "-c"]
        return [*inside, f'hostname {name}; exec "$@"', "sh"]

    def stop(self) -> None:
        super().stop()
        for space in self._names.values():
            pids = _ip("netns", "pids", space).split()
            for pid in pids:
                with_suppressed_kill(int(pid))
            _ip("netns", "del", space)
        for link in self._links.values():  # a bridge that stays would have the address of the next one
            with contextlib.suppress(AssertionError):  # the kernel has removed it
                _ip("link", "del", link)
        _ip("link", "del", self._bridge)


def with_suppressed_kill(pid: int) -> None:
    """Kill a process that may have ended."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _ip(*words: str) -> str:
    done = subprocess.run([str(debian.find("ip")), *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


def _wait_until(condition: object, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"not so after {timeout:g} s"
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def ssh_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """This host as `near`, through an sshd."""
    why = debian.missing("ssh")
    if why:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("ssh")
    made = Hosts(folder)
    made.add("near", "127.0.0.1", _free_port())
    yield made
    made.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespaces]:
    """Two other hosts: host1 and host2."""
    why = debian.missing("ssh") or debian.missing("network namespaces")
    if why:
        pytest.skip(why)
    try:
        made = Namespaces(tmp_path_factory.mktemp("hosts"))
    except AssertionError as error:  # a container that may not make namespaces
        pytest.skip(f"network namespaces cannot be made here: {error}")
    yield made
    made.stop()


def have_ssh_use(config: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `ssh` on the path read this configuration. The folder is made for it."""
    folder.mkdir()
    script = folder / "ssh"
    script.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
