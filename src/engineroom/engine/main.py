"""An engine: takes tasks, runs them one at a time in its main thread, answers in batches.

The main thread owns the link, so that a short task costs no thread switch. While a task runs, the main thread
lets go of the link. If the task takes longer than a moment, the *attendant* thread tends the link: it announces the
task, streams its output, gives back unstarted tasks that are recalled, interrupts the task when it is cancelled or
out of time, and answers the controller.

What is said to the controller is in `protocol.py`, running one task in `executor.py`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, MappingProxyType
from typing import Any

from .. import resources
from ..config import ConnectionInfo, EngineSettings
from ..ids import Digest, EngineUuid, NannyId, TaskId
from ..messages import Output, Published, Started, TaskDone, TaskOptions
from ..messages.bounds import StreamName
from ..on_engine import datapub, engine_properties, task_context
from ..on_engine.functional_dependency import DEPENDENCY_SECONDS
from ..shared_memory.pool import Pool
from ..transport import connect
from ..watchdog.watchdog import Watchdog
from ..wire import frames as wire
from ..wire import payload
from ..wire.session import LinkSession, introduce
from .execution import devices, displays
from .execution.captured import Captured
from .execution.ending import LINK_CLOSED
from .execution.executor import LOOK_SECONDS, Executor, Terminated
from .execution.interrupts import Interrupter, spare_forked_processes
from .execution.output import Streams, install
from .jobs import Job
from .memory import MemoryLimit, memory_in_use
from .nested import NestedRuns
from .property_checks import PropertyChecks
from .protocol import EngineProtocol
from .session_link import SessionLink
from .shared_page import SharedPage

#: Between two signs of life to the controller.
PING_SECONDS = 2.0
#: Results of short tasks gather this long before they are sent.
GATHER_SECONDS = 0.004
#: How often the attendant looks at a task that takes its time.
ATTEND_SECONDS = 0.02
#: How often a task that goes on running is announced again.
ANNOUNCE_SECONDS = 2.0
#: Of so many tasks the start is remembered: a task that waits for others may have some of them run on this engine.
STARTS_KEPT = 64
#: After this long without work the attendant sleeps until there is some.
REST_SECONDS = 1.0
#: Bytes of memory in which large results were, kept for the next ones for a moment.
RESULTS_KEPT = 512 << 20
#: How long a leaving engine waits for its last results to be stored.
LEAVE_SECONDS = 5.0
#: A SIGTERM may come to all processes of a host, or of a job, at once: so soon the nanny tells us to leave, too.
TOLD_SECONDS = 1.0

#: of a task that carries no options
_NO_WISHES = TaskOptions()

#: a task and the number of its attempt
AttemptOf = tuple[TaskId, int]


class Engine:
    """One engine process. `run` returns when it has left."""

    def __init__(
        self,
        link: SessionLink,
        executor: Executor,
        interrupter: Interrupter,
        streams: Streams,
        page: SharedPage,
        settings: EngineSettings,
        shares: Mapping[str, list[int]] = MappingProxyType({}),
        url: str = "",
        pool: Pool | None = None,
    ) -> None:
        """`shares`: the indices of each named resource that this engine has. `url`: of its cluster.

        `pool`: where large results are put, for others of this host; None: they are sent as bytes.
        """
        self._pool = pool
        self._link, self._descriptor = link, link.fileno()
        self._executor, self._interrupter, self._streams = executor, interrupter, streams
        self._page, self._settings, self._shares = page, settings, dict(shares)
        self._checks = PropertyChecks(executor.knows, self._ask_function, link.send)
        self._protocol = EngineProtocol(link, executor, page, self._checks, interrupter.cancel)
        self._protocol.results.limit = settings.unstored_limit
        self._memory = MemoryLimit(settings.memory_limit)
        self._is_deciding = False  # a function is being asked about our properties
        self._starts: dict[AttemptOf, float] = {}  # when the tasks began that were announced last
        self._nested = NestedRuns(url, self._protocol, executor, interrupter, page, self)
        self._serial = 0  # counts tasks begun: how the attendant tells a long one from many short ones
        self._turns = 0  # of the main loop
        self._link_lock = threading.Lock()
        self._busy = threading.Event()

    @property
    def namespace(self) -> dict[str, Any]:
        """The names of the user's `__main__`."""
        return self._executor.module.__dict__

    # ------------------------------------------------------------------------------------------ the main thread

    def run(self) -> None:
        """Make this process an engine, and serve until told to stop."""
        signal.signal(signal.SIGINT, self._on_sigint)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        spare_forked_processes(self._in_forked_process)
        logging.root.handlers.clear()  # the nanny's: what tasks log is their output
        logging.root.setLevel(logging.WARNING)
        os.environ.setdefault("MPLBACKEND", f"module://{displays.INLINE_BACKEND}")  # `show` displays pictures
        displays.watch(self._executor.shell)
        datapub.bind(self._publish)
        task_context.bind(self._current_task, self._interrupter.limit, self._nested.wait)
        engine_properties.properties.bind(self._note_change)
        threading.Thread(target=self._run_attendant, name="attendant", daemon=True).start()
        with Watchdog("the engine's loop", self._turns_between_tasks, say=lambda text, is_hanging: self._log(text)):
            self.serve()

    def _turns_between_tasks(self) -> int:
        """For the watchdog: how often the loop has turned; 0: user code runs, which may take as long as it likes."""
        return 0 if self._protocol.job is not None or self._is_deciding else self._turns + self._serial

    def serve(self) -> None:
        """Take and run tasks until told to stop."""
        protocol = self._protocol
        self._link_lock.acquire()
        protocol.hello()
        self._log(self._memory.begin())
        try:
            while not protocol.is_leaving:
                self._turns += 1
                with contextlib.suppress(KeyboardInterrupt):  # it came between two tasks: nothing to interrupt
                    self._flush()
                    self._link.ping()
                    if self._pool is not None:
                        self._pool.tidy()
                    self._executor.tidy()
                    self._receive(wait=not protocol.jobs.queue)
                    self._checks.answer(self._is_leaving)
                    if protocol.jobs.queue:
                        self._work()
                        self._look_at_memory()
            self._leave()
        except OSError:
            self._die_if_link_is_closed()
            raise
        finally:
            self._link.close()

    def _work(self, until: Callable[[], bool] | None = None) -> None:
        """Run what is in the queue, looking at the link every few milliseconds. `until`: stop when this is true."""
        if not self._busy.is_set():
            self._busy.set()
        protocol, executor, page, lock = self._protocol, self._executor, self._page, self._link_lock
        queue, results, checks, wishes = protocol.jobs.queue, protocol.results, self._checks, self._interrupter.wishes
        pause = time.perf_counter() + GATHER_SECONDS
        is_full = results.is_full
        while queue and not protocol.is_leaving and (until is None or not until()):
            if is_full:
                self._turns += 1
                self._flush()
                self._link.ping()
                self._receive(wait=True)  # until the store has caught up
                is_full = results.is_full
                continue
            job = queue.popleft()
            spec = job[0]
            if not executor.knows(spec.function):
                protocol.park(job)
                continue
            if spec.options is not None and spec.options.depend and spec.engine < 0 and not self._suits(job):
                continue
            if spec.engine >= 0:
                self._memory.has_user = True
            page.run(spec.id)
            protocol.job = job
            self._serial += 1
            lock.release()
            try:
                if spec.options is None:
                    done, buffers = executor.run(spec, job[1], job[2])
                else:
                    if spec.options.at_most_once:
                        page.begin(spec.id)
                    done, buffers = self._run_as_wished(job)
            except Terminated:
                protocol.is_leaving = True
                lock.acquire()
                return
            if executor.seconds > LOOK_SECONDS:
                self._die_if_link_is_closed()
            self._reacquire()
            protocol.job = None
            if wishes:
                self._interrupter.forget()
            if checks.changed:
                checks.tell_change()
            results.add(done, buffers)
            if time.perf_counter() > pause:
                self._flush()
                self._receive()
                checks.answer(self._is_leaving)
                self._look_at_memory()
                is_full = results.is_full
                pause = time.perf_counter() + GATHER_SECONDS

    def _look_at_memory(self) -> None:
        """No task is running. If tasks have left too much in memory, ask to be replaced: the controller says when."""
        session = self._link.session
        if not (session.renew or self._protocol.waiting) and (text := self._memory.passed()):
            self._log(text)
            session.renew = True
            self._link.ping_now(time.monotonic())

    def _log(self, text: str) -> None:
        """Write to the log of the nanny; "": nothing."""
        with contextlib.suppress(OSError):  # a task may have closed it
            if text:
                print(text, file=self._streams.stderr.log, flush=True)

    # A task that waits for others: called by `NestedRuns`.

    def take_link(self) -> None:
        """The main thread tends the link."""
        self._reacquire()

    def leave_link(self) -> None:
        """The main thread goes back to user code. The attendant sees a task that has just begun."""
        self._serial += 1
        self._busy.set()
        self._link_lock.release()

    def serve_once(self, until: Callable[[], bool], seconds: float) -> None:
        """Run the tasks that there are, until the condition is true; or wait for a message for some seconds."""
        protocol = self._protocol
        self._turns += 1
        if protocol.jobs.queue:
            self._work(until)
            protocol.flush()
            self._page.run(protocol.waiting[-1][0].id)
        else:
            self._link.ping()
            protocol.handle(self._link.receive(wait=True, most=seconds))
            self._checks.answer(self._is_leaving)

    def _die_if_link_is_closed(self) -> None:
        """A task may have closed our sockets: then this engine cannot send its result, nor anything else."""
        if _is_open(self._descriptor):
            return
        self._log("a task has closed the file descriptors of this engine: it cannot go on")
        os._exit(LINK_CLOSED)

    def _in_forked_process(self) -> None:
        """This is a process that a task has forked: it is no engine."""
        self._executor.is_forked = True
        self._streams.forked()

    def _is_leaving(self) -> bool:
        return self._protocol.is_leaving

    def _suits(self, job: Job) -> bool:
        """Whether our properties still allow a task. If not, it is given back, with all that call the same function."""
        reason = self._checks.refusal_reason(job[0].function)
        if reason:
            self._protocol.refuse(job, reason)
        return not reason

    def _ask_function(self, digest: Digest) -> str:
        """Ask a function of tasks about our properties. This is user code: the attendant stops it if it takes long."""
        self._flush()
        self._serial += 1
        self._is_deciding = True
        self._busy.set()
        self._link_lock.release()
        try:
            return self._executor.refusal_reason(digest, DEPENDENCY_SECONDS)
        except Terminated:
            self._protocol.is_leaving = True
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
        if self._executor.is_forked:
            return  # only the engine's own properties count
        if self._is_deciding and threading.current_thread() is threading.main_thread():
            return  # a `depend` that changes properties itself: asking it again would never end
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
        """The indices of each resource that a task gets: the first ones, for no other task runs here."""
        return {name: self._shares.get(name, [])[:count] for name, count in (wanted or {}).items()}

    def _current_task(self) -> task_context.CurrentTask | None:
        """What the running task may know about itself: called from user code."""
        job = self._protocol.job
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
        """Give back unstarted tasks, wait until results are stored, say goodbye."""
        self._flush()
        self._protocol.give_back_all()
        deadline = time.monotonic() + LEAVE_SECONDS
        while self._protocol.results.is_awaiting and time.monotonic() < deadline:
            self._receive(wait=True)
        if self._nested.is_terminated and not self._is_told():
            self._die_of_sigterm()
        self._protocol.goodbye()

    def _is_told(self) -> bool:
        """Whether a SIGTERM came from the nanny, or to the nanny as well."""
        deadline = time.monotonic() + TOLD_SECONDS
        while not self._page.is_told and time.monotonic() < deadline:
            time.sleep(0.01)
        return self._page.is_told

    def _die_of_sigterm(self) -> None:
        """Somebody has sent it to this process alone: a user, a task, a guard of memory. Another takes our place."""
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    # ------------------------------------------------------------------------------------------ the attendant

    def _run_attendant(self) -> None:
        try:
            self._attend()
        except OSError:
            self._die_if_link_is_closed()
            raise

    def _attend(self) -> None:
        while True:
            self._busy.wait()
            quiet_since = time.monotonic()
            announced = (-1, 0.0)  # the serial of a task, and when it was announced last
            while time.monotonic() - quiet_since < REST_SECONDS:
                serial = self._serial
                time.sleep(ATTEND_SECONDS)
                if self._protocol.job is None and not self._is_deciding and not self._checks.changed:
                    continue
                quiet_since = time.monotonic()
                if serial != self._serial or not self._link_lock.acquire(blocking=False):
                    continue  # short tasks, or the main thread is back: it tends the link itself
                try:
                    job = self._protocol.job
                    if self._checks.changed:
                        self._checks.tell_change()
                    if job is not None and serial == self._serial:
                        now = time.monotonic()
                        first = announced[0] != serial
                        again = now - announced[1] > ANNOUNCE_SECONDS
                        self._tend(job, first=first, again=again)
                        if first or again:
                            announced = serial, now
                    elif self._is_deciding:
                        self._interrupter.look()
                finally:
                    self._link_lock.release()
            self._busy.clear()
            if self._protocol.job is not None:
                self._busy.set()

    def _tend(self, job: Job, *, first: bool, again: bool) -> None:
        """Look after the link while the main thread is in a long task.

        A task is announced when it is `first` seen, and `again` every few seconds: the controller may be another one.
        """
        if first:
            self._protocol.flush()
        if first or again:
            key = job[0].id, job[1]
            if key not in self._starts:
                while len(self._starts) >= STARTS_KEPT:
                    del self._starts[next(iter(self._starts))]
                self._starts[key] = time.time() - ATTEND_SECONDS
            self._link.send(Started(key[0], self._starts[key], attempt=key[1], memory=memory_in_use()))
        self._executor.flush_c_library()
        streams: tuple[tuple[StreamName, Any], ...] = (
            ("stdout", self._streams.stdout),
            ("stderr", self._streams.stderr),
        )
        for name, stream in streams:
            text = stream.unstreamed()
            if text:
                self._link.send(Output(job[0].id, name, text))
        self._receive()
        self._interrupter.look()
        self._link.ping()

    # ------------------------------------------------------------------------------------------ with the link's lock

    def _receive(self, *, wait: bool = False) -> None:
        """Handle what has arrived. With `wait`, waits for something, until the next sign of life is due."""
        self._protocol.handle(self._link.receive(wait=wait))

    def _flush(self) -> None:
        """Send the results that have gathered. No task is running."""
        self._page.rest()
        self._take_late_output()
        self._protocol.flush()

    def _take_late_output(self) -> None:
        """What C code and child processes print between tasks, or in very short ones."""
        if not self._protocol.results.has_gathered:
            self._executor.collect()  # no task is running: it goes to the log
        elif self._executor.output_unchecked:
            self._protocol.results.add_output(*self._executor.late_output())

    def _publish(self, data: dict[str, Any]) -> None:
        """Send live data of the running task: called from user code."""
        if self._executor.is_forked:
            raise RuntimeError("publish_data works in the engine's process, not in one that a task has forked")
        job = self._protocol.job
        if job is None:
            raise RuntimeError("publish_data works inside a task")
        stream, buffers = payload.dumps(dict(data), keep=self._executor.keep)
        with self._executor.uninterrupted(), self._link_lock:
            self._link.send(Published(job[0].id, stream), buffers)

    # ------------------------------------------------------------------------------------------ signals

    def _on_sigint(self, number: int, frame: FrameType | None) -> None:
        if self._executor.is_running:
            raise KeyboardInterrupt
        self._nested.interrupt()

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._protocol.is_leaving = self._nested.is_terminated = True
        if self._executor.is_running:
            raise Terminated
        self._link.wake()  # `serve` sees that we leave


