"""The process engines are forked from: everything is imported, and there is no thread and no socket.

    nanny ──(a pipe: fork, signal)──▶ zygote ──fork──▶ engine, engine, …
          ◀─(forked, died)──────────         ◀─wait───

It reaps engines, and reads from the page it shares with each what the engine was doing; it kills those whose task
does not end when its time is up. When the nanny's end of the pipe closes, it kills them all and ends; when the zygote
ends, the kernel kills the engines.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ...config import MIB, ConnectionInfo, EngineSettings
from ...cores import out_of_memory_kills, usable_memory
from ...descriptors import MOST_OF_AN_ENGINE, raise_limit, wait_readable
from ...ids import EngineId, EngineUuid, NannyId, TaskId
from ...on_engine import random_streams
from ...on_engine.engine_properties import properties
from ...resources import GPU
from ..execution import devices, mpi
from ..execution.captured import CaptureFiles, capture
from ..execution.ending import LINK_CLOSED, run_exit_functions
from ..main import make_engine
from ..shared_page import SharedPage
from . import compute_threads, orphans
from .pipe import Pipe

_PR_SET_PDEATHSIG = 1

#: How often the zygote looks whether a task has overrun.
LOOK_SECONDS = 0.5
#: What exit codes of engines mean.
_REASONS = {LINK_CLOSED: "a task closed its file descriptors (os.closerange?), so it could not go on"}
#: How long an engine may take to stop (it does at once, unless it is deep in the kernel, and then it changes nothing).
STOP_SECONDS = 0.1


class Fork(msgspec.Struct, tag=True):
    """To the zygote: fork an engine."""

    uuid: EngineUuid
    #: the engine number to ask for; -1: any
    wish: EngineId
    #: its indices of each named resource
    shares: dict[str, list[int]]


class Signal(msgspec.Struct, tag=True):
    """To the zygote: signal an engine's process."""

    uuid: EngineUuid
    number: int


class End(msgspec.Struct, tag=True):
    """To the zygote: kill an engine that does not leave. One that has said goodbye may run its exit functions."""

    uuid: EngineUuid


class Kill(msgspec.Struct, tag=True):
    """To the zygote: kill an engine, if this is the task it is running."""

    uuid: EngineUuid
    task: TaskId


class Forked(msgspec.Struct, tag=True):
    """From the zygote: the engine's process."""

    uuid: EngineUuid
    pid: int


class Died(msgspec.Struct, tag=True):
    """From the zygote: an engine's process has ended."""

    uuid: EngineUuid
    #: negative: the signal that killed it
    exit_code: int
    peak_memory: int
    engine: EngineId
    #: the task that was running, or the last one if its result had not arrived
    running: TaskId | None
    #: it said goodbye first
    left: bool
    #: another is to be started in its place, though it has left
    restart: bool
    #: why the zygote killed it
    reason: str
    #: because its task had used up its run_timeout, and did not stop
    overran: bool
    #: tasks that run at most once, and had begun; None: too many to note
    begun: list[TaskId] | None
    #: the kernel killed it, as memory ran out
    out_of_memory: bool


ToZygote = Fork | Signal | End | Kill
FromZygote = Forked | Died


class Child:
    """An engine process."""

    __slots__ = ("files", "overran", "page", "pid", "reason", "uuid")

    def __init__(self, uuid: EngineUuid, pid: int, page: SharedPage, files: CaptureFiles) -> None:
        self.uuid, self.pid, self.page, self.files = uuid, pid, page, files
        self.reason, self.overran = "", False

    def kill_if(self, condition: Callable[[], bool], reason: str, *, overran: bool = False) -> None:
        """Kill it if this holds. It is stopped while we look, so that it is not killed for what it has just ended."""
        if not condition():
            return
        os.kill(self.pid, signal.SIGSTOP)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and not self._has_stopped():
            time.sleep(0.0005)
        if condition():
            self.reason, self.overran = reason, overran
            os.kill(self.pid, signal.SIGKILL)
        else:
            os.kill(self.pid, signal.SIGCONT)

    def _has_stopped(self) -> bool:
        """Whether it has stopped, or ended (who ends stays to be reaped)."""
        options = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, options) is not None


