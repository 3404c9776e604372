"""Settings as frozen values, and the places of files: profiles, connection files, sockets.

Settings are read once, at the edge (command line, configuration file, keyword), and passed down as values. The code
below the edge does not read the environment.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import secrets
import shlex
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from .errors import ConfigError, ConnectionFileError
from .messages.rights import Rights, key_with_rights
from .private import make_private_folder, read_small, why_not_private, why_not_trusted, why_not_trusted_folder
from .records.states import ENDED_STATES

log = logging.getLogger(__name__)

MIB, GIB = 1 << 20, 1 << 30


#: The largest size of a task's arguments, or of its result, with all arrays, in bytes.
MAX_TASK_BYTES = 4 * GIB


#: Bytes of the name of a profile or a cluster. A file system takes 255 in the name of a file.
MOST_OF_NAME = 200

#: Text that is shown, and that names files: it holds no characters that steer a terminal, and no NUL.
_Text = Annotated[str, msgspec.Meta(pattern="^[^\\x00-\\x1f\\x7f]*\\Z")]


class ConnectionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How a client, an engine or a nanny reaches a controller. The connection file (mode 0600) holds it."""

    url: _Text
    #: the secret that the controller asks for; never put it on a command line
    key: str
    #: what the key allows (`messages/rights.py`): "full", "engine", "readonly" or "submit"
    rights: Rights = "full"
    #: the controller's certificate (DER, in base64) for tcp, "" for Unix sockets
    certificate: str = ""
    #: host name and process id of the controller
    location: _Text = ""
    pid: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0
    cluster_id: _Text = ""
    profile_dir: _Text = ""
    #: engineroom's version at the controller
    version: _Text = ""
    #: the task database: "sqlite:///path/tasks.db", "memory", "none", …
    database: _Text = ""
    #: more addresses of the controller, for hosts that do not reach it at `url`
    other_urls: tuple[_Text, ...] = ()
    #: a socket of the controller for processes of its own host, if `url` is for all hosts; "": there is none
    local_url: _Text = ""

    @property
    def urls(self) -> tuple[str, ...]:
        """All addresses of the controller, in the order in which they are tried."""
        return (self.url, *self.other_urls)

    @property
    def socket(self) -> Path | None:
        """The controller's Unix socket; None: it has none."""
        found = [url for url in (self.url, self.local_url) if url.startswith("ipc://")]
        return Path(found[0].removeprefix("ipc://")) if found else None


class LivenessSettings(msgspec.Struct, frozen=True):
    """When a silent peer is declared lost."""

    ping_interval: float = 1.0  #: seconds between two pings of a nanny or a client
    allowed_silence: float = 15.0  #: seconds without a message after which a peer is lost
    #: seconds that engines have to reconnect to a restarted controller, at most, before their tasks go elsewhere
    recovery_grace: float = 5.0


#: What an acknowledged task survives: the death of any process; a power cut, too.
DURABILITIES = ("normal", "full")


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of engines and nannies."""

    output_limit: int = MIB  #: characters of stdout, and of stderr, kept per task; the rest is cut, with a mark
    unstored_limit: int = 256 * MIB  #: bytes of results that an engine keeps until they are stored, at most
    #: bytes that an engine may have in memory after a task, beyond which another takes its place; 0: no limit
    memory_limit: int = 0
    restart: bool = True  #: whether a nanny replaces an engine that died
    connect_timeout: float = 60.0  #: seconds that a nanny tries to reach its controller before it gives up
    cancel_grace: float = 2.0  #: seconds from a task's interruption at its run_timeout to the kill of its engine
    #: threads of BLAS, OpenMP and the like per engine; None: an equal share of the cores; 0: as the libraries choose
    threads: int | None = None
    #: how much of each named resource this host has; its engines share the indexes
    resources: dict[str, int] = {}
    walltime: float = 0.0  #: seconds after which the batch system ends the job of these engines; 0: it does not
    drain: float | None = None  #: seconds before that in which engines take no more tasks; None: at most a minute
    grace: float = 0.0  #: seconds that engines have, after a SIGTERM to their nanny, to finish what they run
    mpi: bool = False  #: whether the engine is a rank of MPI
    #: pieces of code that each engine runs when it starts, and what each is called in tracebacks
    startup: tuple[tuple[str, str], ...] = ()


class SchedulerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the scheduler."""

    scheme: str = "leastload"  #: the scheme that chooses engines: a name of one, or "module:function"
    hwm: int | None = None  #: how many tasks an engine may have at once; None: adaptive, 0: no limit
    death_limit: int = 3  #: a task fails if this many engines died while they ran it, whatever its retries
    cancel_grace: float = 2.0  #: seconds from a cancelled task's interruption to the kill of its engine
    engine_grace: float = 30.0  #: seconds that a task waits for an engine with the resources it needs
    outcomes_kept: int = 65536  #: how many outcomes of ended tasks the core remembers, for tasks that depend on them


