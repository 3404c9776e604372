"""Engines on the workers of a Dask cluster: each nanny is the child of a task that runs as long as its engines do.

    launcher ── distributed.Client ──▶ scheduler ──▶ worker: `run_nanny`, a task ──▶ nanny ──▶ engines

The connection file travels as the task's argument, and reaches the nanny through its stdin. Dask decides which workers
the tasks get, with the resources that they ask for.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from ..config import read_connection_file
from ..errors import ConfigError, LaunchError
from ..ids import new_uuid
from ..printable import one_line
from .base import STOP_SECONDS, Launcher, LauncherFacts, LaunchRequest, call_at_last_end, last_line
from .guest import end_of_output, request_of_another, shares, start_nanny, wait_until

#: Seconds between two looks of a task at whether it is to end.
LOOK_SECONDS = 0.2
#: Seconds to reach the scheduler.
CONNECT_SECONDS = 10.0


class DaskOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which Dask cluster, and what each task asks of it."""

    address: str = ""  #: of the scheduler: "tcp://10.0.0.1:8786"; or name its file with `scheduler_file`
    scheduler_file: str = ""  #: as `dask scheduler --scheduler-file` writes it
    engines_per_job: int = 1  #: engines of one task, which takes one thread of a worker
    dask_resources: dict[str, float] = {}  #: what each task asks of Dask: {"GPU": 1}
    environment: dict[str, str] = {}  #: what is added to the environment of the engines


def run_nanny(command: Sequence[str], environment: Mapping[str, str], connection: bytes, stop: str) -> tuple[int, str]:
    """Run a nanny on a worker until it ends, or until the event `stop` is set: a task of Dask.

    Returns its exit code and the end of its output.
    """
    from distributed import Event

    event = Event(stop)
    with tempfile.TemporaryFile() as output:
        nanny = start_nanny(command, environment, connection, output)
        assert nanny.stdin is not None
        while nanny.poll() is None and not event.wait(timeout=LOOK_SECONDS):
            pass
        with contextlib.suppress(OSError):
            nanny.stdin.close()  # the nanny ends with its stdin
        try:
            nanny.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            nanny.kill()
        return nanny.wait(), end_of_output(output)


