"""Settings as frozen values, and where things are: profiles, connection files, sockets.

Settings are read once, at the edge (command line, configuration file, keyword), and passed down as values;
nothing below reads the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from .errors import ConfigError, ConnectionFileError
from .records.states import ENDED_STATES

MIB, GIB = 1 << 20, 1 << 30


#: The largest task: its arguments, or its result, with all their arrays.
MAX_TASK_BYTES = 4 * GIB


class ConnectionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a client, an engine or a nanny must know to reach a controller. Kept in a file with mode 0600."""

    url: str
    #: proves that we may talk to the controller; never on a command line
    key: str
    #: the controller's CurveZMQ public key (Z85) where the transport is tcp, else ""
    curve_serverkey: str = ""
    #: the host name of the controller's machine, and its process there
    location: str = ""
    pid: int = 0
    cluster_id: str = ""
    profile_dir: str = ""
    #: engineroom's version at the controller
    version: str = ""
    #: the task database: "sqlite:///path/tasks.db", "memory", "none", …
    database: str = ""


class LivenessSettings(msgspec.Struct, frozen=True):
    """When a silent peer is declared gone."""

    ping_interval: float = 1.0  #: seconds between signs of life of a nanny or a client
    allowed_silence: float = 15.0  #: seconds without any, and the peer is lost
    recovery_grace: float = (
        5.0  #: after a restart: how long engines may take to come back before their tasks run elsewhere
    )


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How engines behave."""

    output_limit: int = MIB  #: characters of stdout (and of stderr) kept per task; what is beyond is cut, and marked
    unstored_limit: int = 256 * MIB  #: bytes of results an engine keeps while the controller is away
    restart: bool = True  #: a nanny starts another engine for one that died
    connect_timeout: float = 60.0  #: seconds a nanny looks for its controller before it gives up
    cancel_grace: float = 2.0  #: seconds a task past its run_timeout has to heed its interruption; then it is killed
    #: threads of BLAS, OpenMP and the like per engine; None: an equal share of the cores; 0: as the libraries choose
    threads: int | None = None
    #: how much of each named resource this host has, dealt out to its engines by index
    resources: dict[str, int] = {}


class SchedulerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How tasks are handed out."""

    scheme: str = "leastload"  #: who chooses the engine for a task: a name in `core.schemes`, or "module:function"
    hwm: int | None = None  #: tasks outstanding per engine; None: adaptive, 0: no limit
    death_limit: int = 3  #: a task that was running on this many engines when they died fails, whatever its retries
    cancel_grace: float = 2.0  #: seconds a cancelled task has to heed its interruption before its engine is killed
    engine_grace: float = 30.0  #: seconds a task waits for an engine that has the resources it needs
    outcomes_kept: int = 65536  #: ended tasks whose outcome the core remembers, for tasks that depend on them


def ipython_dir(given: str | os.PathLike[str] | None = None) -> Path:
    """`$IPYTHONDIR`, or `~/.ipython`."""
    return Path(given or os.environ.get("IPYTHONDIR") or Path.home() / ".ipython").expanduser()


def profile_dir(
    profile: str | None = None,
    given: str | os.PathLike[str] | None = None,
    ipython: str | os.PathLike[str] | None = None,
) -> Path:
    """The folder of a profile; it need not exist. `$IPP_PROFILE_DIR` names the default's."""
    if given:
        return Path(given).expanduser().absolute()
    if profile is None and os.environ.get("IPP_PROFILE_DIR"):
        return Path(os.environ["IPP_PROFILE_DIR"]).absolute()
    name = profile or "default"
    if not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(f"a profile's name is made of letters, digits, '_', '-' and '.'; got {name!r}")
    return (ipython_dir(ipython) / f"profile_{name}").absolute()


def make_profile_dir(path: Path) -> Path:
    """Create a profile's folders where they are missing; `security` is readable to its owner alone."""
    try:
        for name in ("security", "log", "pid"):
            (path / name).mkdir(parents=True, exist_ok=True)
        (path / "security").chmod(0o700)
    except OSError as error:
        raise ConfigError(f"cannot write in the profile's folder {path}: {error.strerror}") from None
    return path


def connection_file(profile: Path, cluster_id: str = "", role: str = "client") -> Path:
    """Where a controller of this profile writes its connection file."""
    if not re.fullmatch(r"[\w.-]*", cluster_id):
        raise ConfigError(f"a cluster's id is made of letters, digits, '_', '-' and '.'; got {cluster_id!r}")
    middle = f"-{cluster_id}" if cluster_id else ""
    return profile / "security" / f"ipcontroller{middle}-{role}.json"


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_connection_file(path: Path, info: ConnectionInfo) -> None:
    """Write a connection file (mode 0600, atomically)."""
    write_private(path, json.dumps(msgspec.to_builtins(info), indent=1))


