"""Engines in a Ray cluster: each nanny is the child of an actor that lives as long as its engines do.

    launcher ── ray.init ──▶ Ray ──▶ worker: `Room`, an actor ──▶ nanny ──▶ engines

The connection file travels as an argument, and reaches the nanny through its stdin. Ray decides where the actors live,
with the resources that they ask for. An actor ends with the process that made it: so Ray keeps nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar

import msgspec

from ..config import read_connection_file
from ..errors import ConfigError, LaunchError
from ..printable import one_line
from .base import STOP_SECONDS, Launcher, LauncherFacts, LaunchRequest, call_at_last_end, last_line
from .guest import end_of_output, request_of_another, shares, start_nanny, wait_until

#: Seconds to reach Ray. Its own library tries for minutes.
CONNECT_SECONDS = 5.0
#: Calls of an actor at a time: `run`, and one that asks or stops.
CONCURRENCY = 3


class RayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which Ray, and what each actor asks of it."""

    address: str = ""  #: "10.0.0.1:6379", or "ray://10.0.0.1:10001" from a host outside; "": the Ray of this host
    engines_per_job: int = 1  #: engines of one actor
    num_cpus: float | None = None  #: CPUs that each actor asks for; None: one for each of its engines
    num_gpus: int = 0  #: GPUs that each actor asks for. Its engines share them as the resource "gpu"
    ray_resources: dict[str, float] = {}  #: what else each actor asks for, by Ray's names: {"ROOM": 1}
    environment: dict[str, str] = {}  #: what is added to the environment of the engines

    def check(self) -> None:
        """Raises ConfigError if a value cannot be used."""
        if self.engines_per_job < 1:
            raise ConfigError(f"engines_per_job is a number, 1 or more; got {self.engines_per_job}")
        if self.num_gpus < 0 or (self.num_cpus is not None and self.num_cpus < 0):
            raise ConfigError(f"num_cpus and num_gpus are 0 or more; got {self.num_cpus} and {self.num_gpus}")
        for name, amount in self.ray_resources.items():
            if name in ("CPU", "GPU") or not amount > 0:
                raise ConfigError(
                    f"ray_resources: {name!r}: {amount:g} cannot be asked for. Amounts are above 0; CPUs and GPUs are "
                    "the options num_cpus and num_gpus"
                )

    def wishes(self, count: int) -> dict[str, float]:
        """What an actor with so many engines asks for, by Ray's names."""
        cpus = float(count) if self.num_cpus is None else self.num_cpus
        asked = {"CPU": cpus, "GPU": float(self.num_gpus), **self.ray_resources}
        return {name: amount for name, amount in asked.items() if amount}


class Room:
    """An actor: a place for a nanny, on a worker of Ray. Each method may run beside another one."""

    def __init__(self) -> None:
        self._is_to_end = threading.Event()
        self._nanny: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def run(self, command: Sequence[str], environment: Mapping[str, str], connection: bytes) -> tuple[int, str]:
        """Run a nanny until it ends. Returns its exit code and the end of its output."""
        with tempfile.TemporaryFile() as output:
            with self._lock:
                if self._is_to_end.is_set():
                    return 0, ""
                nanny = self._nanny = start_nanny(command, environment, connection, output)
            return nanny.wait(), end_of_output(output)

    def is_here(self) -> bool:
        """Answers when Ray has made the actor."""
        return True

    def stop(self) -> None:
        """End the nanny: it ends with its stdin."""
        with self._lock:
            self._is_to_end.set()
            if self._nanny is not None and self._nanny.stdin is not None:
                with contextlib.suppress(OSError):
                    self._nanny.stdin.close()


class _Actor:
    """What the launcher knows of one actor."""

    def __init__(self, count: int, handle: Any, here: Future[Any], ended: Future[Any]) -> None:
        self.count, self.handle = count, handle
        self.here, self.ended = here, ended

    @property
    def is_waiting(self) -> bool:
        """Whether Ray has no room for it yet."""
        return not self.here.done() and not self.ended.done()

    @property
    def end(self) -> tuple[int, str] | None:
        """Exit code and output of its nanny; None: it has not ended."""
        if not self.ended.done():
            return None
        error = self.ended.exception()
        return self.ended.result() if error is None else (1, f"Ray has lost the actor: {_first_line(error)}")


