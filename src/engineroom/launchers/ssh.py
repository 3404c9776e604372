"""Engines on hosts that ssh reaches: one nanny on each, started by the system's ssh with the user's own configuration.

    this host                            the other host
    launcher ── stdin ──▶ ssh ═════════▶ sshd ──▶ nanny ──▶ engines
             ◀─ log ─────

The environment of the engines and the connection file travel through stdin: no key and no value of a variable is on a
command line, or on the other host's disk. The nanny ends, with its engines, when its stdin ends: when the launcher
stops, when the launcher's process ends, or when the connection ends. (Killing ssh alone would leave a remote command
running.)
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from ..config import read_connection_file
from ..errors import ConfigError, LaunchError
from ..printable import one_line
from .base import STOP_SECONDS, Launcher, LauncherFacts, LaunchRequest, call_at_last_end, last_line, words_of
from .common import CommonSettings
from .found import FoundProcess, call_after
from .local import LocalProcess

#: Seconds that one file may take to be sent or fetched.
COPY_SECONDS = 600.0
#: Names that the shell takes.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Exit code of ssh itself; others are those of the remote command.
SSH_FAILED = 255
#: For the other host's sh: the first line of stdin sets variables ("$n" is a line break), then the command takes over.
SET_ENVIRONMENT = r"""n=$(printf "\nx") && n=${n%x} && IFS= read -r given && eval "$given" && exec "$@" """


class SSHOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which hosts, and how ssh reaches them. What is not said here is in the user's ~/.ssh/config."""

    #: {"node1": 4}, or names that share the engines: "node1,node2". Instead of 4 also (4, [arguments of ipengine]), or
    #: {"n": 4, "engine_args": [], "engine_cmd": []}
    hosts: dict[str, int | list[Any] | dict[str, Any]] | list[str] | str = ""
    user: str = ""  #: name of the user on these hosts
    proxy_host: str = ""  #: the host through which the others are reached (ssh -J)
    tunnel: bool = False  #: whether the engines reach the controller through the ssh connection
    ssh_cmd: list[str] | str = "ssh"
    ssh_args: list[str] | str = ""  #: for instance ["-F", "my_ssh_config"]
    scp_cmd: list[str] | str = "scp"
    scp_args: list[str] | str = ""
    remote_python: str = ""  #: the Python of the other hosts; default: the path of this one
    remote_dir: str = ""  #: the folder in which engines work there; default: the home folder
    remote_profile_dir: str = ""  #: the profile there, whose `ipengine_config.py` is read; default: as here
    environment: dict[str, str] = {}  #: what is added to the environment of the engines
    to_send: list[tuple[str, str]] = []  #: files to copy there first: (here, there)
    to_fetch: list[tuple[str, str]] = []  #: files to copy here at the end: (there, here)

    def check(self) -> None:
        """Raises ConfigError if a name cannot be one."""
        if self.user and not is_word(self.user):
            raise ConfigError(f"{self.user!r} is no name of a user")
        if self.proxy_host and not is_word(self.proxy_host):
            raise ConfigError(f"{self.proxy_host!r} is no name of a host: it is the option proxy_host")
        for name in self.environment:
            if not _VARIABLE.fullmatch(name):
                raise ConfigError(f"{name!r} is no name of a variable: it is in the option environment")

    def counts(self, n: int | None) -> dict[str, int]:
        """How many engines each host gets. Raises ConfigError."""
        hosts = self._named()
        if not hosts:
            raise ConfigError('the launcher ssh needs the option hosts: {"node1": 4, "node2": 4}, or "node1,node2"')
        for host in hosts:
            if not is_word(host):
                raise ConfigError(f"{host!r} is no name of a host")
        if isinstance(hosts, Mapping):
            counts = {host: _entry(hosts, host)[0] for host in hosts}
            if any(count < 1 for count in counts.values()):
                raise ConfigError(f"hosts gives each host a number of engines, 1 or more; got {hosts}")
            if n not in (None, sum(counts.values())):
                raise ConfigError(f"n={n}, but hosts has {sum(counts.values())} engines in all: give one of them")
            return counts
        total = len(hosts) if n is None else n
        shares = [total // len(hosts) + (place < total % len(hosts)) for place in range(len(hosts))]
        return {host: share for host, share in zip(hosts, shares, strict=True) if share}

    def _named(self) -> Mapping[str, Any] | list[str]:
        """The hosts with what is said of each, or their names alone."""
        if not isinstance(self.hosts, str):
            return self.hosts
        words = [word.strip() for word in self.hosts.split(",") if word.strip()]
        if not all(":" in word for word in words):
            return words
        try:
            return {word.rpartition(":")[0]: int(word.rpartition(":")[2]) for word in words}
        except ValueError:
            raise ConfigError(f"hosts is a list like node1:4,node2:2; got {self.hosts!r}") from None

    def command(self, host: str, request: LaunchRequest) -> list[str]:
        """The command that starts the engines of a host."""
        return _entry(self._named(), host)[1].applied(request).command


def _entry(hosts: Mapping[str, Any] | list[str], host: str) -> tuple[int, CommonSettings]:
    """How many engines a host gets, and what is special about them."""
    given = hosts.get(host, 0) if isinstance(hosts, Mapping) else 0
    if isinstance(given, list):
        entry = dict(zip(("n", "engine_args"), given, strict=False)) if len(given) < 3 else {}
    else:
        entry = given if isinstance(given, dict) else {"n": given}
    try:
        if "n" not in entry or not set(entry) <= {"n", "engine_args", "engine_cmd"}:
            raise msgspec.ValidationError('write 4, (4, ["--arg"]) or {"n": 4, "engine_args": [], …}')
        count = msgspec.convert(entry["n"], int)
        return count, msgspec.convert({**entry, "n": None}, CommonSettings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"hosts[{host!r}] cannot be used: {error}") from None


class _Connection(LocalProcess):
    """One ssh, with the nanny at its other end."""

    def __init__(self, host: str, count: int, args: Sequence[str], log_file: Path) -> None:
        super().__init__(args, log_file, lifeline=True)
        self.host, self.count = host, count
        self.is_stopping = False

    def begin_stop(self) -> None:
        """Have the nanny end, with its engines."""
        self.is_stopping = True
        self.close_stdin()

    def stop(self) -> None:
        self.begin_stop()
        self.join(STOP_SECONDS)
        super().stop()

    def explain(self) -> str:
        if self._process is None or self.running or self.is_stopping:
            return ""
        words = one_line(last_line(self.get_output()) or "it printed nothing")
        if self.exit_code == SSH_FAILED:
            return f"{self.host}: ssh failed: {words}"
        return f"{self.host}: the engines ended with exit code {self.exit_code}: {words} (log: {self.log_file})"


class SSHEngines(LauncherFacts):
    """Engines on hosts that ssh reaches."""

    Options = SSHOptions
    sections: ClassVar[tuple[str, ...]] = ("SSHLauncher", "SSHEngineSetLauncher")
    former_names: ClassVar[Mapping[str, str]] = {"engines": "hosts", "hostname": "hosts", "location": "hosts"}
    reaches_hosts: ClassVar[bool] = True
    restarts: ClassVar[bool] = False
    needs_connection_file: ClassVar[bool] = True

    def __init__(self, request: LaunchRequest, options: SSHOptions) -> None:
        options.check()
        self._request, self._options = request, options
        self.log_file = request.log_file
        #: the controller's port at the other end of the tunnel
        self._port = 20000 + secrets.randbelow(40000)
        self._connections = [
            _Connection(host, count, [*self._ssh(), self._name(host), there], self._log_of(host))
            for host, count in options.counts(request.n).items()
            for there in [self._remote_command(host, count)]
        ]
        self._fetched = False

    @classmethod
    def default_n(cls, options: SSHOptions) -> int | None:
        """How many engines there are if nobody says so: those of the hosts."""
        return sum(options.counts(None).values())

    def _log_of(self, host: str) -> Path:
        name = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in host)
        return self.log_file.with_name(f"{self.log_file.stem}-{name}.log")

    # ------------------------------------------------------------------------------------------ command lines

    def _name(self, host: str) -> str:
        return f"{self._options.user}@{host}" if self._options.user and "@" not in host else host

    def _proxy(self) -> list[str]:
        return ["-J", self._options.proxy_host] if self._options.proxy_host else []

    def _ssh(self) -> list[str]:
        options = self._options
        # Nobody can answer a question: ssh is to fail instead.
        words = [*words_of(options.ssh_cmd), "-T", "-o", "BatchMode=yes", *words_of(options.ssh_args), *self._proxy()]
        if options.tunnel:
            words += ["-o", "ExitOnForwardFailure=yes", "-R", f"127.0.0.1:{self._port}:{self._controller()}"]
        return words

    def _controller(self) -> str:
        """HOST:PORT of the controller, as this host reaches it."""
        path = self._request.connection_file
        return read_connection_file(path).url.removeprefix("tcp://") if path.exists() else "CONTROLLER:PORT"

    def _remote_command(self, host: str, count: int) -> str:
        """For the shell of the other host."""
        options = self._options
        python = [options.remote_python] if options.remote_python else self._request.command[:1]
        there = msgspec.structs.replace(self._request, command=[*python, *self._request.command[1:]])
        command = options.command(host, there)
        if options.remote_profile_dir:
            command = [word for word in command if not word.startswith("--profile-dir=")]
            command.append(f"--profile-dir={options.remote_profile_dir}")
        words = shlex.join(["sh", "-c", SET_ENVIRONMENT, "sh", *command, f"--n={count}", "--file=-"])
        return f"cd {shlex.quote(options.remote_dir)} && exec {words}" if options.remote_dir else f"exec {words}"

    def _environment(self) -> dict[str, str]:
        """What is added to the environment there."""
        return environment_there({**self._request.environment, **self._options.environment})

    def preview(self) -> str:
        """The command lines, and the names of the variables that ssh's stdin has."""
        names = ", ".join(self._environment())
        lines = [f"# through stdin: the key, and values for {names}"] if names else []
        lines += [shlex.join(words) for words in self._copies(self._options.to_send, is_fetch=False)]
        lines += [shlex.join(connection.args) for connection in self._connections]
        lines += [shlex.join(words) for words in self._copies(self._options.to_fetch, is_fetch=True)]
        return "\n".join(lines) + "\n"

    def _copies(self, pairs: Sequence[tuple[str, str]], *, is_fetch: bool) -> list[list[str]]:
        options = self._options
        given = words_of(options.scp_args or options.ssh_args)
        scp = [*words_of(options.scp_cmd), "-qr", "-o", "BatchMode=yes", *given, *self._proxy()]
        made = []
        for connection in self._connections:
            name = self._name(connection.host)
            for source, target in pairs:
                made.append([*scp, *((f"{name}:{source}", target) if is_fetch else (source, f"{name}:{target}"))])
        return made

    # ------------------------------------------------------------------------------------------ life

    def start(self) -> None:
        """Send files, and start the engines.

        Raises
        ------
        LaunchError
            A file cannot be sent.
        ConfigError
            There is no ssh here.
        """
        self._copy(self._options.to_send, is_fetch=False)
        info = read_connection_file(self._request.connection_file)
        if self._options.tunnel:
            info = msgspec.structs.replace(info, url=f"tcp://127.0.0.1:{self._port}", other_urls=())
        lines = b"%s%s\n" % (set_variables(self._environment()), msgspec.json.encode(info))
        try:
            for connection in self._connections:
                connection.start()
                connection.write_stdin(lines)
        except FileNotFoundError:
            raise ConfigError(f"there is no command {words_of(self._options.ssh_cmd)[0]} on this host") from None

    def _copy(self, pairs: Sequence[tuple[str, str]], *, is_fetch: bool) -> None:
        for words in self._copies(pairs, is_fetch=is_fetch):
            try:
                done = subprocess.run(
                    words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COPY_SECONDS
                )
            except FileNotFoundError:
                raise ConfigError(f"there is no command {words[0]} on this host") from None
            except subprocess.TimeoutExpired:
                raise LaunchError(f"`{shlex.join(words)}` took longer than {COPY_SECONDS:g} s") from None
            if done.returncode != 0:
                raise LaunchError(f"`{shlex.join(words)}` failed: {one_line(done.stderr)}")

    @property
    def running(self) -> bool:
        return any(connection.running for connection in self._connections)

    @property
    def state(self) -> str:
        """ "before" its start, "running", or "after" its end."""
        return "running" if self.running else "before" if self.pid is None else "after"

    @property
    def expected(self) -> int:
        return sum(connection.count for connection in self._connections if connection.running)

    @property
    def waiting(self) -> int:
        return 0

    @property
    def pid(self) -> int | None:
        return next((connection.pid for connection in self._connections), None)

    def stop(self) -> None:
        """End the engines, and fetch files."""
        began = any(connection.pid for connection in self._connections)
        for connection in self._connections:
            connection.begin_stop()
        for connection in self._connections:
            connection.stop()
        if began and not self._fetched:
            self._fetched = True
            self._copy(self._options.to_fetch, is_fetch=True)

    def signal(self, number: int | str) -> None:
        raise ConfigError("signals do not pass through ssh: use cluster.signal_engines_sync or client.send_signal")

    def join(self, timeout: float | None = None) -> bool:
        return all(connection.join(timeout) for connection in self._connections)

    def on_stop(self, callback: Callable[[int], None]) -> None:
        one_ended = call_at_last_end(len(self._connections), callback)
        for connection in self._connections:
            connection.on_stop(one_ended)

    def get_output(self, remove: bool = False) -> str:
        return "".join(connection.get_output(remove) for connection in self._connections)

    def explain(self) -> str:
        return "; ".join(filter(None, (connection.explain() for connection in self._connections)))

    def to_dict(self) -> dict[str, Any]:
        hosts = [
            {"host": each.host, "count": each.count, "pid": each.pid, "log_file": str(each.log_file)}
            for each in self._connections
        ]
        return {"class": "ssh", "pid": self.pid, "log_file": str(self.log_file), "hosts": hosts}

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Launcher:
        """The connections that another process made."""
        return _Found(described)


