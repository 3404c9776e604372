"""Processes of this host that this one starts: the controller, and nannies with engines (`LocalEngines`)."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from ..errors import ConfigError, LaunchError
from ..messages import signal_number
from .base import STOP_SECONDS, Launcher, LauncherFacts, LaunchRequest, end_of, last_line, spelled
from .found import FoundProcess

_all: weakref.WeakSet[LocalProcess] = weakref.WeakSet()


class LocalProcess(LauncherFacts):
    """A process that this one starts.

    Parameters
    ----------
    args : sequence of str
        The command and its arguments.
    log_file : Path
        The file that its output is added to.
    environment : dict
        Variables that are added to the environment of this process.
    lifeline : bool
        Give it a pipe from this process as stdin. The pipe closes when this process ends, even by SIGKILL, and then
        the child ends, too.
    """

    def __init__(
        self,
        args: Sequence[str],
        log_file: Path,
        *,
        environment: Mapping[str, str] | None = None,
        lifeline: bool = False,
    ) -> None:
        self._args = list(args)
        self.log_file = log_file
        self._environment = dict(environment or {})
        self._lifeline = lifeline
        self._process: subprocess.Popen[bytes] | None = None
        self._callbacks: list[Callable[[int], None]] = []
        #: the exit code, once callbacks are called with it
        self._told: int | None = None
        self._telling = threading.Lock()
        self._waiter: threading.Thread | None = None
        _all.add(self)

    def forked(self) -> None:
        """This is a process that was forked from ours: the child is not its own, and the lifeline is not either."""
        process, self._process = self._process, None
        self._parents = process  # kept: a Popen that is forgotten complains
        if process is not None and process.stdin is not None:
            process.stdin.close()

    @property
    def environment(self) -> dict[str, str]:
        """What is added to the environment of this process."""
        return dict(self._environment)

    def find_args(self) -> list[str]:
        """The command that it starts, as a list of words."""
        return list(self._args)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def expected(self) -> int:
        """How many engines are there, or can still come."""
        return 0

    @property
    def waiting(self) -> int:
        return 0

    @property
    def exit_code(self) -> int | None:
        """Its exit code (negative: the signal that killed it), once it has ended."""
        return self._process.poll() if self._process is not None else None

    @property
    def state(self) -> str:
        """ "before" its start, "running", or "after" its end."""
        if self._process is None:
            return "before"
        return "running" if self.running else "after"

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C in this terminal does not reach it."""
        if self.running:
            raise ConfigError(f"this process is running already (pid {self.pid}): {' '.join(self.args)}")
        self._told = None
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **self._environment}
        try:
            with self.log_file.open("ab") as log:
                self._process = subprocess.Popen(
                    self._args,
                    stdin=subprocess.PIPE if self._lifeline else subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
            raise LaunchError(_too_long(self._args, environment)) from None
        if self._callbacks:
            self._watch()

    def write_stdin(self, data: bytes) -> None:
        """Write to its stdin, which is open if it has a lifeline. Nothing happens if it has ended."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(data)
                self._process.stdin.flush()

    def close_stdin(self) -> None:
        """End its lifeline."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def stop(self) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGCONT)  # somebody may have suspended it
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdin is not None:
            self.close_stdin()
        if self._waiter is not None and self._waiter is not threading.current_thread():
            self._waiter.join()

    def signal(self, number: int | str) -> None:
        if self.running:
            assert self._process is not None
            self._process.send_signal(signal_number(number))

    def join(self, timeout: float | None = None) -> bool:
        if self._process is None:
            return True
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def on_stop(self, callback: Callable[[int], None]) -> None:
        with self._telling:
            told = self._told
            if told is None:
                self._callbacks.append(callback)
        if told is not None:
            callback(told)
        elif self._process is not None and self._waiter is None:
            self._watch()

    def _watch(self) -> None:
        process = self._process
        assert process is not None

        def wait() -> None:
            code = process.wait()
            self.close_stdin()
            with self._telling:
                self._told = code
            for callback in self._callbacks:
                callback(code)

        self._waiter = threading.Thread(target=wait, name="launcher", daemon=True)
        self._waiter.start()

    def get_output(self, remove: bool = False) -> str:
        """The last 4 kB of its log, which is removed then, if that is wanted."""
        return end_of(self.log_file, remove)

    def explain(self) -> str:
        """How it has ended; "" while it runs."""
        if self._process is None or self.running:
            return ""
        words = last_line(self.get_output())
        about = f" Its log {self.log_file} ends: {words}" if words else ""
        return f"it ended with exit code {self.exit_code}.{about}"

    def to_dict(self) -> dict[str, Any]:
        return {"class": "local", "pid": self.pid, "log_file": str(self.log_file), "args": self.args}


def _too_long(args: Sequence[str], environment: Mapping[str, str]) -> str:
    """Which argument or variable of a process the system does not take, probably."""
    words = [(len(word), f"the argument {word[:40]!r}…") for word in args]
    words += [(len(name) + len(value), f"the variable {name}") for name, value in environment.items()]
    longest, which = max(words)
    total = sum(length for length, _ in words)
    return (
        f"the system takes no process with arguments and variables of {total:,} bytes (on Linux some 128 kB each, and "
        f"2 MB in all); the longest is {which}, {longest:,} bytes. Make it shorter (sys.path goes to engines, too)"
    )


class NoOptions(msgspec.Struct, frozen=True):
    """Nothing can be chosen."""


class LocalEngines(LocalProcess):
    """A nanny with engines on this host."""

    Options: ClassVar[type[msgspec.Struct]] = NoOptions
    sections: ClassVar[tuple[str, ...]] = ("LocalLauncher", "LocalEngineSetLauncher")
    former_names: ClassVar[Mapping[str, str]] = {}
    reaches_hosts: ClassVar[bool] = False
    restarts: ClassVar[bool] = True
    needs_connection_file: ClassVar[bool] = False
    #: whether the nanny has the stdin of the process that is started
    passes_stdin: ClassVar[bool] = True

    def __init__(self, request: LaunchRequest, options: Any) -> None:
        self._request = request
        args = self._command_line(request, options)
        self._shown = spelled(args, request.environment)
        lifeline = request.ends_with_us and self.passes_stdin
        more = ["--lifeline"] if lifeline else []
        super().__init__([*args, *more], request.log_file, environment=request.environment, lifeline=lifeline)

    @staticmethod
    def _command_line(request: LaunchRequest, options: Any) -> list[str]:
        """The command that is started."""
        return request.local_command(request.n)

    @classmethod
    def default_n(cls, options: Any) -> int | None:
        """None: as many as this host has cores."""
        return None

    @property
    def expected(self) -> int:
        """How many engines are there, or can still come."""
        return self.n if self.running else 0

    def preview(self) -> str:
        """The command line."""
        return self._shown + "\n"

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Launcher:
        """The nanny that another process started."""
        count = int(described.get("n", 0))
        return FoundProcess(described["pid"], "engineroom.engine", Path(described["log_file"]), count)


def _in_child() -> None:
    for process in list(_all):
        process.forked()


os.register_at_fork(after_in_child=_in_child)