# ---------------------------------------------------------------------------------------------- arguments of users


class Kind(NamedTuple):
    """What an argument may be: in words, and as a function of its value."""

    what: str
    fits: Callable[[Any], bool]


def is_bool(value: Any) -> bool:
    """Whether this is True or False, Python's or numpy's."""
    is_numpys = getattr(getattr(value, "dtype", None), "kind", "") == "b" and getattr(value, "ndim", 0) == 0
    return isinstance(value, bool) or is_numpys


def is_switch(value: Any) -> bool:
    """Whether this is True or False, or 1 or 0. A str is neither: "no" would be true."""
    return is_bool(value) or (isinstance(value, int) and value in (0, 1))


def check_switches(**given: Any) -> None:
    """Raise ConfigError, which names the argument, if one of these is no switch."""
    for name, value in given.items():
        if not is_switch(value):
            raise ConfigError(f"{name} is True or False; got {value!r}")


def check_optional_switches(**given: Any) -> None:
    """The same, for arguments that may be None."""
    check_switches(**{name: value for name, value in given.items() if value is not None})


def _is_count(value: Any) -> bool:
    return value is None or (hasattr(value, "__index__") and not isinstance(value, bool | type) and value >= 0)


def _is_limit(value: Any) -> bool:
    return SECONDS.fits(value) and float(value) > 0


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


TEXT = Kind("a str", lambda value: value is None or isinstance(value, str))
PATH = Kind("a path: a str or a Path", lambda value: value is None or isinstance(value, str | os.PathLike))
TEXTS = Kind('a list of str, as ["--debug"]', lambda value: value is None or _are_texts(value))
SWITCH = Kind("True or False", is_switch)
SECONDS = Kind("a number of seconds", lambda value: hasattr(value, "__float__") and not is_bool(value))
LIMIT = Kind("a number of seconds, more than 0", _is_limit)
COUNT = Kind("a number of engines, 0 or more", _is_count)
DICT = Kind("a dict", lambda value: value is None or isinstance(value, Mapping))


def check_arguments(given: Mapping[str, Any], kinds: Mapping[str, Kind], of: str = "") -> None:
    """Check arguments, or settings, that a user has given.

    Parameters
    ----------
    of : str
        What the name of an argument begins with in messages.

    Raises
    ------
    ConfigError
        One is not what it may be. The message names it, what it may be, and what it is.
    """
    for name, kind in kinds.items():
        if name in given and not kind.fits(given[name]):
            raise ConfigError(f"{of}{name} is {kind.what}; got {given[name]!r}")


# ---------------------------------------------------------------------------------------------- places of files


def ipython_dir(given: str | os.PathLike[str] | None = None) -> Path:
    """`$IPYTHONDIR`, or `~/.ipython`."""
    return Path(given or os.environ.get("IPYTHONDIR") or Path.home() / ".ipython").expanduser()


def profile_dir(
    profile: str | None = None,
    given: str | os.PathLike[str] | None = None,
    ipython: str | os.PathLike[str] | None = None,
) -> Path:
    """The folder of a profile, which need not exist. `$IPP_PROFILE_DIR` is the folder of the default profile."""
    if given:
        return Path(given).expanduser().absolute()
    if profile is None and os.environ.get("IPP_PROFILE_DIR"):
        return Path(os.environ["IPP_PROFILE_DIR"]).absolute()
    name = profile or "default"
    _refuse_name(name, "a profile's name")
    return (ipython_dir(ipython) / f"profile_{name}").absolute()


def _refuse_name(name: str, what: str) -> None:
    """Names of files are made of it. Raises ConfigError."""
    if not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(f"{what} is made of letters, digits, '_', '-' and '.'; got {name!r}")
    if len(name.encode()) > MOST_OF_NAME:
        raise ConfigError(f"{what} has at most {MOST_OF_NAME} bytes, as it is a part of names of files; got {name!r}")


