"""A tunnel to a controller that only another host can reach, made by the system's ssh.

    this host: 127.0.0.1:PORT ══ ssh ══▶ server ──▶ the controller's address, as the server sees it

The user's own configuration of ssh counts (keys, agent, proxies). ssh asks no questions: it works, or fails with its
own words. The tunnel ends with this process, however this process ends: the remote `cat` then comes to the end of its
input.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import tempfile
import time

import msgspec

from ..config import ConnectionInfo
from ..errors import ConfigError, ConnectionFileError
from ..printable import one_line

#: Seconds between two looks whether the tunnel is there.
LOOK_SECONDS = 0.02


class Tunnel:
    """An open tunnel.

    Parameters
    ----------
    info : ConnectionInfo
        How the server reaches the controller.
    server : str
        A host, as ssh knows it: `name`, `user@name`, `name:port`.
    key : str
        The file of a private key; "": as ssh is configured.
    timeout : float
        Seconds to wait for it.

    Raises
    ------
    ConfigError
        The server has no name that ssh takes, there is no ssh, or the controller listens on a Unix socket.
    ConnectionFileError
        ssh fails; the text has its words.
    """

    def __init__(self, info: ConnectionInfo, server: str, key: str = "", timeout: float = 30.0) -> None:
        if not info.url.startswith("tcp://"):
            raise ConfigError(
                "the controller listens on a Unix socket, to which no tunnel leads. Start it with --ip=127.0.0.1 "
                "(ipcluster start --ip=127.0.0.1)"
            )
        found = re.fullmatch(r"(?P<host>[^-\s][^\s:]*)(:(?P<port>\d+))?", server)
        if found is None:
            raise ConfigError(f"sshserver is a host that ssh knows: name, user@name or name:port; got {server!r}")
        # The server may reach the controller at another address than we are told first: each has a port here.
        ports = _free_ports(len(info.urls))
        url, *others = (f"tcp://127.0.0.1:{port}" for port in ports)
        #: how this host reaches the controller
        self.info = msgspec.structs.replace(info, url=url, other_urls=tuple(others), local_url="")
        command = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"]
        command += ["-p", found["port"]] if found["port"] else []
        command += ["-i", os.path.expanduser(key)] if key else []
        for own, url in zip(ports, info.urls, strict=True):
            command += ["-L", f"127.0.0.1:{own}:{url.removeprefix('tcp://')}"]
        command += [found["host"], "exec cat"]
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 — ssh writes to it as long as the tunnel is open
        try:
            self._ssh = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._words, start_new_session=True
            )
        except FileNotFoundError:
            self._words.close()
            raise ConfigError("there is no command ssh on this host") from None
        try:
            self._wait_until_open(ports[-1], server, timeout)
        except BaseException:
            self.close()
            raise

    def _wait_until_open(self, port: int, server: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            if self._ssh.poll() is not None:
                self._words.seek(0)
                words = one_line(self._words.read().decode(errors="replace"))
                raise ConnectionFileError(f"ssh made no tunnel through {server}: {words or 'it printed nothing'}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                return
            if time.monotonic() > deadline:
                raise ConnectionFileError(f"ssh made no tunnel through {server} within {timeout:g} s")
            time.sleep(LOOK_SECONDS)

    def close(self) -> None:
        """Close the tunnel. May be called twice."""
        assert self._ssh.stdin is not None
        with contextlib.suppress(OSError):
            self._ssh.stdin.close()
        self._ssh.terminate()
        self._ssh.wait()
        self._words.close()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_sockets:
        probes = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
