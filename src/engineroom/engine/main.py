"""An engine: takes tasks, runs them one at a time in its main thread, answers in batches.

The main thread owns the link, so that a short task costs no thread switch. While a task runs, the main thread
lets go of the link, and if the task takes longer than a moment the *attendant* thread tends it: announces the
task, streams its output, gives back unstarted tasks that are recalled, interrupts the task when it is cancelled or
has had its time, answers the controller.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, MappingProxyType
from typing import Any

from .. import resources
from ..config import ConnectionInfo, EngineSettings
from ..ids import Digest, EngineUuid, NannyId
from ..messages import (
    Answer,
    Answers,
    Ask,
    Cancel,
    Functions,
    Goodbye,
    Message,
    NeedFunctions,
    Output,
    Pong,
    Published,
    Recall,
    Refused,
    Returned,
    Run,
    Started,
    Stop,
    Stored,
    TaskDone,
    TaskOptions,
    Welcome,
)
from ..remote import datapub, engine_properties, task_context
from ..remote.functional_dependency import DEPENDENCY_SECONDS
from ..transport import ZmqLink
from ..wire import frames as wire
from ..wire import payload
from ..wire.session import LinkSession, introduce
from . import devices
from .executor import Executor, Terminated
from .interrupts import Interrupter, spare_forked_processes
from .jobs import Job, Jobs, held
from .output import install
from .property_checks import PropertyChecks
from .result_buffer import ResultBuffer
from .session_link import SessionLink
from .shared_page import SharedPage

#: Between two signs of life to the controller.
PING_SECONDS = 2.0
#: Results of short tasks gather this long before they are sent.
GATHER_SECONDS = 0.004
#: How often the attendant looks at a task that takes its time.
ATTEND_SECONDS = 0.02
#: After this long without work the attendant sleeps until there is some.
REST_SECONDS = 1.0
#: How long a leaving engine waits for its last results to be stored.
LEAVE_SECONDS = 5.0

#: of a task that carries no options
_NO_WISHES = TaskOptions()


class Engine:
    """One engine process. `run` returns when it has left."""

    def __init__(
        self,
        connection: ConnectionInfo,
        uuid: EngineUuid,
        nanny: NannyId,
        page: SharedPage,
        settings: EngineSettings,
        shares: Mapping[str, list[int]] = MappingProxyType({}),
    ) -> None:
        self._page = page
        self._settings = settings
        self._shares = dict(shares)  # its indices of each named resource
        introduction = introduce("engine", connection.key, uuid, nanny=nanny, resources=shares)
        link = ZmqLink(connection.url, uuid.encode(), curve_serverkey=connection.curve_serverkey)
        session = LinkSession(introduction, PING_SECONDS, time.monotonic())
        self._link = SessionLink(session, link, wire.decode_to_engine)
        self._stdout, self._stderr = install(settings.output_limit)
        self._executor = Executor(self._stdout, self._stderr)
        self._executor.uuid = uuid
        self._interrupter = Interrupter(self._executor, page)
        self._jobs = Jobs()
        self._results = ResultBuffer()
        self._checks = PropertyChecks(self._executor.knows, self._ask_function, self._link.send)
        self._is_deciding = False
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
        spare_forked_processes()
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
                    self._link.ping()
                    self._receive(wait=not self._jobs.queue)
                    self._checks.answer(self._is_leaving)
                    if self._jobs.queue:
                        self._work()
            self._leave()
        finally:
            self._link.close()

    def _work(self) -> None:
        """Run what is in the queue, looking at the link every few milliseconds."""
        self._busy.set()
        queue, executor, page, lock = self._jobs.queue, self._executor, self._page, self._link_lock
        results, checks, wishes = self._results, self._checks, self._interrupter.wishes
        pause = time.perf_counter() + GATHER_SECONDS
        while queue and not self._leaving:
            if results.bytes > self._settings.unstored_limit:
                self._flush()
                self._link.ping()
                self._receive(wait=True)  # until the store has caught up
                continue
            job = queue.popleft()
            spec = job[0]
            if not executor.knows(spec.function):
                if self._jobs.park(job):
                    self._link.send(NeedFunctions([spec.function]))
                continue
            if spec.options is not None and spec.options.depend and spec.engine < 0 and not self._suits(job):
                continue
            page.run(spec.id)
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
            if checks.changed:
                checks.tell_change()
            results.add(done, beside)
            if time.perf_counter() > pause:
                self._flush()
                self._receive()
                checks.answer(self._is_leaving)
                pause = time.perf_counter() + GATHER_SECONDS

    def _is_leaving(self) -> bool:
        return self._leaving

    def _suits(self, job: Job) -> bool:
        """Whether our properties still allow a task that is about to be run; if not, it and its like are given back."""
        digest = job[0].function
        against = self._checks.against(digest)
        if not against:
            return True
        alike = self._jobs.take_out(digest)
        self._link.send(Answers([Answer(digest, against)]))
        self._link.send(Returned([held(other) for other in (job, *alike)]))
        return False

    def _ask_function(self, digest: Digest) -> str:
        """Ask a function of tasks about our properties. This is user code: the attendant stops it if it takes long."""
        self._flush()
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
        self._checks.changed = True
        self._busy.set()  # so that the attendant looks

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
        back = self._jobs.give_back(None)
        if back:
            self._link.send(Returned(back))
        deadline = time.monotonic() + LEAVE_SECONDS
        while self._results.is_awaiting and time.monotonic() < deadline:
            self._receive(wait=True)
        self._page.leaving = True
        self._link.send(Goodbye())

    # ------------------------------------------------------------------------------------------ the attendant

    def _attend(self) -> None:
        while True:
            self._busy.wait()
            quiet_since = time.monotonic()
            announced = -1
            while time.monotonic() - quiet_since < REST_SECONDS:
                serial = self._serial
                time.sleep(ATTEND_SECONDS)
                if self._job is None and not self._is_deciding and not self._checks.changed:
                    continue
                quiet_since = time.monotonic()
                if serial != self._serial or not self._link_lock.acquire(blocking=False):
                    continue  # short tasks, or the main thread is back: it tends the link itself
                try:
                    job = self._job
                    if self._checks.changed:
                        self._checks.tell_change()
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
            self._flush(keep_page=True)
            self._link.send(Started(job[0].id, time.time() - ATTEND_SECONDS))
        for name, stream in (("stdout", self._stdout), ("stderr", self._stderr)):
            text = stream.news()
            if text:
                self._link.send(Output(job[0].id, name, text))
        self._receive()
        self._interrupter.look()
        self._link.ping()

    # ------------------------------------------------------------------------------------------ talking (with the lock)

    def _receive(self, *, wait: bool = False) -> None:
        """Handle what has arrived; with `wait`, something will have, unless it is time for a sign of life."""
        self._is_waiting = wait
        arrived = self._link.receive(wait=wait)
        self._is_waiting = False
        for parts in arrived:
            message = self._link.read(parts)
            self._handlers[type(message)](message, parts[1:])

    def _hello(self) -> None:
        running = [self._job] if self._job is not None else []
        in_hand = [held(job) for job in (*running, *self._jobs)]
        self._link.hello(self._page.engine, [*in_hand, *self._results.held()])
        for parts in self._results.sent():
            self._link.send_frames(parts)

    def _flush(self, *, keep_page: bool = False) -> None:
        """Send the results that have gathered."""
        if not keep_page:
            self._page.rest()
        parts = self._results.pack()
        if parts is not None:
            self._link.send_frames(parts)

    def _publish(self, data: dict[str, Any]) -> None:
        """Send live data of the running task: called from user code."""
        job = self._job
        if job is None:
            raise RuntimeError("publish_data works inside a task")
        stream, beside = payload.dumps(dict(data))
        with self._executor.uninterrupted(), self._link_lock:
            self._link.send(Published(job[0].id, stream), beside)

    # ------------------------------------------------------------------------------------------ hearing (with the lock)

    def _on_welcome(self, message: Welcome, frames: Sequence[Any]) -> None:
        if not self._link.session.on_welcome(message):
            return
        self._executor.engine = self._page.engine = message.engine
        self._jobs.welcomed()

    def _on_run(self, message: Run, frames: Sequence[Any]) -> None:
        if message.functions:
            self._executor.learn(message.functions)
        if not self._jobs.take(message, frames):
            self._hello()

    def _on_recall(self, message: Recall, frames: Sequence[Any]) -> None:
        self._link.send(Returned(self._jobs.give_back(set(message.tasks))))

    def _on_cancel(self, message: Cancel, frames: Sequence[Any]) -> None:
        wanted = set(message.tasks)
        self._link.send(Returned(self._jobs.give_back(wanted)))
        if self._job is not None and self._job[0].id in wanted:
            self._interrupter.cancel()

    def _on_ask(self, message: Ask, frames: Sequence[Any]) -> None:
        self._executor.learn(message.functions)
        self._checks.asked(message.digests)

    def _on_functions(self, message: Functions, frames: Sequence[Any]) -> None:
        self._executor.learn(message.functions)
        for function in message.functions:
            self._checks.came(function.digest)
            self._jobs.unpark(function.digest)

    def _on_stored(self, message: Stored, frames: Sequence[Any]) -> None:
        self._results.stored(message.number)

    def _on_stop(self, message: Stop, frames: Sequence[Any]) -> None:
        self._leaving = True

    def _on_pong(self, message: Pong, frames: Sequence[Any]) -> None:
        if not self._link.session.on_pong(message):
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