def profile_folders(ipython: str | os.PathLike[str] | None = None) -> list[Path]:
    """The folders of all profiles that there are, in order."""
    return sorted(ipython_dir(ipython).absolute().glob("profile_*"))


def naming(profile: Path, cluster_id: str) -> dict[str, str]:
    """The arguments that name a cluster of a profile: those that differ from the defaults."""
    found = {}
    if profile.parent != ipython_dir().absolute() or not profile.name.startswith("profile_"):
        found["profile_dir"] = str(profile)
    elif profile.name != "profile_default":
        found["profile"] = profile.name.removeprefix("profile_")
    if cluster_id:
        found["cluster_id"] = cluster_id
    return found


def as_options(named: Mapping[str, str]) -> str:
    """Arguments as options of the command line, each with a space before it."""
    return "".join(f" --{name.replace('_', '-')}={shlex.quote(value)}" for name, value in named.items())


def did_you_mean(profile: Path, nearness: float = 0.6) -> str:
    """A question for the user of a profile that is not there: whether another was meant. "": none has such a name.

    Parameters
    ----------
    nearness : float
        How much of the name must be the same: 1 is all of it.
    """
    import difflib  # late: it is seldom needed

    try:
        others = [] if profile.exists() else [folder for folder in profile.parent.iterdir() if _is_profile(folder)]
    except OSError:  # the folder is not there, or we may not look into it
        return ""
    names = {folder.name.removeprefix("profile_"): folder for folder in others}
    name = profile.name.removeprefix("profile_")
    for near in difflib.get_close_matches(name, names, 1, nearness):
        if re.sub(r"\d", "", near) != re.sub(r"\d", "", name):  # run1 and run2 are meant so
            return f"Did you mean {near!r}, which is there ({names[near]})?"
    return ""


def _is_profile(folder: Path) -> bool:
    try:
        return (folder / "security").is_dir()
    except OSError:  # another user's: what is in it is not ours to know
        return False


def make_profile_dir(path: Path) -> Path:
    """Create the missing folders of a profile, readable to their owner alone, whatever the umask is.

    Raises
    ------
    ConfigError
        They cannot be made, or another user may write to one of them: configuration in them runs, results in a
        database are unpickled, and logs are written where a symbolic link leads.
    """
    is_new = not path.exists()
    try:
        for name in ("security", "log", "pid"):
            make_private_folder(path / name)
        (path / "security").chmod(0o700)
        whys = [why_not_trusted_folder(path), *(why_not_trusted(path / name) for name in ("security", "log", "pid"))]
    except OSError as error:
        raise ConfigError(
            f"cannot write in the profile's folder {path}: {error.strerror}. Choose another with profile_dir= "
            "(--profile-dir=), or set IPYTHONDIR"
        ) from None
    if why := next(filter(None, whys), ""):
        raise ConfigError(f"the profile's folder {path} is not used: {why}. Make it yours alone (chmod go-w)")
    if is_new:
        log.info("a new profile: its folder is %s", path)
    return path


def connection_file(profile: Path, cluster_id: str = "", role: str = "client") -> Path:
    """The path of the connection file of a controller of this profile."""
    if cluster_id:
        _refuse_name(cluster_id, "a cluster's id")
    middle = f"-{cluster_id}" if cluster_id else ""
    return profile / "security" / f"ipcontroller{middle}-{role}.json"


def cluster_file(profile: Path, cluster_id: str = "") -> Path:
    """The path of the file that describes a cluster of this profile."""
    return profile / "security" / f"cluster{f'-{cluster_id}' if cluster_id else ''}.json"


def job_of_controller(profile: Path, cluster_id: str) -> str:
    """The batch job that a controller is, in words: "the slurm job 17, with its log …". "": none that is known."""
    try:
        described = json.loads(read_small(cluster_file(profile, cluster_id)))["controller"]
        return f"the {described['class']} job {described['job_id']}, with its log {described['log_file']}"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def dashboard_file(profile: Path, cluster_id: str = "") -> Path:
    """The path of the file with the link of the dashboard of this cluster."""
    middle = f"-{cluster_id}" if cluster_id else ""
    return profile / "security" / f"dashboard{middle}.json"


