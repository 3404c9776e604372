"""What a cluster needs from the thing that starts its processes. A new kind of launcher has these methods.

A launcher of engines is a class with the methods of `EngineLauncher`. It is made from a `LaunchRequest`, which says
what to start, and from its options, which say how. `registry` finds the class by its name. Nothing is started here.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec

from ..errors import ConfigError

#: Seconds between SIGTERM and SIGKILL.
STOP_SECONDS = 8.0
#: Bytes of a log that `get_output` gives.
OUTPUT_BYTES = 4096


def words_of(given: list[str] | str) -> list[str]:
    """A command as its words; a text is split as a shell does.

    Raises
    ------
    ConfigError
        A quotation mark in the text is not closed.
    """
    try:
        return shlex.split(given) if isinstance(given, str) else list(given)
    except ValueError as error:
        raise ConfigError(f"this is no command: {given!r:.200}: {error}") from None


class LaunchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A set of engines that is to be started, or a controller that is to be a batch job."""

    #: how many engines
    n: int
    #: the command of a nanny, without the number of engines and without the connection file; of a controller, the whole
    command: list[str]
    #: what to add to its environment
    environment: dict[str, str]
    #: the connection file for engines. It may not exist yet: the controller writes it meanwhile
    connection_file: Path
    #: where the output of the engines goes. A launcher with several logs puts a number before the suffix
    log_file: Path
    #: names the set within its cluster
    set_id: str
    cluster_id: str = ""
    profile_dir: Path = Path()
    is_controller: bool = False
    #: whether they end with this process. Launchers that start them on other hosts need not heed it
    ends_with_us: bool = False

    def local_command(self, n: int) -> list[str]:
        """The command of a nanny with `n` engines that can read the connection file."""
        return [*self.command, f"--n={n}", f"--file={self.connection_file}"]


class Launcher(Protocol):
    """Starts and stops one process or one batch job: the controller, or a nanny with its engines."""

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended. A batch job that is pending counts as running."""

    @property
    def expected(self) -> int:
        """How many engines it has, or can still come: less than were asked for if some of its processes have ended."""

    @property
    def waiting(self) -> int:
        """How many of these wait in a batch system's queue."""

    @property
    def pid(self) -> int | None:
        """Its process on this host, if it has one."""

    def start(self) -> None:
        """Start it."""

    def stop(self) -> None:
        """Ask it to end; kill it if it has not ended after `STOP_SECONDS`. Returns when it has ended."""

    def signal(self, number: int | str) -> None:
        """Send it a signal, by number or name."""

    def join(self, timeout: float | None = None) -> bool:
        """Wait for its end; returns whether it has ended."""

    def on_stop(self, callback: Callable[[int], None]) -> None:
        """Call a function with the exit code when it ends, from a thread of the launcher."""

    def get_output(self, remove: bool = False) -> str:
        """The end of its log, which is removed then, if that is wanted."""

    def explain(self) -> str:
        """Why its processes are not there yet, or why they have ended; "" if there is nothing to say."""

    def to_dict(self) -> Mapping[str, Any]:
        """What another process needs to find it, as JSON-able values. "class" is the name of the launcher."""


class EngineLauncher(Launcher, Protocol):
    """A launcher of a set of engines, found by its name."""

    #: the type of its options: a Struct whose fields have defaults
    Options: ClassVar[type[msgspec.Struct]]
    #: sections of a configuration file that hold its options; the last one wins
    sections: ClassVar[tuple[str, ...]]
    #: names that ipyparallel has for its options: former name → name
    former_names: ClassVar[Mapping[str, str]]
    #: whether its engines may run on other hosts: then the controller listens on the network
    reaches_hosts: ClassVar[bool]
    #: whether the cluster starts the set again after it was killed
    restarts: ClassVar[bool]
    #: whether `start` reads the connection file: then the controller must be ready
    needs_connection_file: ClassVar[bool]

    def __init__(self, request: LaunchRequest, options: Any) -> None:
        """Nothing is started yet. Raises ConfigError if the options cannot be used."""

    def preview(self) -> str:
        """The script or the command lines that `start` would run, for `--dry-run`."""

    @classmethod
    def default_n(cls, options: Any) -> int | None:
        """How many engines there are if nobody says so; None: as many as this host has cores."""

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Launcher:
        """The launcher that another process started, from its `to_dict`."""


class LauncherFacts:
    """What programs written for ipyparallel read of a launcher, by their names."""

    #: what was started; a controller's has only what the cluster tells it, by `belongs_to`
    _request: LaunchRequest = LaunchRequest(
        n=1, command=[], environment={}, connection_file=Path(), log_file=Path(), set_id=""
    )
    #: seconds from SIGTERM to SIGKILL
    stop_timeout = STOP_SECONDS
    #: bytes of its log that `get_output` gives
    output_limit = OUTPUT_BYTES

    def belongs_to(self, profile_dir: Path, cluster_id: str, n: int = 1) -> None:
        """Tell it which cluster it is of, and how many engines it has."""
        self._request = msgspec.structs.replace(self._request, profile_dir=profile_dir, cluster_id=cluster_id, n=n)

    @property
    def n(self) -> int:
        """How many engines; 1 for a controller."""
        return self._request.n

    @property
    def cluster_id(self) -> str:
        """The id of the cluster."""
        return self._request.cluster_id

    @property
    def profile_dir(self) -> str:
        """The folder of the profile."""
        return str(self._request.profile_dir)

    @property
    def work_dir(self) -> str:
        """The folder in which this process works; what it starts on this host does, too."""
        return os.getcwd()

    @property
    def environment(self) -> dict[str, str]:
        """What is added to the environment of this process."""
        return dict(self._request.environment)

    def get_env(self) -> dict[str, str]:
        """The environment of what it starts, on this host."""
        return {**os.environ, **self.environment}

    def find_args(self) -> list[str]:
        """The command that it starts, as a list of words; of several nannies that of one with all engines."""
        return self._request.local_command(self.n) if self._request.command else []

    @property
    def args(self) -> list[str]:
        """`find_args()`."""
        return self.find_args()

    @property
    def arg_str(self) -> str:
        """The command, with spaces between its words."""
        return " ".join(self.args)


def call_at_last_end(count: int, callback: Callable[[int], None]) -> Callable[[int], None]:
    """What each of several processes calls at its end, with its exit code; the last one's call calls `callback`.

    The callback gets the last exit code that is not 0; else 0.
    """
    left, worst = count, 0
    lock = threading.Lock()

    def one_ended(code: int) -> None:
        nonlocal left, worst
        with lock:
            left, worst = left - 1, code or worst
            is_last = left == 0
        if is_last:
            callback(worst)

    return one_ended


def end_of(log_file: Path, remove: bool = False) -> str:
    """The last 4 kB of a log, which is removed then, if that is wanted; "" if it cannot be read."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, log_file.stat().st_size - OUTPUT_BYTES))
            found = file.read().decode(errors="replace")
        if remove:
            log_file.unlink(missing_ok=True)
    except OSError:
        return ""
    return found


def last_line(text: str) -> str:
    """The last line that is not blank; "" if there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def spelled(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    """A command line for a shell, with what is added to the environment before it."""
    added = [f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items()]
    return " ".join([*added, shlex.join(command)])
