"""Questions to the controller that have no answer yet. There is no network here."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ...errors import OUTCOMES, EngineroomError, RemoteError, UnknownTask
from ...ids import TaskId
from ...messages import ErrorInfo, FindRecords, PageRecords, Reply, Request, RequestBody, Resubmit, Withdraw
from ...printable import one_line, printable

#: Questions on their way and not yet answered. More wait here: the controller refuses those beyond twice as many.
MOST_ASKED_AT_ONCE = 500


class Answer(Future[Any]):
    """The answer to a question."""

    def __init__(self, number: int) -> None:
        super().__init__()
        #: of the question
        self.number = number


class PendingRequests:
    """A Future for each question. Users' threads add them and the I/O thread resolves them, each in one operation."""

    def __init__(self) -> None:
        #: whether the controller takes back questions
        self.may_withdraw = False
        self._numbers = itertools.count(1)
        self._pending: dict[int, tuple[Request, Answer]] = {}
        #: the numbers of those that were sent
        self._sent: set[int] = set()

    @property
    def has_room(self) -> bool:
        """Whether one more may be sent."""
        return len(self._sent) < MOST_ASKED_AT_ONCE

    def sent(self, request: Request) -> None:
        """A question was sent."""
        self._sent.add(request.number)

    def add(self, body: RequestBody) -> tuple[Request, Answer]:
        """A question to be sent, and the Future of its answer."""
        request = Request(next(self._numbers), body)  # type: ignore[arg-type]
        self._pending[request.number] = request, (answer := Answer(request.number))
        return request, answer

    def wait(self, answer: Answer, timeout: float | None, ask: Callable[[RequestBody], Any]) -> Any:
        """The answer. If it is not waited for to the end, the controller is told, so that it does not go on with it."""
        try:
            return answer.result(timeout)
        except BaseException:
            if not answer.done() and self.may_withdraw:
                with contextlib.suppress(EngineroomError):  # there is no controller any more
                    ask(Withdraw([answer.number]))
            raise

    def drop(self, request: Request) -> None:
        """Nobody waits for the answer."""
        self._pending.pop(request.number, None)

    def on_reply(self, message: Reply, frames: Sequence[Any]) -> None:
        """Resolve the Future of an answer."""
        self._sent.discard(message.number)
        request, future = self._pending.pop(message.number, (None, None))
        if request is None or future is None or future.done():
            return  # nobody waits any more
        if message.error is not None:
            future.set_exception(error_of(message.error))
        else:
            in_frames = isinstance(request.body, FindRecords | PageRecords)
            future.set_result((message.value, frames) if in_frames else message.value)

    def unanswered(self) -> list[Request]:
        """The questions without an answer, in order."""
        return [request for request, _ in list(self._pending.values())]

    def controller_restarted(self) -> None:
        """Engines may have begun what was sent to the former controller."""
        for request in self.unanswered():
            if isinstance(request.body, Resubmit) and request.number in self._sent:
                request.body.former = True

    def resubmitted(self) -> set[TaskId]:
        """The new ids of tasks whose resubmission is not answered: the controller may not know them yet."""
        return {id for request in self.unanswered() if isinstance(request.body, Resubmit) for id in request.body.new}

    def fail(self, error: Callable[[], Exception]) -> None:
        """There will be no answers; `error` makes an exception for each."""
        for number in list(self._pending):
            _, future = self._pending.pop(number, (None, None))
            if future is not None and not future.done():
                future.set_exception(error())


def total(counts: Sequence[Future[int]]) -> Future[int]:
    """A Future for the sum of several answers; its error is the first one of theirs."""
    if len(counts) == 1:
        return counts[0]
    whole: Future[int] = Future()
    left = iter(range(len(counts) - 1, -1, -1))  # several threads may take from it

    def ended(one: Future[int]) -> None:
        if next(left):
            return
        errors = [error for future in counts if (error := future.exception()) is not None]
        if errors:
            whole.set_exception(errors[0])
        else:
            whole.set_result(sum(future.result() for future in counts))

    for future in counts:
        future.add_done_callback(ended)
    return whole


def error_of(info: ErrorInfo) -> Exception:
    """The exception that an answer of the controller names."""
    text = printable(info.evalue)  # it may quote other peers
    if info.ename in OUTCOMES:
        return OUTCOMES[info.ename](text)
    if info.ename in ("IndexError", "KeyError"):
        return IndexError(text) if info.ename == "IndexError" else UnknownTask(text)
    return RemoteError(one_line(info.ename), text, printable(info.traceback), {"method": "controller"})