def dashboard_url(profile: Path, cluster_id: str = "") -> str | None:
    """The link of the dashboard of a cluster. It holds a secret. None: no dashboard of it runs on this host."""
    try:
        path = dashboard_file(profile, cluster_id)
        if why_not_trusted(path):
            return None
        found = json.loads(read_small(path))
        if not is_local(found["host"]):
            return None
        url = str(found["url"])
        port = int(re.match(r"http://127\.0\.0\.1:(\d+)/", url)[1])  # type: ignore[index]  # a TypeError is caught
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # no file, no link, or its process was killed
        return None
    return url


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read. It is written completely, or not at all."""
    make_private_folder(path.parent)
    import tempfile  # it takes long to import

    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def is_of_zeromq(info: ConnectionInfo) -> bool:
    """Whether Engineroom 0.1 wrote a connection file. Its peers speak ZeroMQ: none can say a Hello to the other."""
    return info.version.startswith("0.1.")


def with_rights(info: ConnectionInfo, rights: Rights) -> ConnectionInfo:
    """The content of a connection file with these rights, from that of one with all of them.

    Raises
    ------
    ConfigError
        The key of `info` has lesser rights: no other key can be made from it.
    """
    if info.rights != "full":
        raise ConfigError(
            f"this connection file has the rights {info.rights!r}; others are made from the one with all rights, "
            "ipcontroller-client.json"
        )
    return msgspec.structs.replace(info, key=key_with_rights(info.key, rights), rights=rights)


def write_connection_file(path: Path, info: ConnectionInfo) -> None:
    """Write a connection file (mode 0600, atomically)."""
    write_private(path, json.dumps(msgspec.to_builtins(info), indent=1))


def read_connection_file(path: str | os.PathLike[str]) -> ConnectionInfo:
    """Read a connection file.

    Raises
    ------
    ConnectionFileError
        The file is missing (`__cause__` is a FileNotFoundError then), or is no connection file, or another user of
        the host may have written it.
    """
    try:
        why = why_not_trusted(Path(path))
        data = read_small(Path(path))
    except OSError as error:
        raise ConnectionFileError(f"cannot read the connection file {os.fspath(path)}: {error.strerror}") from error
    if why:
        raise ConnectionFileError(
            f"the connection file {os.fspath(path)} is not used: {why}. It says whose code runs as you: keep it "
            "in a folder to which only you can write (chmod go-w)"
        )
    try:
        return msgspec.json.decode(data, type=ConnectionInfo)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConnectionFileError(
            f"{os.fspath(path)} is not a connection file of Engineroom ({error}). "
            "Start a cluster (`ipcluster start -n 4`) to have one written."
        ) from error


#: The longest path that a Unix socket may have, in bytes, and what the name of a socket takes of it.
_SOCKET_PATH, _SOCKET_NAME = 107, 24
#: Characters of the random end of a folder's name.
_RANDOM_NAME = 8


def socket_dir() -> Path:
    """The folder of Unix sockets: in $XDG_RUNTIME_DIR, $TMPDIR or /tmp; the first whose path is short enough.

    Only its owner has access. Where another user has made a folder of that name, it has a name that nobody can guess.

    Raises
    ------
    ConfigError
        No folder has a short enough path, or other users have access to it.
    """
    import tempfile

    name = f"engineroom-{os.getuid()}"
    folders = os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"
    places = [Path(folder) / name for folder in folders if folder]
    fitting = [place for place in places if len(os.fsencode(place)) + _SOCKET_NAME <= _SOCKET_PATH]
    for base in fitting:
        with contextlib.suppress(OSError):
            if (made := _made_for_us(base)) is not None:
                base = made
                break
    else:
        tried = ", ".join(str(place.parent) for place in places)
        raise ConfigError(
            f"no folder for sockets: the path of a socket has at most {_SOCKET_PATH} bytes, and the folder must be "
            f"writable; tried {tried}. Set TMPDIR to a short path"
        )
    why = why_not_private(base.lstat())
    if why:
        raise ConfigError(
            f"{base} must be a folder that belongs to you with mode 0700, but {why}; remove it and start again"
        )
    return base


def _made_for_us(base: Path) -> Path | None:
    """The folder `base`, or one of a similar name if another user has that name; None: there is no room for one.

    Anybody may make a folder of any name in /tmp, and only its owner (or root) can remove it there.
    """
    with contextlib.suppress(FileExistsError):
        base.mkdir(mode=0o700)
    if base.lstat().st_uid == os.geteuid():
        return base
    if len(os.fsencode(base)) + 1 + _RANDOM_NAME + _SOCKET_NAME > _SOCKET_PATH:
        return None
    for other in sorted(base.parent.glob(f"{base.name}-*")):
        if not why_not_private(other.lstat()):
            return other
    other = base.with_name(f"{base.name}-{secrets.token_hex(_RANDOM_NAME // 2)}")
    other.mkdir(mode=0o700)
    return other


def is_local(host: str) -> bool:
    """Whether this machine has that host name."""
    return host == socket.gethostname()


# ---------------------------------------------------------------------------------------------- what is kept


class RetentionRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the records of some tasks are kept. Without a limit they are kept for ever."""

    state: str | None = None  #: completed, failed or aborted
    label: str | None = None  #: a shell pattern
    age: float | None = None  #: the record is dropped so many seconds after the task ended
    payload_age: float | None = None  #: its buffers are dropped so many seconds after the task ended


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records the database keeps. It always keeps records of unfinished tasks, and pinned records."""

    age: float | None = None  #: a record is dropped so many seconds after its task ended
    payload_age: float | None = None  #: arguments and result are dropped so many seconds after the task ended
    count: int | None = None  #: the most records; the oldest are dropped first
    bytes: int | None = None  #: the largest size of the database; the oldest records are dropped first
    #: the most bytes of large buffers (64 KiB and more) in SQLite; the oldest are dropped first, their records stay
    payload_bytes: int | None = 10 * GIB
    min_free: int = 64 * MIB  #: free bytes on the disk below which new tasks are refused
    interval: float = 10.0  #: seconds between two checks
    #: the first rule that matches a record replaces `age` and `payload_age`
    rules: tuple[RetentionRule, ...] = ()

    @property
    def drops(self) -> bool:
        """Whether these settings drop anything."""
        limits = (self.age, self.payload_age, self.count, self.bytes, self.payload_bytes)
        return any(value is not None for value in limits) or any(
            rule.age is not None or rule.payload_age is not None for rule in self.rules
        )


_UNITS: dict[str, dict[str, float]] = {
    "seconds": {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400},
    "bytes": {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 1 << 10, "mib": MIB, "gib": GIB,
              "tib": 1 << 40},
}  # fmt: skip


def amount(value: float | str, kind: str, name: str = "") -> float:
    """Seconds or bytes (`kind`) from a number or a text: "90", "12h", "30d"; "500MB", "2GiB".

    Raises
    ------
    ConfigError
        The value is neither, or is negative.
    """
    found = re.fullmatch(r"\s*([\d.]+(?:[eE]\d+)?)\s*([A-Za-z]*)\s*", str(value))
    unit = _UNITS[kind].get(found[2].lower()) if found else None
    try:
        if isinstance(value, bool) or found is None or unit is None:
            raise ValueError
        number = float(found[1]) * unit
        if math.isinf(number):  # "1e400"
            raise ValueError
        return number
    except ValueError:
        units = ", ".join(unit for unit in _UNITS[kind] if unit)
        raise ConfigError(f"{name or 'this'} is a number of {kind}, with or without {units}; got {value!r}") from None


_AMOUNTS = {"age": "seconds", "payload_age": "seconds", "interval": "seconds", "bytes": "bytes",
            "payload_bytes": "bytes", "min_free": "bytes"}  # fmt: skip


def retention_settings(given: Mapping[str, Any]) -> RetentionSettings:
    """Settings from a dict of numbers and texts: `{"age": "30d", "bytes": "10GB", "rules": [{"state": "failed"}]}`.

    Raises
    ------
    ConfigError
        A key or a value is not valid.
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
    if settings.interval <= 0 or any(
        v is not None and v < 0 for v in (settings.count, settings.bytes, settings.payload_bytes)
    ):
        raise ConfigError("retention: interval must be above 0; count, bytes and payload_bytes not below")
    return settings


def _amounts(given: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(given)
    for name, kind in _AMOUNTS.items():
        if made.get(name) is not None:
            number = amount(made[name], kind, f"retention: {name}")
            made[name] = number if kind == "seconds" else int(number)
    return made
