"""What `ipcluster start` does while the cluster runs, in the foreground or as a daemon.

It starts the cluster, prints what happens to it, and stops it on a signal. It does not start killed processes again:
`cluster/processes/controller_process.py` and `cluster/processes/engine_sets.py` do that.

A signal interrupts the start, which may take long. From then on it is noted, and ends the wait for something to happen:
an exception that comes at any place can be lost (in a finalizer), or leave a lock behind.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Self

from ..client import Client
from ..cluster.cluster import Cluster
from ..cluster.found_cluster import STACKS_SIGNAL, FoundCluster
from ..config import ConnectionInfo
from ..errors import ConnectionFileError, EngineroomError
from ..launchers.batch.job import BatchJob
from ..records.database_urls import file_of
from .base import FAILED, INTERRUPTED
from .text import is_terminal, paint, plural

Say = Callable[[str], None]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds between two looks at what other processes have written into the cluster file.
LOOK_SECONDS = 0.5


class Alarm:
    """Ends a wait of the main thread: a signal that has a handler rings it, or another thread."""

    def __enter__(self) -> Self:
        self._heard, self._rung = socket.socketpair()
        for end in (self._heard, self._rung):
            end.setblocking(False)
        signal.set_wakeup_fd(self._rung.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.set_wakeup_fd(-1)
        self._heard.close()
        self._rung.close()

    def ring(self) -> None:
        """Nothing happens if it is closed."""
        with contextlib.suppress(OSError):
            self._rung.send(b"\0")

    def wait(self, seconds: float) -> None:
        """Return after some seconds, or once it is rung; at once if it was rung since the last wait."""
        if select.select([self._heard], [], [], seconds)[0]:
            self._heard.recv(1024)


class Supervisor:
    """Starts a cluster, prints what happens to it, and stops it at the end."""

    def __init__(self, found: FoundCluster, cluster: Cluster, *, daemon: bool) -> None:
        self.found, self.files = found, found.files
        self.cluster = cluster
        self.daemon = daemon
        self._exit_codes: dict[str, int] = {}
        #: whether a signal interrupts what is being done
        self._is_starting = True
        self._is_told_to_stop = False

    def run(self, say: Say, ready: Callable[[], None] = lambda: None) -> int:
        """Start the cluster, watch it, stop it. `ready` is called when the engines are ready. Returns the exit code."""
        with Alarm() as alarm:
            try:
                for number in SIGNALS:
                    signal.signal(number, self._on_signal)
                self._write_pid()
                self._start(say)
                self._is_starting = False
                ready()
                code = self._look_after(say, alarm)
                return self._stop(say) if code is None else code
            except KeyboardInterrupt:
                return self._stop(say)
            finally:
                _ignore_signals()
                self.cluster.stop_cluster_sync()
                self.files.pid_file.unlink(missing_ok=True)

    def _on_signal(self, number: int, frame: object) -> None:
        self._is_told_to_stop = True
        if self._is_starting:
            self._is_starting = False
            raise KeyboardInterrupt

    def _write_pid(self) -> None:
        path = self.files.pid_file
        try:
            path.write_text(str(os.getpid()))
        except OSError as error:
            raise EngineroomError(f"cannot write {path}: {error.strerror}") from error

    def _start(self, say: Say) -> None:
        cluster, began = self.cluster, time.monotonic()
        wanted = cluster.engines_wanted
        say(f"Starting a controller and {plural(wanted, 'engine')} for profile {self.files.profile} …")
        cluster.start_cluster_sync(wanted)
        try:
            info = cluster.connection
        except ConnectionFileError:
            words = cluster.controller.get_output().splitlines() if cluster.controller is not None else []
            raise EngineroomError(
                f"the controller ended at once. Its log ends: {words[-1] if words else '(it is empty)'}"
            ) from None
        launcher = cluster.controller
        where = f"pid {info.pid}"
        if isinstance(launcher, BatchJob):
            where = f"job {launcher.job_id}, on {info.location}"
        say(f"The controller is running ({where}). Tasks are recorded in {_database(info)}.")
        if wanted:
            with cluster.connect_client_sync() as client:
                self._wait_for_engines(client, wanted)
            for set_id in cluster.engines:
                self._watch(set_id)
        took = time.monotonic() - began
        say(paint(f"{plural(wanted, 'engine')} ready", "green") + f" after {took:.1f} s. Connect with")
        say("")
        say(paint(f"    rc = engineroom.Client({self.files.client_arguments()})", "bold"))
        say("")
        if wanted == 0:
            say(f"Start engines with `ipengine --file={self.files.connection_files[1]}`.")
        if self.daemon:
            log = self.files.log_of("ipcluster")
            say(f"`ipcluster stop{self.files.options()}` stops the cluster; its log: {log}")
        else:
            say("Ctrl-C stops the cluster.")

    def _wait_for_engines(self, client: Client, wanted: int) -> None:
        shows = is_terminal(sys.stdout) and not self.daemon

        def tell(count: int) -> None:
            if shows:
                print(f"\r{count} of {plural(wanted, 'engine')} …\x1b[K", end="\r", flush=True)

        try:
            self.cluster.wait_for_engines_sync(client, wanted, tell)
        finally:
            if shows:
                print("\r\x1b[K", end="", flush=True)

    def _watch(self, set_id: str) -> None:
        self.cluster.engines[set_id].on_stop(lambda code: self._exit_codes.__setitem__(set_id, code))

    # ------------------------------------------------------------------------------------------ while it runs

    def _look_after(self, say: Say, alarm: Alarm) -> int | None:
        """Watch the cluster until another process stops it, or the controller cannot be started again.

        Returns the exit code; None: a signal has come.
        """
        cluster, watched = self.cluster, None
        while True:
            controller = cluster.controller
            if controller is None:
                return FAILED
            if controller is not watched:
                controller.on_stop(lambda code: alarm.ring())
                watched = controller
            alarm.wait(LOOK_SECONDS)
            if self._is_told_to_stop:
                return None
            if controller.join(0):
                if not self._is_back(controller):
                    return self._ended(say)
                new = cluster.controller
                say(
                    f"The controller (pid {controller.pid}) was killed, and is started again "
                    f"(pid {new.pid if new else '?'}): engines and clients reconnect."
                )
                continue
            for set_id in cluster.update_from_file():
                say(f"Engine set {set_id} was added.")
                self._watch(set_id)
            self._look_after_engines(say)

    def _is_back(self, ended: Any) -> bool:
        """Whether the cluster has started another controller. It does so in a thread of its own."""
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            if self.cluster.controller is not ended:
                return True
            if not self.files.connection_files[0].exists():
                return False
            time.sleep(0.02)
        return False

    def _ended(self, say: Say) -> int:
        controller = self.cluster.controller
        if not self.files.connection_files[0].exists():
            lines = controller.get_output().splitlines() if isinstance(controller, BatchJob) else []
            told = [line for line in lines if "the cluster is stopped: " in line]  # before its walltime ended
            say("The cluster was stopped." + (f" The log of its controller says: {told[-1]}" if told else ""))
            return 0
        if isinstance(controller, BatchJob):
            why = controller.explain() or f"job {controller.job_id} has ended"
            say(f"The controller has ended, and is not started again. {why}")
            return FAILED
        words = controller.get_output().splitlines() if controller else []
        say(
            "The controller died five times soon after its start, and is not started again. "
            + (f"Its log ends: {words[-1]}" if words else "")
        )
        return FAILED

    def _look_after_engines(self, say: Say) -> None:
        cluster = self.cluster
        for set_id in [set_id for set_id in cluster.engines if set_id in self._exit_codes]:
            code = self._exit_codes.pop(set_id)
            if cluster.engines[set_id].running:  # the cluster has started it again
                say(f"The nanny of engine set {set_id} ended (exit code {code}): its engines are started again.")
                self._watch(set_id)
                continue
            cluster.stop_engines_sync(set_id)
            say(f"The engines of set {set_id} have left (exit code {code}).")

    # ------------------------------------------------------------------------------------------ the end

    def _stop(self, say: Say) -> int:
        _ignore_signals()
        if self.cluster.controller is None:
            say("Interrupted; nothing is left running.")
            return INTERRUPTED
        say("")
        left = what_a_stop_ends(self.found)
        say("Stopping …" + (f" {left}" if left else ""))
        database = self.cluster.connection.database if self.files.connection_files[0].exists() else ""
        self.cluster.stop_cluster_sync()
        if lost := what_a_stop_lost(self.found):
            say(f"ipcluster: {lost}")
        is_kept = file_of(database) is not None
        say("Stopped." + (f" `engineroom tasks{self.files.options()}` shows what was run." if is_kept else ""))
        return 0


def what_a_stop_ends(found: FoundCluster) -> str:
    """Which tasks a stop ends now, as a sentence; "" if there are none, or the controller does not answer."""
    tasks = found.activity(before_stop=True)
    if tasks is None or not tasks.unfinished:
        return ""
    return (
        f"{plural(tasks.unfinished, 'task')} had not finished ({tasks.held:,} at engines, {tasks.waiting:,} waiting): "
        "recorded as aborted."
    )


def what_a_stop_lost(found: FoundCluster) -> str:
    """How many records of tasks are missing since a stop, as a sentence; "" if all are there."""
    unwritten = found.unwritten()
    if not unwritten:
        return ""
    log = found.files.log_of("ipcontroller")
    return f"{plural(unwritten, 'record')} of tasks could not be written before the end. {log} says why."


def _ignore_signals() -> None:
    """Ignore signals while the cluster stops: processes that do not end by themselves are killed anyway."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def in_background(supervisor: Supervisor, say: Say) -> int:
    """Run the supervisor as a daemon; returns its exit code if it fails, or 0 when the engines are ready."""
    sys.stdout.flush()
    receiving, sending = os.pipe()
    child = os.fork()  # no thread has been started yet
    if child == 0:
        os.close(receiving)
        try:
            os._exit(_daemon(supervisor, sending))
        finally:
            os._exit(FAILED)
    os.close(sending)
    code: int | None = None
    try:
        with os.fdopen(receiving, encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("\0"):
                    code = int(line[1:])
                    break
                say(line.rstrip("\n"))
    except KeyboardInterrupt:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        say("Interrupted; nothing is left running.")
        return INTERRUPTED
    if code is None:
        print(f"ipcluster: the cluster did not start. See {supervisor.files.log_of('ipcluster')}", file=sys.stderr)
        code = FAILED
    if code != 0:
        os.waitpid(child, 0)
    return code


def _daemon(supervisor: Supervisor, sending: int) -> int:
    """In the child: leave the terminal; print to the parent until the engines are ready, and then only to the log."""
    os.setsid()
    path = supervisor.files.log_of("ipcluster")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.register(STACKS_SIGNAL, file=2)
    parent: list[Any] = [os.fdopen(sending, "w", encoding="utf-8")]

    def say(line: str) -> None:
        with contextlib.suppress(OSError):
            for terminal in parent:
                print(line, file=terminal, flush=True)
        if line:
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", flush=True)

    def report(code: int) -> None:
        with contextlib.suppress(OSError):
            for terminal in parent:
                terminal.write(f"\0{code}\n")
                terminal.close()
        parent.clear()

    try:
        code = supervisor.run(say, lambda: report(0))
    except (EngineroomError, RuntimeError, TimeoutError, OSError) as error:
        say(f"ipcluster: {' '.join(str(error).split())}")
        code = FAILED
    report(code)
    return code


def _database(info: ConnectionInfo) -> str:
    words = {"memory": "memory only", "none": "no database"}
    return words.get(info.database) or str(file_of(info.database) or info.database)
