"""What an engine and the controller say to each other about tasks.

It takes tasks, gives them back, asks for functions, keeps results until they are stored, and begins the session anew
when something was lost. It does not run tasks, does not wait, and knows no thread: everything here is called with
the link's lock held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .._version import __version__
from ..errors import AuthenticationError
from ..ids import Digest, EngineId, TaskId
from ..messages import (
    Cancel,
    CheckProperties,
    ErrorInfo,
    Function,
    Functions,
    Goodbye,
    Message,
    NeedFunctions,
    Pong,
    PropertiesChecked,
    PropertyCheck,
    Recall,
    Refused,
    Returned,
    Run,
    Stop,
    Stored,
    TaskDone,
    Waiting,
    Welcome,
)
from ..printable import one_line
from .jobs import Job, Jobs, held
from .property_checks import PropertyChecks
from .result_buffer import ResultBuffer
from .session_link import SessionLink
from .shared_page import SharedPage

#: The longest wait for results to leave this process, before the next task begins.
LEAVE_BEHIND_SECONDS = 0.1


class FunctionKeeper(Protocol):
    """Keeps the functions of tasks: an Executor."""

    engine: EngineId
    uuid: str

    def learn(self, new: Sequence[Function]) -> None:
        """Take in functions."""


class EngineProtocol:
    """The engine's part of the conversation."""

    def __init__(
        self,
        link: SessionLink,
        keeper: FunctionKeeper,
        page: SharedPage,
        checks: PropertyChecks,
        interrupt: Callable[[], None],
    ) -> None:
        """`interrupt`: stop the running task, which was cancelled."""
        self.link = link
        self._keeper = keeper
        self._page = page
        self._interrupt = interrupt
        self.checks = checks
        self.jobs = Jobs()
        self.results = ResultBuffer(link.lend)
        #: the running task
        self.job: Job | None = None
        #: tasks that have begun, and wait for other tasks: the last of them waits inside the one before it
        self.waiting: list[Job] = []
        #: those of them that were cancelled meanwhile
        self.cancelled: set[TaskId] = set()
        #: whether the engine is to leave
        self.is_leaving = False
        self._handlers: dict[type[Message], Callable[[Any, Sequence[Any]], None]] = {
            Welcome: self._on_welcome,
            Run: self._on_run,
            Recall: self._on_recall,
            Cancel: self._on_cancel,
            Functions: self._on_functions,
            Stored: self._on_stored,
            CheckProperties: self._on_ask,
            Stop: self._on_stop,
            Pong: self._on_pong,
            Refused: self._on_refused,
        }

    # ------------------------------------------------------------------------------------------ saying

    def hello(self) -> None:
        """Begin the session (anew): say what we hold. What may not be stored is sent again once we are welcome."""
        running = [self.job] if self.job is not None else []
        in_hand = [held(job) for job in (*self.waiting, *running, *self.jobs)]
        self.link.hello(self._page.engine, [*in_hand, *self.results.held()], self.results.last_stored)

    def begin_wait(self, job: Job) -> None:
        """The running task waits for other tasks: the controller is to give us more."""
        self.waiting.append(job)
        self.job = None
        self._tell_waiting()

    def end_wait(self, job: Job) -> None:
        """It runs again."""
        self.waiting.remove(job)
        self.job = job
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        self.flush()
        self.link.send(Waiting([job[0].id for job in self.waiting]))

    def flush(self) -> None:
        """Send the results that have gathered. A controller that does not know us yet takes none."""
        if not self.link.session.is_welcome:
            return
        parts = self.results.pack()
        if parts is not None:
            self.link.send_frames(parts)
            # The link's thread sends what the kernel has not taken. It cannot while the next task holds the GIL.
            self.link.flush(LEAVE_BEHIND_SECONDS)

    def park(self, job: Job) -> None:
        """Keep a task until its function comes; ask for it."""
        if self.jobs.park(job):
            self.link.send(NeedFunctions([job[0].function]))

    def refuse(self, job: Job, reason: str) -> None:
        """Give back a task that our properties do not allow, and all that are like it."""
        function = job[0].function
        alike = self.jobs.take_out(function)
        self.link.send(PropertiesChecked([PropertyCheck(function, reason)]))
        self.link.send(Returned([held(other) for other in (job, *alike)]))

    def give_back_all(self) -> None:
        """Give back everything that has not started: the engine leaves."""
        # A task cut short by SIGTERM is still `held` by the controller: at our goodbye it goes to another engine.
        back = self.jobs.give_back(None)
        if back:
            self.link.send(Returned(back))

    def goodbye(self) -> None:
        """The engine leaves now."""
        self._page.leaving = True
        self.link.send(Goodbye())

    # ------------------------------------------------------------------------------------------ hearing

    def handle(self, arrived: Sequence[Sequence[Any]]) -> None:
        """Take in messages, as `SessionLink.receive` gives them."""
        for parts in arrived:
            message = self.link.read(parts)
            if message is not None:
                self._handlers[type(message)](message, parts[1:])

    def _on_welcome(self, message: Welcome, frames: Sequence[Any]) -> None:
        try:
            is_new = self.link.session.on_welcome(message)
        except AuthenticationError as error:
            self._on_refused(Refused(error.code, str(error)), ())
            return
        if is_new:
            self._keeper.engine = self._page.engine = message.engine
            self.results.share = message.unstored_limit
            self.jobs.welcomed()
            for parts in self.results.sent():
                self.link.send_frames(parts)
            if self.waiting:
                self._tell_waiting()
            if functions := self.jobs.awaited_functions():  # the question, or the answer, may have been lost
                self.link.send(NeedFunctions(functions))

    def _on_run(self, message: Run, frames: Sequence[Any]) -> None:
        session = self.link.session
        if message.sent and not session.is_welcome:
            return  # from before our last Hello: what we do not have, the controller sends again
        if not session.is_in_order(message.sent):
            self.hello()  # tasks that come before these may be among what was lost
            return
        if message.functions:
            self._keeper.learn(message.functions)
        if not self.jobs.take(message, frames):
            self.hello()

    def _on_recall(self, message: Recall, frames: Sequence[Any]) -> None:
        self.link.send(Returned(self.jobs.give_back(set(message.tasks))))

    def _on_cancel(self, message: Cancel, frames: Sequence[Any]) -> None:
        wanted = set(message.tasks)
        self.link.send(Returned(self.jobs.give_back(wanted)))
        if self.job is not None and self.job[0].id in wanted:
            self._interrupt()
        self.cancelled |= {job[0].id for job in self.waiting if job[0].id in wanted}

    def _on_ask(self, message: CheckProperties, frames: Sequence[Any]) -> None:
        self._keeper.learn(message.functions)
        self.checks.asked(message.digests)

    def _on_functions(self, message: Functions, frames: Sequence[Any]) -> None:
        self._keeper.learn(message.functions)
        for function in message.functions:
            self.checks.came(function.digest)
            self.jobs.unpark(function.digest)
        for digest in message.missing:
            self.checks.is_missing(digest)
            self._end_without_function(digest)

    def _end_without_function(self, digest: Digest) -> None:
        """End the tasks whose function the controller does not have. They would wait for ever."""
        for spec, attempt, _, _ in self.jobs.take_parked(digest):
            now, keeper = time.time(), self._keeper
            text = (
                f"the function of this task (digest {digest.hex()}) is not in the controller's database any more, so "
                "the task cannot run. Submit it again from a client that has the function."
            )
            error = ErrorInfo("SerializationError", text, "", keeper.engine, keeper.uuid, spec.kind, True)
            self.results.add(TaskDone(spec.id, attempt, "error", now, now, error=error), ())
        self.flush()

    def _on_stored(self, message: Stored, frames: Sequence[Any]) -> None:
        self.results.stored(message.number)
        if self.job is None and not self.waiting and not self.results.is_awaiting and not self.results.has_gathered:
            self._page.delivered()

    def _on_stop(self, message: Stop, frames: Sequence[Any]) -> None:
        self.is_leaving = True
        self._page.restart = message.restart

    def _on_pong(self, message: Pong, frames: Sequence[Any]) -> None:
        self.results.share = message.unstored_limit or self.results.share
        if not self.link.session.on_pong(message):
            self.hello()  # one of us has missed something

    def _on_refused(self, message: Refused, frames: Sequence[Any]) -> None:
        print(f"the controller refused this engine (engineroom {__version__}): {one_line(message.reason)}", flush=True)
        # If it refuses the nanny as well, the nanny looks for new keys and begins anew: it must not be done before.
        self.is_leaving = self._page.restart = True