class RayEngines(LauncherFacts):
    """Engines in actors of a Ray cluster."""

    Options: ClassVar[type[msgspec.Struct]] = RayOptions
    sections: ClassVar[tuple[str, ...]] = ("RayLauncher",)
    former_names: ClassVar[Mapping[str, str]] = {}
    reaches_hosts: ClassVar[bool] = True
    restarts: ClassVar[bool] = False
    needs_connection_file: ClassVar[bool] = True

    def __init__(self, request: LaunchRequest, options: RayOptions) -> None:
        options.check()
        self._request, self._options = request, options
        self._counts = shares(request.n, options.engines_per_job)
        self._actors: list[_Actor] = []
        self._leave: Callable[[], None] | None = None

    @classmethod
    def default_n(cls, options: RayOptions) -> int | None:
        """None: as many as this host has cores."""
        return None

    def _command(self, count: int) -> list[str]:
        """Without the Python: that is the worker's."""
        command = [*self._request.command[1:], f"--n={count}", "--file=-"]
        if self._options.num_gpus and not any(word.startswith("--resources=") for word in command):
            command.append(f"--resources=gpu={self._options.num_gpus}")
        return command

    def preview(self) -> str:
        """What each actor asks for, and runs."""
        lines = [f"# asks Ray for {_shown(self._options.wishes(count))}\npython {' '.join(self._command(count))}\n"
                 for count in self._counts]  # fmt: skip
        return "".join(lines)

    def start(self) -> None:
        """Have Ray make the actors. They come as there is room for them.

        Raises
        ------
        ConfigError
            `ray` is not installed here.
        LaunchError
            Ray does not answer.
        """
        self._leave = _sessions.enter(self._options.address)
        import ray

        line = msgspec.json.encode(read_connection_file(self._request.connection_file))
        environment = {**self._request.environment, **self._options.environment}
        for count in self._counts:
            wishes = self._options.wishes(count)
            made = ray.remote(
                num_cpus=wishes.pop("CPU", 0),
                num_gpus=wishes.pop("GPU", 0),
                resources=wishes,
                max_concurrency=CONCURRENCY,
            )(Room).remote()
            ended = made.run.remote(self._command(count), environment, line)
            self._actors.append(_Actor(count, made, made.is_here.remote().future(), ended.future()))

    @property
    def running(self) -> bool:
        return any(not actor.ended.done() for actor in self._actors)

    @property
    def expected(self) -> int:
        return sum(actor.count for actor in self._actors if not actor.ended.done())

    @property
    def state(self) -> str:
        """ "before" its start, "running", or "after" its end."""
        return "running" if self.running else "after" if self._actors else "before"

    @property
    def waiting(self) -> int:
        return sum(actor.count for actor in self._actors if actor.is_waiting)

    @property
    def pid(self) -> int | None:
        return None

    def stop(self) -> None:
        """End the engines, and the actors."""
        if self._leave is None:
            return
        leave, self._leave = self._leave, None
        import ray

        with contextlib.suppress(ray.exceptions.RayError):  # Ray may be gone, with its workers
            begun = [actor for actor in self._actors if not actor.is_waiting]
            for actor in begun:
                if not actor.ended.done():
                    actor.handle.stop.remote()
            _wait_for(begun, STOP_SECONDS)
            for actor in self._actors:
                ray.kill(actor.handle)
        leave()

    def signal(self, number: int | str) -> None:
        raise ConfigError("signals do not pass through Ray: use cluster.signal_engines_sync or client.send_signal")

    def join(self, timeout: float | None = None) -> bool:
        return _wait_for(self._actors, timeout)

    def on_stop(self, callback: Callable[[int], None]) -> None:
        one_ended = call_at_last_end(len(self._actors), callback)
        for actor in self._actors:
            actor.ended.add_done_callback(lambda _, actor=actor: one_ended((actor.end or (0, ""))[0]))  # type: ignore[misc]

    def get_output(self, remove: bool = False) -> str:
        return "".join(actor.end[1] for actor in self._actors if actor.end is not None)

    def explain(self) -> str:
        """How nannies have ended, and what actors wait for."""
        if self._leave is None:
            return ""
        ended = [actor.end for actor in self._actors if actor.end is not None]
        told = [f"exit code {code}: {one_line(last_line(output))}" for code, output in ended]
        waiting = [actor for actor in self._actors if actor.is_waiting]
        if waiting:
            wishes = _shown(self._options.wishes(waiting[0].count))
            told.append(f"{len(waiting)} of {len(self._actors)} actors are pending: each asks for {wishes}{_free()}")
        return f"Ray: {'; '.join(told)}" if told else ""

    def to_dict(self) -> dict[str, Any]:
        return {"class": "ray", "pid": None, "address": self._options.address, "log_file": str(self._request.log_file)}

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Launcher:
        """The actors that another process had made."""
        return cls(request_of_another(described), RayOptions(address=described["address"]))