def read_connection_file(path: str | os.PathLike[str]) -> ConnectionInfo:
    """Read a connection file.

    Raises
    ------
    ConnectionFileError
        It is missing or not a connection file. FileNotFoundError is its `__cause__` if it is missing.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConnectionFileError(f"cannot read the connection file {os.fspath(path)}: {error.strerror}") from error
    try:
        return msgspec.json.decode(data, type=ConnectionInfo)
    except msgspec.DecodeError as error:
        raise ConnectionFileError(
            f"{os.fspath(path)} is not a connection file of Engineroom ({error}). "
            "Start a cluster (`ipcluster start -n 4`) to have one written."
        ) from error


#: The longest path that a Unix socket may have, in bytes, and what the name of a socket takes of it.
_SOCKET_PATH, _SOCKET_NAME = 107, 24


def socket_dir() -> Path:
    """The folder of ipc sockets: in $TMPDIR, or elsewhere if that path is too long for a socket; ours alone.

    Raises
    ------
    ConfigError
        No folder is short enough, or the folder is not ours alone.
    """
    name = f"engineroom-{os.getuid()}"
    folders = tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp"
    places = [Path(folder) / name for folder in folders if folder]
    fitting = [place for place in places if len(os.fsencode(place)) + _SOCKET_NAME <= _SOCKET_PATH]
    for base in fitting:
        with contextlib.suppress(OSError):
            base.mkdir(mode=0o700, exist_ok=True)
            break
    else:
        tried = ", ".join(str(place.parent) for place in places)
        raise ConfigError(
            f"no folder for sockets: the path of a socket has at most {_SOCKET_PATH} bytes, and the folder must be "
            f"writable; tried {tried}. Set TMPDIR to a short path"
        )
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"{base} must be a folder that belongs to you with mode 0700; remove it and start again")
    return base


def is_local(host: str) -> bool:
    """Whether a host name in a connection file or a Hello is this machine's."""
    return host == socket.gethostname()


# ---------------------------------------------------------------------------------------------- what is kept


class RetentionRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the records of some tasks are kept; what it does not say is for ever."""

    state: str | None = None  #: completed, failed or aborted
    label: str | None = None  #: a shell pattern
    age: float | None = None  #: seconds after the end, then the record is dropped
    payload_age: float | None = None  #: seconds after the end, then its buffers are


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept in the database. Records of unfinished tasks, and pinned ones, always are."""

    age: float | None = None  #: seconds after a task's end, then its record is dropped
    payload_age: float | None = None  #: seconds after its end, then its arguments and result are dropped
    count: int | None = None  #: records beyond this are dropped, oldest first
    bytes: int | None = None  #: … and beyond this size of the database
    min_free: int = 64 * MIB  #: bytes on the disk; with less, new tasks are refused
    interval: float = 10.0  #: seconds between two looks
    #: the first rule that fits a record takes the place of `age` and `payload_age`
    rules: tuple[RetentionRule, ...] = ()

    @property
    def drops(self) -> bool:
        """Whether anything is dropped at all."""
        return any(value is not None for value in (self.age, self.payload_age, self.count, self.bytes)) or any(
            rule.age is not None or rule.payload_age is not None for rule in self.rules
        )


_UNITS: dict[str, dict[str, float]] = {
    "seconds": {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400},
    "bytes": {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 1 << 10, "mib": MIB, "gib": GIB,
              "tib": 1 << 40},
}  # fmt: skip


def amount(value: float | str, kind: str, name: str = "") -> float:
    """A number of "seconds" or "bytes", from a number or a text: "90", "12h", "30d"; "500MB", "2GiB".

    Raises
    ------
    ConfigError
        It is neither, or negative.
    """
    found = re.fullmatch(r"\s*([\d.]+(?:[eE]\d+)?)\s*([A-Za-z]*)\s*", str(value))
    unit = _UNITS[kind].get(found[2].lower()) if found else None
    try:
        if isinstance(value, bool) or found is None or unit is None:
            raise ValueError
        return float(found[1]) * unit
    except ValueError:
        units = ", ".join(unit for unit in _UNITS[kind] if unit)
        raise ConfigError(f"{name or 'this'} is a number of {kind}, with or without {units}; got {value!r}") from None


_AMOUNTS = {"age": "seconds", "payload_age": "seconds", "interval": "seconds", "bytes": "bytes", "min_free": "bytes"}


def retention_settings(given: Mapping[str, Any]) -> RetentionSettings:
    """Settings from a dict of numbers and texts: `{"age": "30d", "bytes": "10GB", "rules": [{"state": "failed"}]}`.

    Raises
    ------
    ConfigError
        A word or a value is not understood.
    """
    try:
        rules: Any = given.get("rules") or ()
        if isinstance(rules, str | Mapping):
            raise ConfigError(f"retention: rules is a list of dicts, got {rules!r}")
        made = {**_amounts(given), "rules": [_amounts(rule) for rule in rules]}
        settings = msgspec.convert(made, RetentionSettings)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        words = ", ".join(RetentionSettings.__struct_fields__)
        of_rules = ", ".join(RetentionRule.__struct_fields__)
        raise ConfigError(f"retention: {error}. It is made of {words}; a rule of {of_rules}.") from None
    if any(rule.state not in (None, *ENDED_STATES) for rule in settings.rules):
        raise ConfigError(f"retention: the state of a rule is one of {', '.join(ENDED_STATES)}")
    if settings.interval <= 0 or any(v is not None and v < 0 for v in (settings.count, settings.bytes)):
        raise ConfigError("retention: interval must be above 0, count and bytes not below")
    return settings


def _amounts(given: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(given)
    for name, kind in _AMOUNTS.items():
        if made.get(name) is not None:
            number = amount(made[name], kind, f"retention: {name}")
            made[name] = number if kind == "seconds" else int(number)
    return made