def make_engine(
    connection: ConnectionInfo,
    uuid: EngineUuid,
    nanny: NannyId,
    page: SharedPage,
    settings: EngineSettings,
    shares: Mapping[str, list[int]],
    captured: tuple[Captured, Captured] | None = None,
    lender: str = "",
) -> Engine:
    """The engine that this process is to be: its streams and its `__main__` are replaced.

    `lender`: where the nanny lends large buffers; "": nowhere.
    """
    introduction = introduce("engine", connection.key, uuid, nanny=nanny, resources=shares)
    session = LinkSession(introduction, PING_SECONDS, time.monotonic())
    link = connect(connection, lender)
    streams = install(settings.output_limit, captured)
    pool = Pool(RESULTS_KEPT) if link.shares_memory or lender else None
    executor = Executor(streams, payload.as_copy if pool is None else payload.shared(pool.copy, payload.as_copy))
    executor.uuid = uuid
    task_context.connection = connection
    return Engine(
        SessionLink(session, link, wire.decode_to_engine),
        executor,
        Interrupter(executor, page),
        streams,
        page,
        settings,
        shares,
        connection.url,
        pool,
    )


def _is_open(descriptor: int) -> bool:
    """Whether a file descriptor is open: a task may have closed it."""
    try:
        os.get_inheritable(descriptor)
    except OSError:
        return False
    return True