class Zygote:
    """Forks engines and reaps them."""

    def __init__(
        self, pipe: Pipe, nanny: NannyId, connection: ConnectionInfo, settings: EngineSettings, lender: str
    ) -> None:
        """`lender`: where the nanny lends large buffers to engines; "": nowhere."""
        self._pipe, self._lender = pipe, lender
        self._nanny, self._connection, self._settings = nanny, connection, settings
        self._children: dict[int, Child] = {}
        self._by_uuid: dict[EngineUuid, Child] = {}
        #: processes that the kernel had killed because memory ran out when we last looked
        self._memory_kills = out_of_memory_kills()

    def run(self) -> None:
        """Serve until the nanny's end of the pipe closes."""
        raise_limit(MOST_OF_AN_ENGINE)  # here two files for each engine; engines have the limit, too, for large buffers
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the nanny decides
        with contextlib.suppress(ConnectionError):  # the nanny has closed its end, perhaps while an engine was forked
            self._serve(wake_read)
        for pid in list(self._children):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        orphans.kill_all()

    def _serve(self, wake_read: int) -> None:
        while True:
            ready = wait_readable([self._pipe.fileno(), wake_read], LOOK_SECONDS)
            if wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
            self._reap()
            self._kill_overdue()
            if self._pipe.fileno() in ready:
                message = self._pipe.receive()
                if message is None:
                    return
                self._obey(message)

    def _obey(self, order: ToZygote) -> None:
        if isinstance(order, Fork):
            self._fork(order)
            return
        child = self._by_uuid.get(order.uuid)
        if child is None:
            return  # it has ended
        if isinstance(order, Signal):
            child.page.is_told |= order.number == signal.SIGTERM
            with contextlib.suppress(OSError):  # no such signal
                os.kill(child.pid, order.number)
            return
        page = child.page
        if isinstance(order, End):
            child.kill_if(lambda: not page.leaving, "")
            return
        task = order.task
        reason = f"task {task} was cancelled and did not stop when it was interrupted, so its engine was killed"
        child.kill_if(lambda: page.running == task, reason)

    def _kill_overdue(self) -> None:
        """Kill engines whose task was interrupted because its time was up, and goes on."""
        grace, now = self._settings.cancel_grace, time.monotonic()
        for child in self._children.values():
            deadline = child.page.deadline
            if deadline and now >= deadline + grace and not child.reason:
                self._kill_overrun(child, deadline, grace)

    def _kill_overrun(self, child: Child, deadline: float, grace: float) -> None:
        page = child.page
        overran = page.is_run_timeout
        what = "it ran" if overran else f"a dependency function of task {page.running} ran"
        which = "its run_timeout of " if overran else ""
        reason = (
            f"{what} for longer than {which}{page.seconds:g} s, and did not stop within {grace:g} s of being "
            "interrupted, so its engine was killed"
        )
        child.kill_if(lambda: page.deadline == deadline, reason, overran=overran)

    def _fork(self, order: Fork) -> None:
        page, files = SharedPage(), CaptureFiles()
        page.engine = order.wish
        zygote = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become_engine(order, page, files, zygote)
        self._children[pid] = self._by_uuid[order.uuid] = Child(order.uuid, pid, page, files)
        self._pipe.send(Forked(order.uuid, pid))

    def _become_engine(self, order: Fork, page: SharedPage, files: CaptureFiles, zygote: int) -> None:
        """The life of a forked child; never returns."""
        code = 1
        try:
            _die_with_parent(zygote)
            # Children of tasks are found, and end, with the engine. In a session of its own it has no terminal, which
            # could stop it.
            os.setsid()
            os.environ[orphans.VARIABLE] = order.uuid
            if profile_dir := self._connection.profile_dir:  # a client of a task is one of its own cluster
                os.environ |= {"IPP_PROFILE_DIR": profile_dir, "IPP_CLUSTER_ID": self._connection.cluster_id}
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._pipe.close()
            for other in self._children.values():
                other.page.close()
                other.files.close()
            if GPU in self._settings.resources:
                devices.show(order.shares.get(GPU, []))
            random_streams.reseed()
            captured = capture(files, page, self._settings.output_limit)
            settings, shares = self._settings, order.shares
            if settings.mpi:
                properties.update(mpi.join())
            engine = make_engine(
                self._connection, order.uuid, self._nanny, page, settings, shares, captured, self._lender
            )
            _run_startup(settings.startup, engine.namespace)
            engine.run()
            code = 0
            run_exit_functions(engine.namespace)
            if settings.mpi:
                mpi.leave()
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid not in self._children:
                continue
            child = self._children.pop(pid)
            del self._by_uuid[child.uuid]
            page, exit_code = child.page, os.waitstatus_to_exitcode(status)
            peak_memory = usage.ru_maxrss * 1024
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what its tasks left behind
            short = self._short_of_memory(exit_code, peak_memory)
            self._pipe.send(
                Died(
                    child.uuid,
                    exit_code,
                    peak_memory,
                    page.engine,
                    page.suspect,
                    page.leaving,
                    page.restart,
                    child.reason or short or _REASONS.get(exit_code, ""),
                    child.overran,
                    page.begun,
                    bool(short) and not child.reason,
                )
            )
            self._log_last_words(child)
            page.close()
            child.files.close()
            orphans.kill_of(child.uuid)

    def _short_of_memory(self, exit_code: int, peak_memory: int) -> str:
        """What to say of an engine that the kernel killed because memory ran out; "": it did not."""
        if exit_code != -signal.SIGKILL:
            return ""
        before, self._memory_kills = self._memory_kills, out_of_memory_kills()
        if self._memory_kills <= before:
            return ""
        return (
            f"killed by the kernel, as memory ran out; peak memory {peak_memory / MIB:.0f} MB, and all processes here "
            f"may use {usable_memory() / MIB:.0f} MB. Start fewer engines on this host, or give each task less data"
        )

    def _log_last_words(self, child: Child) -> None:
        words = child.files.last_words(child.page)
        if words:
            with contextlib.suppress(OSError):
                os.write(2, words)


def _run_startup(pieces: Sequence[tuple[str, str]], namespace: dict[str, Any]) -> None:
    """Run the code that engines begin with. If a piece raises, the log shows it, and the engine serves without."""
    for code, name in pieces:
        try:
            exec(compile(code, name, "exec"), namespace)
        except Exception:
            traceback.print_exc()


def start(
    nanny: NannyId, connection: ConnectionInfo, settings: EngineSettings, engines: int, lender: str = ""
) -> tuple[int, Pipe]:
    """Fork the zygote off this process, which must have no threads and no sockets yet: (pid, pipe)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, Pipe(ours, FromZygote)
    code = 1
    try:
        ours.close()
        _die_with_parent(parent)
        os.setsid()  # signals of the terminal are for the nanny
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        orphans.adopt()
        gc.freeze()  # engines look for garbage among what is there now neither often nor in vain: they share its memory
        compute_threads.limit(settings.threads, engines)
        Zygote(Pipe(theirs, ToZygote), nanny, connection, settings, lender).run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
