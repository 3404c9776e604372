"""An engine: takes tasks, runs them one at a time in its main thread, answers in batches.

The main thread owns the link, so that a short task costs no thread switch. While a task runs, the main thread
lets go of the link, and if the task takes longer than a moment the *attendant* thread tends it: announces the
task, streams its output, gives back unstarted tasks that are recalled, interrupts the task when it is cancelled or
has had its time, answers the controller.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import resource as rusage
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from types import FrameType, MappingProxyType
from typing import Any

from .. import _version, datapub, engine_properties, resources, task_context
from ..config import ConnectionInfo, EngineSettings
from ..dependency import DEPENDENCY_SECONDS
from ..ids import Digest, EngineUuid, NannyId, TaskId
from ..messages import (
    Answer,
    Answers,
    Ask,
    Cancel,
    Functions,
    Goodbye,
    Held,
    Hello,
    Message,
    NeedFunctions,
    Output,
    Ping,
    Pong,
    PropertiesChanged,
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
    TaskOptions,
    TaskSpec,
    Welcome,
)
from ..transport import ZmqLink
from ..wire import frames as wire
from ..wire import payload
from ..wire.values import Inputs, ValueCache
from . import devices
from .executor import Executor, Terminated
from .interrupts import SIGNAL, Interrupter
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
#: Properties that change while somebody is asked about them: so often the question is repeated.
CHANGES_AWAITED = 3
#: How long a leaving engine waits for its last results to be stored.
LEAVE_SECONDS = 5.0

#: A task in hand: (spec, attempt, its frames, the results of others that it takes as arguments)
Job = tuple[TaskSpec, int, Sequence[Any], Inputs | None]


class Engine:
    """One engine process. `run` returns when it has left."""

    def __init__(
        self,
        connection: ConnectionInfo,
        uuid: EngineUuid,
        nanny: NannyId,
        note: Note,
        settings: EngineSettings,
        shares: Mapping[str, list[int]] = MappingProxyType({}),
    ) -> None:
        self._connection = connection
        self._uuid, self._nanny = uuid, nanny
        self._note = note
        self._settings = settings
        self._shares = dict(shares)  # its indices of each named resource
        self._link = ZmqLink(connection.url, uuid.encode(), curve_serverkey=connection.curve_serverkey)
        self._stdout, self._stderr = install(settings.output_limit)
        self._executor = Executor(self._stdout, self._stderr)
        self._executor.uuid = uuid
        self._interrupter = Interrupter(self._executor, note)
        self._queue: deque[Job] = deque()
        self._parked: dict[Digest, list[Job]] = {}  # tasks whose function has been asked for
        # What our properties have against tasks with a function: what is asked, and what holds until they change.
        self._questions: deque[Digest] = deque()
        self._unanswered: set[Digest] = set()  # questions whose function has been asked for
        self._against: dict[Digest, str] = {}
        self._properties_changed = self._is_deciding = False
        self._cache: ValueCache[tuple[bytes, Sequence[Any]]] = ValueCache()
        self._reconciling = self._reconciled = False  # because values were missing
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
            Cancel: self._on_cancel,
            Functions: self._on_functions,
            Stored: self._on_stored,
            Ask: self._on_ask,
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
        task_context.bind(self._current_task, self._interrupter.limit)
        engine_properties.properties.bind(self._note_change)
        threading.Thread(target=self._attend, name="attendant", daemon=True).start()
        self._link_lock.acquire()
        self._hello()
        try:
            while not self._leaving:
                with contextlib.suppress(KeyboardInterrupt):  # it came between two tasks: nothing to interrupt
                    self._flush()
                    self._ping()
                    self._receive(wait=not self._queue)
                    self._answer()
                    if self._queue:
                        self._work()
            self._leave()
        finally:
            self._link.close(linger=1.0)

    def _work(self) -> None:
        """Run what is in the queue, looking at the link every few milliseconds."""
        self._busy.set()
        queue, executor, note, lock = self._queue, self._executor, self._note, self._link_lock
        wishes = self._interrupter.wishes
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
            if spec.options is not None and spec.options.depend and spec.engine < 0 and not self._suits(job):
                continue
            note.run(spec.id)
            self._job = job
            self._serial += 1
            lock.release()
            try:
                if spec.options is None:
                    done, beside = executor.run(spec, job[1], job[2])
                else:
                    done, beside = self._run_as_wished(job)
            except Terminated:
                self._leaving = True
                lock.acquire()
                return
            self._reacquire()
            self._job = None
            if wishes:
                self._interrupter.forget()
            if self._properties_changed:
                self._tell_change()
            if beside:
                done.frames = self._table.add(beside)
            self._outbox.append(done)
            if time.perf_counter() > pause:
                self._flush()
                self._receive()
                self._answer()
                pause = time.perf_counter() + GATHER_SECONDS

    def _answer(self) -> None:
        """Say what our properties have against tasks that somebody asks about."""
        if self._properties_changed:
            self._tell_change()
        answers = []
        while self._questions and not self._leaving:
            digest = self._questions.popleft()
            if self._executor.knows(digest):
                answers.append(Answer(digest, self._decide(digest)))
            else:
                self._unanswered.add(digest)
                self._send(NeedFunctions([digest]))
        if answers:
            self._send(Answers(answers))

    def _suits(self, job: Job) -> bool:
        """Whether our properties still allow a task that is about to be run; if not, it and its like are given back."""
        digest = job[0].function
        against = self._against.get(digest)
        if against is None:
            against = self._decide(digest)
        if not against:
            return True
        alike = [other for other in self._queue if other[0].function == digest and other[0].engine < 0]
        kept = [other for other in self._queue if other[0].function != digest or other[0].engine >= 0]
        self._queue.clear()  # in place: we are working on it
        self._queue.extend(kept)
        self._send(Answers([Answer(digest, against)]))
        self._send(Returned([_held(other) for other in (job, *alike)]))
        return False

    def _decide(self, digest: Digest) -> str:
        """Ask a function of tasks about our properties. This is user code: the attendant stops it if it takes long."""
        self._flush()
        against = self._ask_function(digest)
        for _ in range(CHANGES_AWAITED):
            if not self._properties_changed:
                break
            self._tell_change()  # by a thread, meanwhile
            against = self._ask_function(digest)
        self._against[digest] = against
        return against

    def _ask_function(self, digest: Digest) -> str:
        self._serial += 1
        self._is_deciding = True
        self._busy.set()
        self._link_lock.release()
        try:
            return self._executor.against(digest, DEPENDENCY_SECONDS)
        except Terminated:
            self._leaving = True
            return "the engine leaves"
        finally:
            self._reacquire()
            self._is_deciding = False
            self._interrupter.forget()

    def _reacquire(self) -> None:
        while True:  # an interrupt may come at any moment, this one included
            try:
                self._link_lock.acquire()
                return
            except KeyboardInterrupt:
                continue

    def _note_change(self) -> None:
        """Properties have changed: called from user code, in any of its threads."""
        if self._is_deciding and threading.current_thread() is threading.main_thread():
            return  # who is asked about properties had better not change them: we would ask for ever
        self._properties_changed = True
        self._busy.set()  # so that the attendant looks

    def _tell_change(self) -> None:
        """What we have answered holds no more."""
        self._properties_changed = False
        self._against.clear()
        self._send(PropertiesChanged())

    def _run_as_wished(self, job: Job) -> tuple[TaskDone, Sequence[Any]]:
        """Run a task that has options: within its time, and with its GPUs alone."""
        spec, attempt, frames, inputs = job
        options = spec.options
        assert options is not None
        if options.run_timeout is None and options.resources is None:
            return self._executor.run(spec, attempt, frames, inputs)
        with contextlib.ExitStack() as wishes:
            gpus = self._own(options.resources).get(resources.GPU)
            if gpus is not None:
                wishes.enter_context(devices.showing(gpus))
            if options.run_timeout is not None:
                late = f"it ran for longer than its run_timeout of {options.run_timeout:g} s"
                wishes.enter_context(self._interrupter.limit(options.run_timeout, "TaskTimeout", late))
            return self._executor.run(spec, attempt, frames, inputs)

    def _own(self, wanted: Mapping[str, int] | None) -> dict[str, list[int]]:
        """The indices of each resource that a task gets: it is the only one that runs here, so the first."""
        return {name: self._shares.get(name, [])[:count] for name, count in (wanted or {}).items()}

    def _current_task(self) -> task_context.CurrentTask | None:
        """What the running task may know about itself: called from user code."""
        job = self._job
        if job is None:
            return None
        spec, options = job[0], job[0].options or _NO_WISHES
        return task_context.CurrentTask(
            msg_id=spec.id,
            attempt=job[1],
            engine_id=self._executor.engine,
            label=options.label,
            metadata=options.metadata,
            resources=self._own(options.resources),
            run_timeout=options.run_timeout,
        )

    def _leave(self) -> None:
        """Give back what has not started, hand in what has ended, say goodbye."""
        self._flush()
        # A task cut short by SIGTERM is still `held` by the controller: at our goodbye it goes to another engine.
        back = self._give_back(None)
        if back:
            self._send(Returned(back))
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
                if self._job is None and not self._is_deciding and not self._properties_changed:
                    continue
                quiet_since = time.monotonic()
                if serial != self._serial or not self._link_lock.acquire(blocking=False):
                    continue  # short tasks, or the main thread is back: it tends the link itself
                try:
                    job = self._job
                    if self._properties_changed:
                        self._tell_change()
                    if job is not None and serial == self._serial:
                        self._tend(job, first=announced != serial)
                        announced = serial
                    elif self._is_deciding:
                        self._interrupter.look()
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
        self._interrupter.look()
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
        held = [_held(job) for job in jobs]
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
                        self._shares,
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
        parts = [wire.encode(Results(self._outbox, self._number, _peak_memory())), *self._table.frames]
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
        with self._executor.uninterrupted(), self._link_lock:
            self._send(Published(job[0].id, stream), beside)

    # ------------------------------------------------------------------------------------------ hearing (with the lock)

    def _on_welcome(self, message: Welcome, frames: Sequence[Any]) -> None:
        self._heard = 0
        self._executor.engine = self._note.engine = message.engine
        self._cache.clear()
        self._reconciling, self._reconciled = False, self._reconciling

    def _on_run(self, message: Run, frames: Sequence[Any]) -> None:
        if message.functions:
            self._executor.learn(message.functions)
        tasks, attempts = message.tasks, message.attempts
        inputs = [s.options.inputs if s.options is not None else () for s in tasks]
        if message.values or any(inputs):
            self._queue.extend(self._with_values(message, inputs, frames))
        elif frames:
            self._queue.extend([(s, a, wire.pick(s, frames), None) for s, a in zip(tasks, attempts, strict=True)])
        else:
            self._queue.extend([(s, a, (), None) for s, a in zip(tasks, attempts, strict=True)])

    def _with_values(self, message: Run, inputs: Sequence[tuple[TaskId, ...]], frames: Sequence[Any]) -> list[Job]:
        """Jobs that hold their values, whatever the cache forgets. Those whose values are missing are left out, once.

        The cache agrees with the controller's unless messages were lost. So begin anew, and reconcile. What then is
        still missing nobody has: the job runs, and says so.
        """
        new = {v.id: (v.payload, wire.pick(v, frames)) for v in message.values}
        sizes = {id: (wire.size(*value), value) for id, value in new.items()}
        found = self._cache.use([id for ids in inputs for id in ids], sizes)
        jobs: list[Job] = []
        is_short = False
        for spec, attempt, ids in zip(message.tasks, message.attempts, inputs, strict=True):
            if not self._reconciled and any(id not in found for id in ids):
                is_short = True
                continue
            own = {id: found[id] for id in ids if id in found} if ids else None
            jobs.append((spec, attempt, wire.pick(spec, frames), own))
        if not is_short:
            self._reconciled = False
        elif not self._reconciling:
            self._queue.extend(jobs)  # these are held
            self._reconciling = True
            self._hello()
            return []
        return jobs

    def _give_back(self, wanted: Collection[TaskId] | None) -> list[Held]:
        """Let go of those of these (None: of all) that have not started."""
        back: list[Held] = []
        for jobs in (self._queue, *self._parked.values()):
            kept = [job for job in jobs if wanted is not None and job[0].id not in wanted]
            if len(kept) < len(jobs):
                back += [_held(job) for job in jobs if wanted is None or job[0].id in wanted]
                jobs.clear()  # in place: the main thread is working on it
                jobs.extend(kept)
        return back

    def _on_recall(self, message: Recall, frames: Sequence[Any]) -> None:
        self._send(Returned(self._give_back(set(message.tasks))))

    def _on_cancel(self, message: Cancel, frames: Sequence[Any]) -> None:
        wanted = set(message.tasks)
        self._send(Returned(self._give_back(wanted)))
        if self._job is not None and self._job[0].id in wanted:
            self._interrupter.cancel()

    def _on_ask(self, message: Ask, frames: Sequence[Any]) -> None:
        self._executor.learn(message.functions)
        self._questions.extend(message.digests)

    def _on_functions(self, message: Functions, frames: Sequence[Any]) -> None:
        self._executor.learn(message.functions)
        for function in message.functions:
            if function.digest in self._unanswered:
                self._unanswered.remove(function.digest)
                self._questions.append(function.digest)
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


def _peak_memory() -> int:
    """The most memory that this process has had at a time since it was forked, in bytes."""
    return rusage.getrusage(rusage.RUSAGE_SELF).ru_maxrss << 10


#: of a task that carries no options
_NO_WISHES = TaskOptions()


def _held(job: Job) -> Held:
    return Held(job[0].id, job[1])


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
        signal.signal(SIGNAL, signal.SIG_DFL)
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=forget)


def _bytes(parts: list[Any]) -> int:
    return len(parts[0]) + (wire.size(b"", parts[1:]) if len(parts) > 1 else 0)
