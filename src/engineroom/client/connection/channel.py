"""The client's connection: one I/O thread between the user's threads and the controller.

Submitting never waits for the network: tasks are put into a queue, and the thread sends whatever has gathered in
one message. What the controller has not acknowledged is kept, and sent again after a reconnection; the controller
recognises what it has seen.

    user's threads ──submit──▶ queue ──▶ I/O thread ──▶ link
                   ◀─ _arrived ─ waiters ◀─ I/O thread ◀── link
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import platform
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from ... import _version
from ...config import ConnectionInfo
from ...errors import (
    OUTCOMES,
    AuthenticationError,
    ControllerLost,
    EngineroomError,
    ProtocolError,
    RemoteError,
    SerializationError,
    UnknownTask,
)
from ...ids import ClientId, Digest, TaskId, new_uuid
from ...messages import (
    Accepted,
    Body,
    EngineInfo,
    Engines,
    ErrorInfo,
    Function,
    Gone,
    Goodbye,
    Hello,
    Message,
    Output,
    Ping,
    Pong,
    Published,
    Refused,
    Rejected,
    Reply,
    Request,
    Resubmit,
    Results,
    Started,
    Submit,
    TaskDone,
    TaskSpec,
    Watch,
    Welcome,
)
from ...transport import ZmqLink
from ...wire import frames as wire
from .connecting import NOTICE_SECONDS, has_ended, lost
from .environment import environment

log = logging.getLogger(__name__)

#: Tasks in one message.
BATCH = 512
#: Bytes of arguments in one message, beyond which the next begins.
BATCH_BYTES = 8 << 20
#: Bytes of arguments on their way and not yet acknowledged. What is beyond waits here, so that the controller's
#: memory is bounded however fast tasks are submitted.
WINDOW_BYTES = 256 << 20
#: While so many tasks are out, and the last were submitted so few seconds ago, those that come next gather for a
#: moment: waking the I/O thread for each would cost more than the task.
STREAM = 64
STREAM_SECONDS = 0.005
GATHER_SECONDS = 0.001
PING_SECONDS = 1.0
#: After this silence waits end.
LOST_SECONDS = 30.0

#: One task on its way out: (spec, its function or None, its large buffers)
Outgoing = tuple[TaskSpec, Function | None, Sequence[Any]]

#: Guards the moment in which a result without listeners becomes ready (see result.py).
fulfilling = threading.Lock()


class Waiter(Protocol):
    """Who waits for a task: an AsyncResult."""

    def _arrived(self, done: TaskDone, frames: Sequence[Any], now: float) -> bool:
        """Take in an outcome, with `fulfilling` held. True: `_announce` must be called once it is released."""

    def _announce(self) -> None:
        """Tell the threads that wait."""

    def _failed(self, id: TaskId, error: Exception) -> None:
        """There will be no outcome."""

    def _heard(self, id: TaskId, news: Output | Started | Published, frames: Sequence[Any]) -> None:
        """Something of a running task."""

    def _no_more(self) -> None:
        """Its tasks are to be aborted: submit no others."""


class Channel:
    """A session with a controller."""

    def __init__(self, info: ConnectionInfo, *, timeout: float = 10.0) -> None:
        self.info = info
        self.session = ClientId(new_uuid())
        self.engines: list[EngineInfo] = []
        #: how many more engines are on their way
        self.starting = 0
        self.incarnation = ""
        #: who chooses engines, unless a task says otherwise
        self.scheme = ""
        #: whether results are recorded, and can be had again
        self.keeps = True
        #: why this channel is of no use any more; None: it is
        self.failure: EngineroomError | None = None
        self.changed = threading.Condition()  # notified when `engines` or `failure` change
        self._ids = itertools.count()
        self._prefix = f"{self.session}-"
        self._outgoing: deque[Outgoing] = deque()
        self._orders: deque[Message] = deque()
        self._waiting: dict[TaskId, Waiter] = {}
        self._requests: dict[int, tuple[Request, Future[Any]]] = {}
        self._unaccepted: dict[int, tuple[list[Outgoing], int]] = {}  # batches and their bytes …
        self._window = 0  # … and all of those
        self._known: set[Digest] = set()
        self._told_environment = False
        self._numbers = itertools.count(1)
        self._sent = self._received = 0
        self._resync = False
        self._noticed = False
        self._last_heard = time.monotonic()
        self._next_ping = 0.0
        self._submitted = 0.0
        self._closing = False
        self._welcome = threading.Event()
        self._pid = os.getpid()
        self._asleep = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._link = ZmqLink(info.url, self.session.encode(), curve_serverkey=info.curve_serverkey)
        self._handlers: dict[type[Message], Callable[[Any, Sequence[Any]], None]] = {
            Welcome: self._on_welcome,
            Refused: self._on_refused,
            Accepted: self._on_accepted,
            Rejected: self._on_rejected,
            Results: self._on_results,
            Gone: self._on_gone,
            Output: self._on_news,
            Started: self._on_news,
            Published: self._on_news,
            Engines: self._on_engines,
            Reply: self._on_reply,
            Pong: self._on_pong,
            Goodbye: self._on_goodbye,
        }
        self._thread = threading.Thread(target=self._run, name="engineroom-client", daemon=True)
        self._thread.start()
        try:
            self._connect(timeout)
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------------------------------ the users' threads

    def new_id(self) -> TaskId:
        """A fresh msg_id."""
        return TaskId(self._prefix + str(next(self._ids)))

    def submit(self, tasks: Iterable[tuple[Outgoing, Waiter]]) -> None:
        """Have tasks run, and their outcomes given to their waiters. Never blocks."""
        if self.failure is not None or self._pid != os.getpid():
            raise self.failure_error()
        for outgoing, waiter in tasks:
            self._waiting[outgoing[0].id] = waiter
            self._outgoing.append(outgoing)
        if self._asleep:
            self._wake()

    def submit_one(self, outgoing: Outgoing, waiter: Waiter) -> None:
        """The same for one task: the hot path."""
        if self.failure is not None or self._pid != os.getpid():
            raise self.failure_error()
        self._waiting[outgoing[0].id] = waiter
        self._outgoing.append(outgoing)
        if self._asleep:
            self._wake()

    def expect(self, ids: Sequence[TaskId], waiter: Waiter, *, watch: bool = True) -> None:
        """Have the outcomes of tasks that were submitted elsewhere given to a waiter."""
        if self.failure is not None:
            raise self.failure_error()
        for id in ids:
            self._waiting[id] = waiter
        if watch:
            try:
                self._order(Watch(list(ids)))
            except SerializationError:
                for id in ids:
                    self._waiting.pop(id, None)
                raise

    def request(self, body: Body) -> Future[Any]:
        """Ask a question; the Future's result is the answer.

        Its errors are those the controller names: QueryError, UnknownTask, PendingTask …
        """
        if self.failure is not None or self._pid != os.getpid():
            raise self.failure_error()
        future: Future[Any] = Future()
        request = Request(next(self._numbers), body)  # type: ignore[arg-type]
        self._requests[request.number] = (request, future)
        try:
            self._order(request)
        except SerializationError:
            del self._requests[request.number]
            raise
        return future

    def ask(self, body: Body, timeout: float | None = None) -> Any:
        """Ask a question and wait for the answer."""
        return self.request(body).result(timeout)

    @property
    def waiting(self) -> dict[TaskId, Waiter]:
        """The tasks without an outcome and who waits for each, at this moment: a copy."""
        return self._waiting.copy()

    def waiter_of(self, id: TaskId) -> Waiter | None:
        """Who waits for a task; None: nobody, or it has its outcome."""
        return self._waiting.get(id)

    def withdraw(self, ids: Iterable[TaskId]) -> None:
        """Stop waiting for tasks: their outcomes are given to nobody."""
        for id in ids:
            self._waiting.pop(id, None)

    def outstanding(self) -> set[TaskId]:
        """Tasks without an outcome."""
        return set(self._waiting.copy())

    def failure_error(self) -> EngineroomError:
        """A fresh exception that says why this channel is of no use any more: for whoever calls it after that."""
        if self._pid != os.getpid():
            return ControllerLost("this client belongs to the parent process: make a Client() of your own after a fork")
        assert self.failure is not None
        return type(self.failure)(*self.failure.args)

    def close(self, linger: float = 0.5) -> None:
        """End the session. Tasks go on; their results stay in the database."""
        if self._pid != os.getpid():
            return
        self._closing = True
        self._linger = linger
        self._wake()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _order(self, message: Message) -> None:
        try:  # in the caller's thread, and of no harm to anybody else: the controller ends a session for such a message
            wire.decode_from_client(wire.encode(message))
        except Exception as error:
            raise SerializationError(f"this cannot be sent: {error}") from None
        self._orders.append(message)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"w")

    _useless = failure_error  # until its callers are renamed

    def _connect(self, timeout: float) -> None:
        """Wait for the controller's welcome."""
        deadline = time.monotonic() + timeout
        while not self._welcome.wait(min(0.25, max(0.0, deadline - time.monotonic()))):
            if self.failure is not None:
                raise self.failure_error()
            if time.monotonic() >= deadline:
                if has_ended(self.info):
                    raise lost(self.info, timeout)
                raise TimeoutError(
                    f"the controller at {self.info.url} did not answer within {timeout:g} s. Is it running, and can "
                    f"this host reach {self.info.location or 'it'}?"
                )
        if self.failure is not None:
            raise self.failure_error()

    # ------------------------------------------------------------------------------------------ the I/O thread

    def _run(self) -> None:
        try:
            self._hello()
            while not self._closing:
                self._turn()
            self._flush()
            if self.failure is None:
                self._send(Goodbye())
        except Exception as error:  # a bug here must not leave anybody waiting
            log.exception("a bug in the client's I/O thread")
            self._fail(ControllerLost(f"the client's I/O thread failed: {error!r}"))
        finally:
            self._link.close(linger=getattr(self, "_linger", 0.0) if self.failure is None else 0.0)
            if self.failure is None:
                self._fail(ControllerLost("this client is closed"))
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_write = -1

    def _turn(self) -> None:
        arrived = self._link.receive()
        if not arrived and not self._has_work():
            wait = max(0.0, self._next_ping - time.monotonic())
            if len(self._waiting) >= STREAM and time.monotonic() - self._submitted < STREAM_SECONDS:
                wait = GATHER_SECONDS  # a stream of tasks: nobody needs to wake us for the next one
            else:
                self._asleep = True
            if not self._has_work() and not self._closing:
                select.select([self._link.fileno(), self._wake_read], [], [], min(wait, PING_SECONDS))
            self._asleep = False
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            arrived = self._link.receive()
        for parts in arrived:
            self._received += 1
            message = wire.decode_to_client(parts[0])
            self._handlers[type(message)](message, parts[1:])
        if arrived:
            self._last_heard = time.monotonic()
        if self._resync:
            self._resync = False
            self._hello()
        self._flush()
        self._keep_alive()

    def _send(self, message: Message, buffers: Sequence[Any] = ()) -> None:
        self._sent += 1
        self._link.send([wire.encode(message), *buffers])

    def _hello(self) -> None:
        self._link.send(
            [
                wire.encode(
                    Hello(
                        _version.PROTOCOL_VERSION,
                        "client",
                        self.info.key,
                        self.session,
                        self._pid,
                        socket.gethostname(),
                        platform.python_version(),
                    )
                )
            ]
        )
        self._sent = 1
        self._next_ping = time.monotonic() + PING_SECONDS

    def _flush(self) -> None:
        """Send what has gathered, once we are welcome."""
        if not self._welcome.is_set() or self.failure is not None:
            return
        # Counted first, sent last: a question never overtakes the tasks that were submitted before it.
        orders, outgoing = len(self._orders), self._outgoing
        while outgoing and self._window < WINDOW_BYTES:
            batch: list[Outgoing] = []
            size = 0
            while outgoing and len(batch) < BATCH and size < BATCH_BYTES:
                task = outgoing.popleft()
                batch.append(task)
                size += len(task[0].payload) + (wire.size(b"", task[2]) if task[2] else 0)
            self._submit(batch, size)
        if not outgoing:
            for _ in range(orders):
                self._send(self._orders.popleft())

    def _has_work(self) -> bool:
        """Whether `_flush` would send something."""
        return self._window < WINDOW_BYTES if self._outgoing else bool(self._orders)

    def _submit(self, batch: list[Outgoing], size: int, *, resent: bool = False) -> None:
        number = next(self._numbers)
        self._submitted = time.monotonic()
        self._unaccepted[number] = (batch, size)
        self._window += size
        known, functions, specs, cached = self._known, [], [], False
        table = wire.FrameTable()
        for spec, function, buffers in batch:
            if function is not None and function.digest not in known:
                known.add(function.digest)
                functions.append(function)
            if buffers:
                spec.frames = table.add(buffers)
            if spec.options is not None and spec.options.cache is not None:
                cached = True
            specs.append(spec)
        try:
            told = None if self._told_environment else environment()
            self._send(Submit(number, specs, functions, resent, cached, told), table.frames)
            self._told_environment = True
        except (TypeError, ValueError, OverflowError) as error:  # what cannot be encoded harms nobody but its tasks
            self._sent -= 1
            known.difference_update(function.digest for function in functions)
            self._on_rejected(Rejected(number, ErrorInfo("SerializationError", f"cannot be sent: {error}")), ())

    def _answered(self, number: int) -> list[Outgoing]:
        """A Submit has its answer; returns its tasks."""
        batch, size = self._unaccepted.pop(number, ([], 0))
        self._window -= size
        return batch

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if now < self._next_ping:
            return
        self._next_ping = now + PING_SECONDS
        self._send(Ping(self._sent + 1))
        if self._link.refused():
            self._fail(
                AuthenticationError(
                    f"the controller at {self.info.url} refused our encryption keys: this connection file is not "
                    "its own (any more)."
                )
            )
        silence = now - self._last_heard
        if not self._welcome.is_set():
            return  # `_connect` has the time limit
        if silence > LOST_SECONDS:
            self._fail(
                ControllerLost(
                    f"the controller at {self.info.url} (pid {self.info.pid} on {self.info.location}) has been silent "
                    f"for {silence:.0f} s. What it acknowledged is in its database: when it runs again, Client() and "
                    "get_result(msg_id) find it."
                )
            )
        elif silence > NOTICE_SECONDS and not self._noticed:
            self._noticed = True
            print(
                f"engineroom: the controller does not answer; reconnecting for up to {LOST_SECONDS:.0f} s …",
                file=sys.stderr,
            )

    def _fail(self, error: EngineroomError) -> None:
        """Nothing more will come: tell everybody who waits."""
        if self.failure is None:
            self.failure = error
        for _, future in list(self._requests.values()):
            if not future.done():
                future.set_exception(self.failure_error())
        self._requests.clear()
        waiting, self._waiting = self._waiting, {}
        for id, waiter in waiting.items():
            waiter._failed(id, self.failure_error())
        self._welcome.set()
        with self.changed:
            self.engines, self.starting = [], 0
            self.changed.notify_all()
        self._closing = True

    # ------------------------------------------------------------------------------------------ hearing

    def _on_welcome(self, message: Welcome, frames: Sequence[Any]) -> None:
        again = self._welcome.is_set()
        self._received = 0
        if message.incarnation != self.incarnation:
            self._known = set()
            self._told_environment = False
        self.incarnation = message.incarnation
        self.scheme, self.keeps = message.scheme, message.keeps
        self._on_engines(Engines(message.engines, message.starting), ())
        self._welcome.set()
        if self._noticed:
            self._noticed = False
            print("engineroom: reconnected", file=sys.stderr)
        if again:
            self._reconcile()

    def _reconcile(self) -> None:
        """After a reconnection: say again what may have been lost, ask for what may have been missed."""
        unaccepted, self._unaccepted, self._window = self._unaccepted, {}, 0
        resent = set()
        for batch, size in unaccepted.values():
            resent |= {spec.id for spec, _, _ in batch}
            self._submit(batch, size, resent=True)
        unsent = {spec.id for spec, _, _ in list(self._outgoing)}
        for request, _ in list(self._requests.values()):  # the controller may know of these once it is asked again
            if isinstance(request.body, Resubmit):
                unsent.update(request.body.new)
        missing = [id for id in self._waiting.copy() if id not in resent and id not in unsent]
        if missing:
            self._send(Watch(missing))
        for request, _ in list(self._requests.values()):
            if request not in self._orders:
                self._send(request)

    def _on_refused(self, message: Refused, frames: Sequence[Any]) -> None:
        if message.code == AuthenticationError.code:
            self._fail(
                AuthenticationError(
                    f"the controller at {self.info.url} refused us: {message.reason}. The connection file is not this "
                    "controller's (any more): use the one in its profile's security folder."
                )
            )
        else:
            self._fail(ProtocolError(f"the controller at {self.info.url} refused us: {message.reason}"))

    def _on_accepted(self, message: Accepted, frames: Sequence[Any]) -> None:
        for number in message.numbers:
            self._answered(number)

    def _on_rejected(self, message: Rejected, frames: Sequence[Any]) -> None:
        batch = self._answered(message.number)
        if message.code == "functions":
            self._known -= {spec.function for spec, _, _ in batch}
            self._outgoing.extendleft(reversed(batch))
            return
        for spec, _, _ in batch:
            waiter = self._waiting.pop(spec.id, None)
            if waiter is not None:
                waiter._failed(spec.id, error_of(message.error))

    def _on_results(self, message: Results, frames: Sequence[Any]) -> None:
        waiting, announce, now = self._waiting, [], time.time()
        with fulfilling:
            for done in message.tasks:
                waiter = waiting.pop(done.id, None)
                if waiter is not None and waiter._arrived(done, wire.pick(done, frames) if done.frames else (), now):
                    announce.append(waiter)
        for waiter in announce:
            waiter._announce()

    def _on_gone(self, message: Gone, frames: Sequence[Any]) -> None:
        for id in message.tasks:
            waiter = self._waiting.pop(id, None)
            if waiter is not None:
                waiter._failed(id, UnknownTask(f"the result of {id} cannot be had: {message.reason}"))

    def _on_news(self, message: Output | Started | Published, frames: Sequence[Any]) -> None:
        waiter = self._waiting.get(message.task)
        if waiter is not None:
            waiter._heard(message.task, message, frames)

    def _on_engines(self, message: Engines, frames: Sequence[Any]) -> None:
        had_some, has_some = self.engines or self.starting, message.engines or message.starting
        if had_some and not has_some and self._waiting:
            print(
                f"engineroom: there are no engines left and none are starting; {len(self._waiting)} tasks wait until "
                "some join (`ipcluster engines -n 2`), or are aborted",
                file=sys.stderr,
            )
        with self.changed:
            self.engines = sorted(message.engines, key=lambda engine: engine.id)
            self.starting = message.starting
            self.changed.notify_all()

    def _on_reply(self, message: Reply, frames: Sequence[Any]) -> None:
        _, future = self._requests.pop(message.number, (None, None))
        if future is None or future.done():
            return  # nobody waits any more
        if message.error is not None:
            future.set_exception(error_of(message.error))
        else:
            future.set_result(message.value)

    def _on_pong(self, message: Pong, frames: Sequence[Any]) -> None:
        if not message.known or message.sent != self._received:
            self._resync = True

    def _on_goodbye(self, message: Goodbye, frames: Sequence[Any]) -> None:
        self._fail(ControllerLost(f"{message.reason}. Its records stay in the database of the profile."))


def error_of(info: ErrorInfo) -> Exception:
    """The exception that an answer of the controller names."""
    if info.ename in OUTCOMES:
        return OUTCOMES[info.ename](info.evalue)
    if info.ename in ("IndexError", "KeyError"):
        return IndexError(info.evalue) if info.ename == "IndexError" else UnknownTask(info.evalue)
    return RemoteError(info.ename, info.evalue, info.traceback, {"method": "controller"})