class _Sessions:
    """The connection of this process with Ray. A process has one, and the user's own code may have made it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: launchers that use the connection that this module has made
        self._users = 0

    def enter(self, address: str) -> Callable[[], None]:
        """Connect, unless this process is connected. Returns what ends that: the last launcher's call disconnects.

        Raises
        ------
        ConfigError
            `ray` is not installed here, or not all that it needs.
        LaunchError
            Ray does not answer.
        """
        try:
            import ray
        except ImportError as error:
            raise ConfigError(f"the launcher ray needs Ray: pip install ray ({error})") from None
        with self._lock:
            if ray.is_initialized() and not self._users:
                return lambda: None  # the user's own
            if not self._users:
                self._connect(ray, address)
            self._users += 1
        return self._exit

    def _connect(self, ray: Any, address: str) -> None:
        where = address or os.environ.get("RAY_ADDRESS") or "auto"
        _require_answer(where)
        in_main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=where, log_to_driver=False, logging_level="ERROR")
        except ConnectionError as error:
            raise LaunchError(f"Ray at {where} does not answer: {_first_line(error)}") from None
        except ValueError as error:
            raise ConfigError(f"Ray at {where}: {_first_line(error)}") from None
        finally:
            if in_main:  # Ray has one of its own, and would end this process without what it has to do at its end
                signal.signal(signal.SIGTERM, handler)

    def _exit(self) -> None:
        import ray

        with self._lock:
            self._users -= 1
            if self._users == 0:
                ray.shutdown()


_sessions = _Sessions()


def _require_answer(where: str) -> None:
    """Raises LaunchError if nothing listens at the address of a Ray."""
    host, colon, port = where.removeprefix("ray://").rpartition(":")
    if where == "auto" or where == "local":
        return
    try:
        if not colon:
            raise ValueError
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (ValueError, OverflowError):
        raise ConfigError(f"the address of a Ray is HOST:PORT or ray://HOST:PORT; got {where!r}") from None
    except OSError as error:
        raise LaunchError(f"Ray at {where} does not answer: {error.strerror or error}") from None


def _free() -> str:
    """What Ray has free, as the end of a sentence; "" if it does not say."""
    import ray

    with contextlib.suppress(ray.exceptions.RayError, ConnectionError):
        found = {name: amount for name, amount in ray.available_resources().items() if ":" not in name}
        hidden = ("memory", "object_store_memory")
        return f"; free: {_shown({name: amount for name, amount in found.items() if name not in hidden}) or 'nothing'}"
    return ""


def _shown(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{name}={amount:g}" for name, amount in sorted(amounts.items()))


def _first_line(error: BaseException) -> str:
    return one_line(next((line for line in str(error).splitlines() if line.strip()), type(error).__name__))


def _wait_for(actors: Sequence[_Actor], timeout: float | None) -> bool:
    """Wait for the ends of nannies; returns whether all have ended."""
    return wait_until(lambda: all(actor.ended.done() for actor in actors), timeout)
