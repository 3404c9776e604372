"""The client's connection: one I/O thread between the user's threads and the controller.

Submitting never waits for the network: tasks are put into a queue, and the thread sends whatever has gathered in
one message. Tasks that the controller has not accepted are kept, and sent again after a reconnection; the controller
recognises those it has.

Which thread does that work is said in `driving.py`: the I/O thread, or for a moment a thread that waits for a result.

    user's threads ──submit──▶ SubmissionWindow ──▶ I/O thread ──▶ link
                   ──request─▶ PendingRequests ───▶
                   ◀─ _arrived ─ Waiters ◀───────── I/O thread ◀── link
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...config import ConnectionInfo
from ...errors import (
    AuthenticationError,
    ControllerLost,
    EngineroomError,
    MessageTooLarge,
    SerializationError,
    WaitError,
)
from ...ids import ClientId, TaskId, new_uuid
from ...messages import (
    Accepted,
    EngineInfo,
    Engines,
    Goodbye,
    Message,
    Output,
    Pong,
    Published,
    Refused,
    Rejected,
    Reply,
    Request,
    RequestBody,
    Results,
    ResultsUnavailable,
    Started,
    Submit,
    Watch,
    Welcome,
    pieces,
)
from ...messages.bounds import MOST_ASKED
from ...messages.requests import URGENT, tasks_in_question
from ...printable import one_line
from ...shared_memory.pool import Pool
from ...transport import Link, connect
from ...transport.opening import urls_from_here
from ...wire import frames as wire
from ...wire.session import LinkSession, introduce, keys_refused_error, refusal_error
from . import connecting, forks
from .connecting import NOTICE_SECONDS, NoEngines, OtherPythons, WrongClocks
from .driving import RECEIVED_MOST, Driver
from .process_end import AtProcessEnd, was_interrupted
from .requests import Answer, PendingRequests, error_of
from .submission import Outgoing, SubmissionWindow
from .waiters import IOThread, Waiter, Waiters, is_delivering

log = logging.getLogger(__name__)

#: While so many tasks are out, and the last were submitted so few seconds ago, those that come next gather for a
#: moment: waking the I/O thread for each would cost more than the task.
STREAM = 64
STREAM_SECONDS, GATHER_SECONDS = 0.005, 0.001
PING_SECONDS = 1.0
#: After this silence of the controller, waiting ends with ControllerLost.
LOST_SECONDS = 30.0
#: Bytes of large arguments that are kept for some seconds after their tasks: they may be sent again, unchanged.
HELD_BYTES = 256 << 20
#: So long `close` waits at most until the controller has accepted more of what was submitted …
CLOSE_SECONDS = 60.0
#: … and after so long it says that it does.
CLOSE_NOTICE_SECONDS = 2.0
#: After that, what was said last has so long to leave.
LINGER_SECONDS = 0.5


class Channel:
    """A connection with a controller, until `close` or a failure."""

    def __init__(self, info: ConnectionInfo, *, timeout: float = 10.0, link: Link | None = None) -> None:
        """Connect, and wait for the controller's welcome. `link`: instead of one to the url of `info`.

        Raises
        ------
        ControllerLost, TimeoutError
            The controller does not answer within `timeout` seconds.
        AuthenticationError, ProtocolError
            It refuses us.
        """
        self.info = info
        self.session = ClientId(new_uuid())
        #: also those that a restarted controller expects back
        self.engines: list[EngineInfo] = []
        #: by number, those of `engines` that have not come back since the controller was restarted
        self.absent: dict[int, EngineInfo] = {}
        #: how many more engines are on their way
        self.starting = 0
        #: who chooses engines, unless a task says otherwise
        self.scheme = ""
        #: whether results are recorded, and can be had again
        self.keeps = True
        #: why this channel is of no use any more; None: it is
        self.failure: EngineroomError | None = None
        self.changed = threading.Condition()  # notified when `engines` or `failure` change
        #: gives the next number for a msg_id
        self.next_number = itertools.count().__next__
        self._prefix = f"{self.session}-"
        self._window = SubmissionWindow()
        self.waiters = Waiters(self._window.aborted)
        self._requests = PendingRequests()
        self._orders: deque[Message] = deque()  # what else is to be sent, behind the tasks: questions, Watch
        self._urgent: deque[Message] = deque()  # … and what does not wait for them
        self._outgoing, self._waiting = self._window.queue, self.waiters.by_task  # the hot path reaches them at once
        self._counts = LinkSession(introduce("client", info.key, self.session), PING_SECONDS, time.monotonic())
        self._must_greet = False  # something was lost: say Hello again
        self._has_noticed_silence = False
        self._no_engines, self._other_pythons, self._wrong_clocks = NoEngines(info), OtherPythons(), WrongClocks()
        #: whether only the I/O thread may drive
        self.is_closing = False
        #: how long the end may take, if it may not take CLOSE_SECONDS
        self._linger: float | None = None
        self._welcome, self._ended = threading.Event(), threading.Event()
        self._pid = os.getpid()
        forks.watch(self)
        self._link: Link = link or connect(info)
        #: where large buffers are put that are to be sent; None: they are sent as bytes
        self.pool = Pool(held=HELD_BYTES) if self._link.shares_memory else None
        self._driver = Driver(self, self._link)
        self._handlers: dict[type[Message], Callable[[Any, Sequence[Any]], None]] = {
            Welcome: self._on_welcome,
            Refused: self._on_refused,
            Accepted: self._on_accepted,
            Rejected: self._on_rejected,
            Results: self.waiters.on_results,
            ResultsUnavailable: self.waiters.on_gone,
            Output: self.waiters.on_news,
            Started: self.waiters.on_news,
            Published: self.waiters.on_news,
            Engines: self._on_engines,
            Reply: self._requests.on_reply,
            Pong: self._on_pong,
            Goodbye: self._on_goodbye,
        }
        self._thread = IOThread(target=self._run, name="engineroom-client", daemon=True)
        self._at_process_end = AtProcessEnd(self._close_at_process_end)
        self._thread.start()
        try:
            self._connect(timeout)
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------------------------------ the users' threads

    def name_session(self, name: str) -> bool:
        """Name the session, for the records of its tasks; returns whether it is in time: no task was submitted."""
        if self._window.last_packed or self._window.queue:
            return False
        self._window.session_name = name
        return True

    def new_id(self) -> TaskId:
        """A fresh msg_id."""
        return self.id_of(self.next_number())

    def id_of(self, number: int) -> TaskId:
        """The msg_id that has a number of `next_number`."""
        return self._prefix + str(number)  # type: ignore[return-value]  # a call of TaskId would cost as much again

    def submit(self, tasks: Sequence[tuple[Outgoing, Waiter]]) -> None:
        """Have tasks run, and their outcomes given to their waiters. Never blocks."""
        if self._pid != os.getpid():
            raise self.failure_error()
        try:
            for outgoing, waiter in tasks:
                self._waiting[outgoing[0].id] = waiter
                if self.failure is not None:
                    raise self.failure_error()
                self._outgoing.append(outgoing)
        except BaseException:  # Ctrl-C, too: nobody gets a result that has lost some of its tasks, nor waits for it
            self.withdraw([outgoing[0].id for outgoing, _ in tasks])
            raise
        if self._driver.is_asleep:
            self._have_sent(len(tasks))

    def submit_one(self, outgoing: Outgoing, waiter: Waiter, *, waits: bool = False) -> None:
        """The same for one task: the hot path. `waits`: the caller waits for it next, and so calls `drive`."""
        id = outgoing[0].id
        # First the waiter, then the look: when the channel fails at this moment, the waiter hears of it.
        self._waiting[id] = waiter
        if self.failure is not None:  # in a forked process, too: see `forked`
            self._waiting.pop(id, None)
            raise self.failure_error()
        self._outgoing.append(outgoing)
        if self._driver.is_asleep and not (waits and len(self._waiting) == 1):
            self._have_sent(1)

    def _have_sent(self, count: int) -> None:
        """Have what is queued sent: by this thread, if these `count` tasks are all that there is to do."""
        # More tasks are to gather: the I/O thread sends together what has come until it runs.
        if len(self._waiting) > count or not self._driver.send_now():
            self._driver.wake()

    def drive(self, ready: Callable[[], bool], limit: float | None) -> bool:
        """Do the I/O in this thread until `ready()`, for `limit` seconds at most. False: the caller has to wait."""
        # A forked process must not touch the driver: what it sleeps on is the parent's, too.
        return self.failure is None and self._driver.drive(ready, limit)

    def expect(self, ids: Sequence[TaskId], waiter: Waiter, *, watch: bool = True) -> None:
        """Have the outcomes of tasks that were submitted elsewhere given to a waiter.

        `watch`: ask the controller for them. Without it the caller's next question leads to them.
        """
        for id in ids:
            self._waiting[id] = waiter
        try:
            if self.failure is not None:
                raise self.failure_error()
            if watch:
                for some in pieces(ids):
                    self._order(Watch(list(some)))
        except EngineroomError:
            self.withdraw(ids)
            raise

    def request(self, body: RequestBody) -> Answer:
        """Ask a question; the Future's result is the answer.

        It is sent behind the tasks that were submitted before it; one of `URGENT`, or that names other tasks than those
        that are queued, only behind those that have room.

        Its errors are those the controller names: QueryError, UnknownTask, PendingTask …
        """
        request, future = self._requests.add(body)
        try:
            if self.failure is not None or self._pid != os.getpid():
                raise self.failure_error()
            self._order(request)
        except EngineroomError:
            self._requests.drop(request)
            raise
        return future

    def ask(self, body: RequestBody, timeout: float | None = None) -> Any:
        """Ask a question and wait for the answer. WaitError in the I/O thread, through which the answer comes."""
        if is_delivering():
            raise WaitError("a question is asked in the thread through which the answer comes: it would never end")
        return self._requests.wait(self.request(body), timeout, self.request)

    def waiter_of(self, id: TaskId) -> Waiter | None:
        """Who waits for a task; None: nobody, or it has its outcome."""
        return self._waiting.get(id)

    def withdraw(self, ids: Iterable[TaskId]) -> None:
        """Stop waiting for tasks: their outcomes are given to nobody."""
        self.waiters.withdraw(ids)

    def outstanding(self) -> set[TaskId]:
        """Tasks without an outcome."""
        return set(self._waiting.copy())

    @property
    def is_all_accepted(self) -> bool:
        """Whether the controller has recorded every task that was submitted."""
        return not self._window.unaccepted_tasks

    def failure_error(self) -> EngineroomError:
        """A fresh exception that says why this channel is of no use any more."""
        if self._pid != os.getpid():
            return ControllerLost("this client belongs to the parent process: make a Client() of your own after a fork")
        assert self.failure is not None
        return type(self.failure)(*self.failure.args)

    def close(self, linger: float | None = None, *, submit_rest: bool = True) -> None:
        """End the session, once the controller has accepted the tasks. They go on; results stay in the database.

        `linger`: seconds that this may take; by default as long as the controller accepts some every 60 s.
        `submit_rest`: have growing maps submit the rest of their chunks.
        """
        if self._pid != os.getpid():
            return
        if submit_rest and not self.is_closing:
            for growing in self.waiters.growing.copy():
                growing._submit_rest()
        self.is_closing = True
        self._linger = linger
        self._driver.wake()
        if self._thread is not threading.current_thread():
            self._ended.wait()  # a `join` that Ctrl-C interrupts would count as one that is over
            self._thread.join()

    def _close_at_process_end(self) -> None:
        try:
            self.close(submit_rest=not was_interrupted())
        except KeyboardInterrupt:
            self.close(linger=0.0, submit_rest=False)

    def abandon(self) -> None:
        """End the session soon: nobody uses it any more. Does not wait."""
        if self._pid == os.getpid() and not self.is_closing:
            self.is_closing = True
            self._driver.wake()

    def forked(self) -> None:
        """This is a process that was forked from ours, and has no I/O thread."""
        self.changed = threading.Condition()  # the I/O thread may have held it
        self.failure = self.failure_error()
        for waiter in self.waiters.all():
            waiter._forked()

    def _order(self, message: Message) -> None:
        # The controller ends the session of a client that sends nonsense. So the caller alone pays for it, here.
        try:
            encoded = wire.encode(message)
            wire.decode_from_client(encoded)
        except Exception as error:
            raise SerializationError(f"this cannot be sent: {error}") from None
        if len(encoded) > MOST_ASKED:
            raise MessageTooLarge(
                f"this question has {len(encoded):,} bytes, more than the limit of {MOST_ASKED:,}. Ask several: if its "
                "query lists tasks, some 50,000 at a time"
            )
        is_urgent = isinstance(message, Request) and self._is_urgent(message.body)
        (self._urgent if is_urgent else self._orders).append(message)
        self._driver.wake()

    def _is_urgent(self, body: RequestBody) -> bool:
        """Whether a question says nothing about the tasks that are queued here."""
        if isinstance(body, URGENT):
            return True
        named = tasks_in_question(body) if self._outgoing and self._requests.has_room else None
        return named is not None and not self._window.has_queued(named)

    def _connect(self, timeout: float) -> None:
        """Wait for the controller's welcome."""
        deadline = time.monotonic() + timeout
        while not self._welcome.wait(min(0.25, max(0.0, deadline - time.monotonic()))):
            if self.failure is not None:
                raise self.failure_error()
            if time.monotonic() >= deadline:
                raise connecting.no_answer_error(self.info, timeout)
        if self.failure is not None:
            raise self.failure_error()

    # ------------------------------------------------------------------------------------------ the I/O thread

    def _run(self) -> None:
        try:
            self._hello()
            while not self.is_closing:
                self._driver.turn()
            self._driver.stop_sharing()
            self._hand_over()
            if self.failure is None:
                self._send(Goodbye())
        except Exception as error:
            self.broken(error)
        finally:
            self._driver.stop_sharing()
            linger = LINGER_SECONDS if self._linger is None else self._linger
            self._link.close(linger=linger if self.failure is None else 0.0)
            if self.pool is not None:
                self.pool.close()
            if self.failure is None:
                self._fail(ControllerLost("this client is closed"))
            self._driver.close()
            self._at_process_end.forget()
            self._ended.set()

    def _hand_over(self) -> None:
        """The session ends: wait until the controller has accepted what was submitted, for a while."""
        if self.failure is not None or not self._welcome.is_set():
            return
        self.flush()
        begin, window, has_told = time.monotonic(), self._window, False
        least, accepted_at = window.unaccepted_tasks, begin
        while (count := window.unaccepted_tasks) or self._orders or self._urgent:
            taken = (now := time.monotonic()) - begin
            if count < least:
                least, accepted_at = count, now
            is_late = now - accepted_at > CLOSE_SECONDS if self._linger is None else taken > self._linger
            if is_late or self.failure is not None:
                if count:
                    _notice(f"{count:,} tasks may be lost: the controller has not accepted them. Its log says why")
                return
            if taken > CLOSE_NOTICE_SECONDS and not has_told:
                has_told = True
                _notice(f"this client ends once the controller has accepted its last {count:,} tasks (see its log)")
            self._driver.turn()

    # ------------------------------------------------------------------------------------------ the thread that drives

    def has_work(self) -> bool:
        """Whether `flush` would send something."""
        if self._urgent or not self._counts.is_welcome:
            return self._counts.is_welcome
        may_ask = bool(self._orders) and self._requests.has_room
        return self._window.has_room or (may_ask and self._window.is_shut) if self._outgoing else may_ask

    def pause(self) -> tuple[float, bool]:
        """There is nothing to do: how long the I/O thread may sleep, and whether it is woken for the next task."""
        now = time.monotonic()
        if len(self._waiting) >= STREAM and now - self._window.last_packed < STREAM_SECONDS:
            return GATHER_SECONDS, False  # a stream of tasks: nobody needs to wake us for the next one
        return max(0.0, self._counts.next_ping - now), True

    def next_sign(self) -> float:
        """When the next sign of life is due (monotonic seconds)."""
        return self._counts.next_ping

    def broken(self, error: Exception) -> None:
        """A bug in the thread that drives must not leave anybody waiting."""
        log.error("a bug in the thread that drives the connection", exc_info=error)
        self._fail(ControllerLost(f"the client's connection failed: {error!r}"))

    def cut_off(self) -> None:
        """The work was cut off in the middle, by an exception from outside: both ends say again what may be lost."""
        self._must_greet = True

    def turn(self) -> int:
        """Take in what has arrived, and send what has gathered. See `Driven.turn`."""
        arrived = self._link.receive(RECEIVED_MOST)
        if arrived:
            now, handlers = time.monotonic(), self._handlers
            for parts in arrived:
                self._counts.count_received(parts[0], now)
                message = wire.decode_to_client(parts[0])
                if self._counts.believes(message):
                    handlers[type(message)](message, parts[1:])
        if self._must_greet:
            self._must_greet = False
            self._hello()
        if self._outgoing or self._orders or self._urgent:
            self.flush()
        self._keep_alive()
        return len(arrived)

    def _send(self, message: Message, buffers: Sequence[Any] = ()) -> None:
        header = wire.encode(message)
        self._counts.count_sent(header)
        self._link.send([header, *buffers])

    def _hello(self) -> None:
        self._link.send([wire.encode(self._counts.hello(time.monotonic()))])

    def flush(self) -> None:
        """Send what has gathered, once we are welcome. After a Hello, what is said again comes first."""
        if not self._counts.is_welcome or self.failure is not None:
            return
        # Counted first, sent last: a question never overtakes the tasks that were submitted before it.
        orders, urgent, window = len(self._orders), len(self._urgent), self._window
        while window.queue and (packed := window.pack_next()) is not None:
            self._send_tasks(*packed)
        for _ in range(urgent):  # these do not wait for tasks that have no room
            self._send_order(self._urgent.popleft())
        if not window.queue or window.is_shut:
            for _ in range(orders):
                if not self._requests.has_room:
                    break
                self._send_order(self._orders.popleft())

    def _send_order(self, message: Message) -> None:
        if isinstance(message, Request):
            self._requests.sent(message)
            self.waiters.taken_back(self._window.take_back(message.body))
        self._send(message)

    def _send_tasks(self, message: Submit, frames: Sequence[Any]) -> None:
        try:
            message.sent = self._counts.sent + 1
            self._send(message, frames)
        except (TypeError, ValueError, OverflowError) as error:  # a task that cannot be encoded harms no other message
            text = f"cannot be sent: {error}"
            self.waiters.fail(self._window.unsendable(message), lambda: SerializationError(text))
        else:
            self._window.sent(message)

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if now < self._counts.next_ping and not self._link.take_renewed():  # after a new connection, ask at once
            return
        self._send(self._counts.ping(now, time.time()))
        if self.pool is not None:
            self.pool.tidy()
        _notice(self._window.notice(now))
        _notice(self._no_engines.notice(len(self._waiting), now))
        if self._link.refused():
            self._fail(keys_refused_error(urls_from_here(self.info)[0]))
        silence = self._counts.silence(now)
        if not self._welcome.is_set():
            return  # `_connect` has the time limit
        if silence > LOST_SECONDS:
            self._fail(connecting.silence_error(self.info, silence))
        elif silence > NOTICE_SECONDS and not self._has_noticed_silence:
            self._has_noticed_silence = True
            _notice(f"the controller does not answer; reconnecting for up to {LOST_SECONDS:.0f} s …")

    def _fail(self, error: EngineroomError) -> None:
        """Nothing more will come: tell everybody who waits."""
        if self.failure is None:
            self.failure = error
        self._requests.fail(self.failure_error)
        self.waiters.fail(list(self._waiting), self.failure_error)
        self._window.give_up()
        self._welcome.set()
        with self.changed:
            self.engines, self.starting = [], 0
            self.changed.notify_all()
        self.is_closing = True

    # ------------------------------------------------------------------------------------------ what arrives

    def _on_welcome(self, message: Welcome, frames: Sequence[Any]) -> None:
        is_again, incarnation = self._welcome.is_set(), self._counts.incarnation
        try:
            if not self._counts.on_welcome(message):
                return
        except AuthenticationError as error:
            self._fail(error)
            return
        if message.incarnation != incarnation:
            if is_again:
                self._window.controller_restarted(takes_former=message.takes_former)
                self._requests.controller_restarted()
            self.absent = {engine.id: engine for engine in (*self.engines, *message.awaited)}
        self._window.tell_environment_again()
        self.scheme, self.keeps = message.scheme, message.keeps
        self._requests.may_withdraw = message.takes_withdrawals
        self._on_engines(Engines(message.engines, message.starting, message.returning), ())
        self._welcome.set()
        if self._has_noticed_silence:
            self._has_noticed_silence = False
            _notice("reconnected")
        if is_again:
            self._reconcile()

    def _reconcile(self) -> None:
        """After a reconnection: say again what may have been lost, ask for what may have been missed."""
        for message, frames in self._window.pack_again():
            self._send_tasks(message, frames)
        # The controller may not know these yet, but will: they are on their way.
        coming = self._window.tasks() | self._requests.resubmitted()
        missing = [id for id in self._waiting.copy() if id not in coming]
        if missing:
            for some in pieces(missing):
                self._send(Watch(list(some)))
        for request in self._requests.unanswered():
            if request not in self._orders and request not in self._urgent:
                self._send_order(request)

    def _on_refused(self, message: Refused, frames: Sequence[Any]) -> None:
        self._fail(refusal_error(message, urls_from_here(self.info)[0]))

    def _on_accepted(self, message: Accepted, frames: Sequence[Any]) -> None:
        self._window.accepted(message.numbers)

    def _on_rejected(self, message: Rejected, frames: Sequence[Any]) -> None:
        self._must_greet |= message.code == "functions"  # then all is said again, in order
        self.waiters.fail(self._window.rejected(message), lambda: error_of(message.error))

    def _on_engines(self, message: Engines, frames: Sequence[Any]) -> None:
        self._no_engines.heard(bool(message.engines or message.starting), time.monotonic())
        _notice(self._other_pythons.notice(message.engines))
        _notice(self._wrong_clocks.notice(message.engines))
        here = {engine.id for engine in message.engines}
        self.absent = {id: e for id, e in self.absent.items() if id not in here} if message.returning else {}
        with self.changed:
            self.engines = sorted([*message.engines, *self.absent.values()], key=lambda engine: engine.id)
            self.starting = message.starting
            self.changed.notify_all()

    def _on_pong(self, message: Pong, frames: Sequence[Any]) -> None:
        self._window.hear(message.no_room)
        _notice(self._wrong_clocks.own(message.ahead))
        self._must_greet |= not self._counts.on_pong(message)

    def _on_goodbye(self, message: Goodbye, frames: Sequence[Any]) -> None:
        self._fail(connecting.goodbye_error(self.info, message))


def _notice(text: str) -> None:
    """Tell the user something, without disturbing what the program prints; "": there is nothing to tell."""
    if text:
        print(f"engineroom: {one_line(text)}", file=sys.stderr)
