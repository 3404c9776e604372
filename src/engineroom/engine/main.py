"""An engine: takes tasks, runs them one at a time in its main thread, answers in batches.

The main thread owns the link, so that a short task costs no thread switch. While a task runs, the main thread
lets go of the link, and if the task takes longer than a moment the *attendant* thread tends it: announces the
task, streams its output, gives back unstarted tasks that are recalled, answers the controller.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from .. import _version, datapub
from ..config import ConnectionInfo, EngineSettings
from ..ids import Digest, EngineUuid, NannyId
from ..messages import (
    Functions,
    Goodbye,
    Held,
    Hello,
    Message,
    NeedFunctions,
    Output,
    Ping,
    Pong,
    Published,
    Recall,
    Refused,
    Results,
    Returned,
    Run,
    Started,
    Stop,
    Stored,
    TaskDone,
    TaskSpec,
    Welcome,
)
from ..transport import ZmqLink
from ..wire import frames as wire
from ..wire import payload
from .executor import Executor, Terminated
from .note import Note
from .output import install

#: Results of short tasks gather this long before they are sent.
GATHER_SECONDS = 0.004
#: How often the attendant looks at a task that takes its time.
ATTEND_SECONDS = 0.02
#: After this long without work the attendant sleeps until there is some.
REST_SECONDS = 1.0
#: Between signs of life to the controller.
PING_SECONDS = 2.0
#: How long a leaving engine waits for its last results to be stored.
LEAVE_SECONDS = 5.0

#: A task in hand: (spec, attempt, its frames)
Job = tuple[TaskSpec, int, Sequence[Any]]


class Engine:
    """One engine process. `run` returns when it has left."""

    def __init__(
        self, connection: ConnectionInfo, uuid: EngineUuid, nanny: NannyId, note: Note, settings: EngineSettings
    ) -> None:
        self._connection = connection
        self._uuid, self._nanny = uuid, nanny
        self._note = note
        self._settings = settings
        self._link = ZmqLink(connection.url, uuid.encode(), curve_serverkey=connection.curve_serverkey)
        self._stdout, self._stderr = install(settings.output_limit)
        self._executor = Executor(self._stdout, self._stderr)
        self._executor.uuid = uuid
        self._queue: deque[Job] = deque()
        self._parked: dict[Digest, list[Job]] = {}  # tasks whose function has been asked for
        self._outbox: list[TaskDone] = []
        self._table = wire.FrameTable()
        # Results that may not be stored yet: (number, frames as sent, their tasks); and their bytes
        self._unstored: deque[tuple[int, list[Any], list[Held]]] = deque()
        self._unstored_bytes = 0
        self._number = 0
        self._sent = self._heard = 0
        self._next_ping = 0.0
        self._leaving = False
        self._is_waiting = False
        self._job: Job | None = None
        self._serial = 0  # counts tasks begun: how the attendant tells a long one from many short ones
        self._link_lock = threading.Lock()
        self._busy = threading.Event()
        self._handlers: dict[type[Message], Callable[[Any, Sequence[Any]], None]] = {
            Welcome: self._on_welcome,
            Run: self._on_run,
            Recall: self._on_recall,
            Functions: self._on_functions,
            Stored: self._on_stored,
            Stop: self._on_stop,
            Pong: self._on_pong,
            Refused: self._on_refused,
        }

    # ------------------------------------------------------------------------------------------ the main thread

    def run(self) -> None:
        """Serve until told to stop."""
        signal.signal(signal.SIGINT, self._on_sigint)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        _spare_forked_processes()
        logging.root.handlers.clear()  # the nanny's: what tasks log is their output
        logging.root.setLevel(logging.WARNING)
        datapub.bind(self._publish)
        threading.Thread(target=self._attend, name="attendant", daemon=True).start()
        self._link_lock.acquire()
        self._hello()
        try:
            while not self._leaving:
                with contextlib.suppress(KeyboardInterrupt):  # it came between two tasks: nothing to interrupt
                    self._flush()
                    self._ping()
                    self._receive(wait=not self._queue)
                    if self._queue:
                        self._work()
            self._leave()
        finally:
            self._link.close(linger=1.0)

    def _work(self) -> None:
        """Run what is in the queue, looking at the link every few milliseconds."""
        self._busy.set()
        queue, executor, note, lock = self._queue, self._executor, self._note, self._link_lock
        pause = time.perf_counter() + GATHER_SECONDS
        while queue and not self._leaving:
            if self._unstored_bytes > self._settings.unstored_limit:
                self._flush()
                self._ping()
                self._receive(wait=True)  # until the store has caught up
                continue
            job = queue.popleft()
            spec = job[0]
            if not executor.knows(spec.function):
                self._park(job)
                continue
            note.run(spec.id)
            self._job = job
            self._serial += 1
            lock.release()
            try:
                done, beside = executor.run(spec, job[1], job[2])
            except Terminated:
                self._leaving = True
                lock.acquire()
                return
            while True:  # an interrupt may come at any moment, this one included
                try:
                    lock.acquire()
                    break
                except KeyboardInterrupt:
                    continue
            self._job = None
            if beside:
                done.frames = self._table.add(beside)
            self._outbox.append(done)
            if time.perf_counter() > pause:
                self._flush()
                self._receive()
                pause = time.perf_counter() + GATHER_SECONDS

    def _leave(self) -> None:
        """Give back what has not started, hand in what has ended, say goodbye."""
        self._flush()
        # A task cut short by SIGTERM is still `held` by the controller: at our goodbye it goes to another engine.
        jobs = [*self._queue, *(job for jobs in self._parked.values() for job in jobs)]
        if jobs:
            self._send(Returned([Held(spec.id, attempt) for spec, attempt, _ in jobs]))
            self._queue.clear()
        deadline = time.monotonic() + LEAVE_SECONDS
        while self._unstored and time.monotonic() < deadline:
            self._receive(wait=True)
        self._note.leaving = True
        self._send(Goodbye())

    # ------------------------------------------------------------------------------------------ the attendant

    def _attend(self) -> None:
        while True:
            self._busy.wait()
            quiet_since = time.monotonic()
            announced = -1
            while time.monotonic() - quiet_since < REST_SECONDS:
                serial = self._serial
                time.sleep(ATTEND_SECONDS)
                if self._job is None:
                    continue
                quiet_since = time.monotonic()
                if serial != self._serial or not self._link_lock.acquire(blocking=False):
                    continue  # short tasks, or the main thread is back: it tends the link itself
                try:
                    job = self._job
                    if job is not None and serial == self._serial:
                        self._tend(job, first=announced != serial)
                        announced = serial
                finally:
                    self._link_lock.release()
            self._busy.clear()
            if self._job is not None:
                self._busy.set()

    def _tend(self, job: Job, *, first: bool) -> None:
        """Look after the link while the main thread is in a long task."""
        if first:
            self._flush(keep_note=True)
            self._send(Started(job[0].id, time.time() - ATTEND_SECONDS))
        for name, stream in (("stdout", self._stdout), ("stderr", self._stderr)):
            text = stream.news()
            if text:
                self._send(Output(job[0].id, name, text))
        self._receive()
        self._ping()

    # ------------------------------------------------------------------------------------------ talking (with the lock)

    def _send(self, message: Message, buffers: Sequence[Any] = ()) -> None:
        self._sent += 1
        self._link.send([wire.encode(message), *buffers])

    def _receive(self, *, wait: bool = False) -> None:
        """Handle what has arrived; with `wait`, something will have, unless it is time for a sign of life."""
        until = 0.0
        if wait:
            until = max(0.001, min(self._next_ping - time.monotonic(), PING_SECONDS))
        self._is_waiting = wait
        arrived = self._link.receive(timeout=until)
        self._is_waiting = False
        for parts in arrived:
            self._heard += 1
            message = wire.decode_to_engine(parts[0])
            self._handlers[type(message)](message, parts[1:])

    def _hello(self) -> None:
        running = [self._job] if self._job is not None else []
        jobs = [*running, *self._queue, *(job for jobs in self._parked.values() for job in jobs)]
        held = [Held(spec.id, attempt) for spec, attempt, _ in jobs]
        held += [Held(done.id, done.attempt) for done in self._outbox]
        held += [task for _, _, tasks in self._unstored for task in tasks]
        self._link.send(
            [
                wire.encode(
                    Hello(
                        _version.PROTOCOL_VERSION,
                        "engine",
                        self._connection.key,
                        self._uuid,
                        os.getpid(),
                        socket.gethostname(),
                        platform.python_version(),
                        self._nanny,
                        self._note.engine,
                        held,
                    )
                )
            ]
        )
        self._sent, self._heard = 1, 0
        self._next_ping = time.monotonic() + PING_SECONDS
        for _, parts, _ in self._unstored:
            self._sent += 1
            self._link.send(parts)

    def _ping(self) -> None:
        if time.monotonic() >= self._next_ping:
            self._next_ping = time.monotonic() + PING_SECONDS
            self._send(Ping(self._sent + 1))

    def _flush(self, *, keep_note: bool = False) -> None:
        """Send the results that have gathered."""
        if not keep_note:
            self._note.rest()
        if not self._outbox:
            return
        self._number += 1
        parts = [wire.encode(Results(self._outbox, self._number)), *self._table.frames]
        self._unstored.append((self._number, parts, [Held(d.id, d.attempt) for d in self._outbox]))
        self._unstored_bytes += _bytes(parts)
        self._outbox, self._table = [], wire.FrameTable()
        self._sent += 1
        self._link.send(parts)

    def _park(self, job: Job) -> None:
        """Keep a task until its function has come."""
        digest = job[0].function
        if digest not in self._parked:
            self._parked[digest] = []
            self._send(NeedFunctions([digest]))
        self._parked[digest].append(job)

    def _publish(self, data: dict[str, Any]) -> None:
        """Send live data of the running task: called from user code."""
        job = self._job
        if job is None:
            raise RuntimeError("publish_data works inside a task")
        stream, beside = payload.dumps(dict(data))
        with self._link_lock:
            self._send(Published(job[0].id, stream), beside)

    # ------------------------------------------------------------------------------------------ hearing (with the lock)

    def _on_welcome(self, message: Welcome, frames: Sequence[Any]) -> None:
        self._heard = 0
        self._executor.engine = self._note.engine = message.engine

    def _on_run(self, message: Run, frames: Sequence[Any]) -> None:
        if message.functions:
            self._executor.learn(message.functions)
        attempts = message.attempts
        if frames:
            self._queue.extend([(s, a, wire.pick(s, frames)) for s, a in zip(message.tasks, attempts, strict=True)])
        else:
            self._queue.extend([(s, a, ()) for s, a in zip(message.tasks, attempts, strict=True)])

    def _on_recall(self, message: Recall, frames: Sequence[Any]) -> None:
        wanted = set(message.tasks)
        back = [Held(spec.id, attempt) for spec, attempt, _ in self._queue if spec.id in wanted]
        if back:
            self._queue = deque(job for job in self._queue if job[0].id not in wanted)
        self._send(Returned(back))

    def _on_functions(self, message: Functions, frames: Sequence[Any]) -> None:
        self._executor.learn(message.functions)
        for function in message.functions:
            self._queue.extendleft(reversed(self._parked.pop(function.digest, [])))

    def _on_stored(self, message: Stored, frames: Sequence[Any]) -> None:
        unstored = self._unstored
        while unstored and unstored[0][0] <= message.number:
            self._unstored_bytes -= _bytes(unstored.popleft()[1])

    def _on_stop(self, message: Stop, frames: Sequence[Any]) -> None:
        self._leaving = True

    def _on_pong(self, message: Pong, frames: Sequence[Any]) -> None:
        if not message.known or message.sent != self._heard:
            self._hello()  # one of us has missed something: begin anew, and reconcile

    def _on_refused(self, message: Refused, frames: Sequence[Any]) -> None:
        print(f"the controller refused this engine: {message.reason}", flush=True)
        self._leaving = True

    # ------------------------------------------------------------------------------------------ signals

    def _on_sigint(self, number: int, frame: FrameType | None) -> None:
        if self._executor.is_running:
            raise KeyboardInterrupt

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._leaving = True
        if self._executor.is_running:
            raise Terminated
        if self._is_waiting:
            self._is_waiting = False
            raise KeyboardInterrupt  # `run` goes on, and sees that we leave


def _spare_forked_processes() -> None:
    """Processes that tasks fork are not engines: signals mean to them what they mean to anybody.

    The signals are blocked around the fork: one that comes before the child has forgotten the engine's handlers
    would be taken by those, and lost.
    """
    ours = {signal.SIGINT, signal.SIGTERM}
    before: list[set[Any]] = []

    def block() -> None:
        before.append(signal.pthread_sigmask(signal.SIG_BLOCK, ours))

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.pop())

    def forget() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=forget)


def _bytes(parts: list[Any]) -> int:
    return len(parts[0]) + (wire.size(b"", parts[1:]) if len(parts) > 1 else 0)
