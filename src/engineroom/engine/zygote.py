"""The process engines are forked from: everything is imported, and there is no thread and no socket.

    nanny ──(a pipe: fork, signal)──▶ zygote ──fork──▶ engine, engine, …
          ◀─(forked, died)──────────         ◀─wait───

It reaps engines, and reads from the page it shares with each what the engine was doing. When the nanny's end of
the pipe closes, it kills them and ends; when the zygote ends, the kernel kills the engines.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any

import msgspec

from ..config import ConnectionInfo, EngineSettings
from ..ids import EngineId, EngineUuid, NannyId, TaskId
from .main import Engine
from .note import Note

_PR_SET_PDEATHSIG = 1


class Fork(msgspec.Struct, tag=True):
    """To the zygote: fork an engine."""

    uuid: EngineUuid
    #: the engine number to ask for; -1: any
    wish: EngineId


class Signal(msgspec.Struct, tag=True):
    """To the zygote: signal an engine's process."""

    uuid: EngineUuid
    number: int


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
    running: TaskId | None
    #: it said goodbye first
    left: bool


ToZygote = Fork | Signal
FromZygote = Forked | Died


class Pipe:
    """Messages over a socket pair that keeps their boundaries."""

    def __init__(self, end: socket.socket, receives: Any) -> None:
        self._end = end
        self._decode = msgspec.msgpack.Decoder(receives).decode

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: Any) -> None:
        self._end.send(msgspec.msgpack.encode(message))

    def receive(self) -> Any:
        """The next message; None when the other end is closed."""
        try:
            data = self._end.recv(1 << 16)
        except ConnectionError:
            return None
        return self._decode(data) if data else None

    def close(self) -> None:
        self._end.close()


class Zygote:
    """Forks engines and reaps them."""

    def __init__(self, pipe: Pipe, nanny: NannyId, connection: ConnectionInfo, settings: EngineSettings) -> None:
        self._pipe = pipe
        self._nanny, self._connection, self._settings = nanny, connection, settings
        self._pids: dict[EngineUuid, int] = {}
        self._children: dict[int, tuple[EngineUuid, Note]] = {}

    def run(self) -> None:
        """Serve until the nanny's end of the pipe closes."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the nanny decides
        while True:
            ready, _, _ = select.select([self._pipe.fileno(), wake_read], [], [])
            if wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
            self._reap()
            if self._pipe.fileno() in ready:
                message = self._pipe.receive()
                if message is None:
                    break
                if isinstance(message, Fork):
                    self._fork(message)
                elif (pid := self._pids.get(message.uuid)) is not None:
                    with contextlib.suppress(OSError):  # gone, or no such signal
                        os.kill(pid, message.number)
        for pid in list(self._children):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _fork(self, order: Fork) -> None:
        note = Note()
        note.engine = order.wish
        zygote = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become_engine(order.uuid, note, zygote)
        self._pids[order.uuid] = pid
        self._children[pid] = (order.uuid, note)
        self._pipe.send(Forked(order.uuid, pid))

    def _become_engine(self, uuid: EngineUuid, note: Note, zygote: int) -> None:
        """The life of a forked child; never returns."""
        code = 1
        try:
            _die_with_parent(zygote)
            os.setpgid(0, 0)  # children of tasks are found, and end, with the engine
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._pipe.close()
            for _, other in self._children.values():
                other.close()
            Engine(self._connection, uuid, self._nanny, note, self._settings).run()
            code = 0
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
            uuid, note = self._children.pop(pid)
            del self._pids[uuid]
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what its tasks left behind
            self._pipe.send(
                Died(
                    uuid,
                    os.waitstatus_to_exitcode(status),
                    usage.ru_maxrss * 1024,
                    note.engine,
                    note.running,
                    note.leaving,
                )
            )
            note.close()


def start(nanny: NannyId, connection: ConnectionInfo, settings: EngineSettings) -> tuple[int, Pipe]:
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
        Zygote(Pipe(theirs, ToZygote), nanny, connection, settings).run()
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