class DaskEngines(LauncherFacts):
    """Engines on the workers of a Dask cluster."""

    Options: ClassVar[type[msgspec.Struct]] = DaskOptions
    sections: ClassVar[tuple[str, ...]] = ("DaskLauncher",)
    former_names: ClassVar[Mapping[str, str]] = {}
    reaches_hosts: ClassVar[bool] = True
    restarts: ClassVar[bool] = False
    needs_connection_file: ClassVar[bool] = True

    def __init__(self, request: LaunchRequest, options: DaskOptions) -> None:
        if bool(options.address) == bool(options.scheduler_file):
            raise ConfigError("the launcher dask needs one of the options address and scheduler_file")
        if options.engines_per_job < 1:
            raise ConfigError(f"engines_per_job is a number, 1 or more; got {options.engines_per_job}")
        self._request, self._options = request, options
        self._counts = shares(request.n, options.engines_per_job)
        self._stop_event = f"engineroom-{request.set_id}-{new_uuid()[:8]}"
        self._client: Any = None
        self._end_loop: Callable[[], None] = lambda: None
        self._futures: list[Any] = []
        self._stopped = False

    @classmethod
    def default_n(cls, options: DaskOptions) -> int | None:
        """None: as many as this host has cores."""
        return None

    def _command(self, count: int) -> list[str]:
        """Without the Python: that is the worker's."""
        return [*self._request.command[1:], f"--n={count}", "--file=-"]

    def preview(self) -> str:
        """What each task runs."""
        return "".join(f"python {' '.join(self._command(count))}\n" for count in self._counts)

    def start(self) -> None:
        """Submit the tasks.

        Raises
        ------
        ConfigError
            `distributed` is not installed here.
        LaunchError
            The scheduler does not answer.
        """
        try:
            import distributed
        except ImportError as error:
            raise ConfigError(f"the launcher dask needs distributed: pip install distributed ({error})") from None
        options = self._options
        where = {"address": options.address} if options.address else {"scheduler_file": options.scheduler_file}
        loop, self._end_loop = _running_loop()
        try:
            self._client = distributed.Client(**where, timeout=CONNECT_SECONDS, set_as_default=False, loop=loop)
        except (OSError, TimeoutError, ValueError) as error:
            self._end_loop()
            raise LaunchError(f"Dask's scheduler at {next(iter(where.values()))} does not answer: {error}") from None
        line = msgspec.json.encode(read_connection_file(self._request.connection_file))
        environment = {**self._request.environment, **options.environment}
        self._futures = [
            self._client.submit(
                run_nanny,
                *(self._command(count), environment, line, self._stop_event),
                pure=False,
                resources=options.dask_resources or None,
            )
            for count in self._counts
        ]

    @property
    def running(self) -> bool:
        return any(not future.done() for future in self._futures)

    @property
    def expected(self) -> int:
        return sum(
            count for count, future in zip(self._counts, self._futures, strict=False) if not future.done()
        )

    @property
    def state(self) -> str:
        """ "before" its start, "running", or "after" its end."""
        return "running" if self.running else "after" if self._futures else "before"

    @property
    def waiting(self) -> int:
        return 0

    @property
    def pid(self) -> int | None:
        return None

    def stop(self) -> None:
        """End the engines, and withdraw the tasks that have not begun."""
        if self._client is None or self._stopped:
            return
        self._stopped = True
        from distributed import Event

        # The scheduler may be gone, with its workers: nannies end without their controller.
        with contextlib.suppress(OSError, TimeoutError):
            Event(self._stop_event, client=self._client).set()
            running = {key for keys in self._client.processing().values() for key in keys}
            begun = [future for future in self._futures if future.key in running]
            self._client.cancel([future for future in self._futures if future.key not in running and not future.done()])
            _wait_for(begun, STOP_SECONDS)
        self._client.close()
        self._end_loop()

    def signal(self, number: int | str) -> None:
        raise ConfigError("signals do not pass through Dask: use cluster.signal_engines_sync or client.send_signal")

    def join(self, timeout: float | None = None) -> bool:
        return _wait_for(self._futures, timeout)

    def on_stop(self, callback: Callable[[int], None]) -> None:
        one_ended = call_at_last_end(len(self._futures), callback)
        for future in self._futures:
            future.add_done_callback(lambda future: one_ended(0))

    def _ended(self) -> list[tuple[int, str]]:
        ended = []
        for future in self._futures:
            if future.status == "finished":
                ended.append(future.result())
            elif future.status in ("error", "lost", "cancelled"):
                why = str(future.exception()) if future.status == "error" else f"its task is {future.status}"
                ended.append((1, why))
        return ended

    def get_output(self, remove: bool = False) -> str:
        return "".join(output for _, output in self._ended())

    def explain(self) -> str:
        if self._client is None or self._stopped:
            return ""
        told = [f"exit code {code}: {one_line(last_line(output))}" for code, output in self._ended()]
        waiting = [future for future in self._futures if future.status == "pending"]
        if waiting and not self._client.scheduler_info()["workers"]:
            told.append(f"{len(waiting)} tasks are pending: Dask has no workers")
        return f"Dask: {'; '.join(told)}" if told else ""

    def to_dict(self) -> dict[str, Any]:
        address = self._options.address or self._options.scheduler_file
        return {"class": "dask", "pid": None, "address": address, "log_file": str(self._request.log_file)}

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Launcher:
        """The tasks that another process submitted."""
        return cls(request_of_another(described), DaskOptions(address=described["address"]))


def _running_loop() -> tuple[Any, Callable[[], None]]:
    """Tornado's loop in a thread of its own, and what ends it. A client that makes its own leaves it when it fails."""
    from tornado.ioloop import IOLoop

    loop, runs = IOLoop(make_current=False), threading.Event()
    loop.add_callback(runs.set)
    thread = threading.Thread(target=loop.start, name="dask", daemon=True)
    thread.start()
    runs.wait()

    def end() -> None:
        loop.add_callback(loop.stop)
        thread.join()
        loop.close()

    return loop, end


def _wait_for(futures: Sequence[Any], timeout: float | None) -> bool:
    """Wait for tasks of Dask, as often as needed: `distributed.wait` knows the default client alone."""
    return wait_until(lambda: all(future.done() for future in futures), timeout)