class _Found(LauncherFacts):
    """Connections that another process made: known by the process ids of their ssh."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        self._described = described
        self._found = [
            (host["count"], FoundProcess(host["pid"], "engineroom.engine", Path(host["log_file"])))
            for host in described["hosts"]
        ]

    @property
    def state(self) -> str:
        """ "running", or "after" the end."""
        return "running" if self.running else "after"

    @property
    def running(self) -> bool:
        return any(process.running for _, process in self._found)

    @property
    def expected(self) -> int:
        return sum(count for count, process in self._found if process.running)

    @property
    def waiting(self) -> int:
        return 0

    @property
    def pid(self) -> int | None:
        return next((process.pid for _, process in self._found), None)

    def start(self) -> None:
        raise ConfigError("another process started these engines, so they cannot be started from here")

    def stop(self) -> None:
        for _, process in self._found:
            process.stop()  # the nannies end with their connections

    def signal(self, number: int | str) -> None:
        raise ConfigError("signals do not pass through ssh: use cluster.signal_engines_sync or client.send_signal")

    def join(self, timeout: float | None = None) -> bool:
        return all(process.join(timeout) for _, process in self._found)

    def on_stop(self, callback: Callable[[int], None]) -> None:
        call_after(self.join, callback)

    def get_output(self, remove: bool = False) -> str:
        return "".join(process.get_output(remove) for _, process in self._found)

    def explain(self) -> str:
        return ""  # the process that started them knows

    def to_dict(self) -> Mapping[str, Any]:
        return self._described


def is_word(given: str) -> bool:
    """Whether ssh takes this for one word, and for no option of its own."""
    return bool(given) and not given.startswith("-") and given.isprintable() and not any(map(str.isspace, given))


def environment_there(given: Mapping[str, str]) -> dict[str, str]:
    """What is added to the environment on another host: the path on which Python finds modules here, and this."""
    every = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), **given}
    return {name: value for name, value in every.items() if value}


def set_variables(variables: Mapping[str, str]) -> bytes:
    """The first line of stdin, for `SET_ENVIRONMENT`."""
    return ("".join(f"export {name}={_quoted(value)};" for name, value in variables.items()) or ":").encode() + b"\n"


def _quoted(value: str) -> str:
    """A value for the shell, on one line. Line breaks are its variable `n`."""
    return "'" + value.replace("'", "'\"'\"'").replace("\n", "'\"$n\"'") + "'"
