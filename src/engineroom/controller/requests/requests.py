"""Answers what clients ask: finds out who answers a request, and sends the reply.

A request about records is answered after what happened before it is committed: of the tasks that it names, else of the
client's own tasks, so that a client reads what it wrote.

The loop does at most one request of a client in a turn that takes it more than a moment: those that come after it wait
in a queue, in their order. So a client that asks without end keeps nobody else waiting for long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from ...errors import QueryError
from ...ids import ClientId
from ...messages import Abort, Explain, Message, Pin, Purge, Reply, Request, Resubmit, Sync
from ...messages.requests import URGENT, RequestBody, Withdraw, named_in
from ...stores import TaskStore
from ..error_info import error_info
from ..lookups import Lookups
from ..storage.question_lanes import withdrawn
from ..storage.store_reader import Reader
from . import audit
from .record_requests import FROM_STORE, IN_WRITER, InFrames, is_slow, scope_of
from .resubmission import Resubmission
from .task_requests import TaskRequests

#: Requests of one client that are not answered, and the tasks that these name. A client of ours keeps the requests
#: beyond half as many until some are answered.
MOST_UNANSWERED, MOST_TASKS_UNANSWERED = 1000, 2_000_000
#: A question that names more tasks takes the loop more than a moment.
MOMENT_TASKS = 200

#: Has a change made in the writer's thread, in pieces that each give how many records they changed; then the loop calls
#: the second function with the future of how many changed in all.
Change = Callable[[Callable[[TaskStore], Iterator[int]], Callable[[Future[Any]], None]], None]


class Send(Protocol):
    """Sends a message to a client, with frames that follow its header."""

    def __call__(self, client: ClientId, message: Message, buffers: Sequence[Any] = (), /) -> None: ...


class Requests:
    """The way from a request to its reply.

    `post` has the loop call a function in its next turn. `record` hands what has gathered to the writer; `purged` and
    `pinned` are called in the writer's thread after records were dropped or their pins changed.
    """

    def __init__(
        self,
        send: Send,
        post: Callable[[Callable[[], None]], None],
        lookups: Lookups,
        reader: Reader,
        record: Callable[[], None],
        change: Change,
        tasks: TaskRequests,
        resubmission: Resubmission,
        purged: Callable[[], None],
        pinned: Callable[[], None],
        forgotten: str,
    ) -> None:
        self._send, self._post, self._lookups, self._reader, self._record = send, post, lookups, reader, record
        self._change, self._tasks, self._resubmission = change, tasks, resubmission
        self._after: dict[type, Callable[[], None]] = {Purge: purged, Pin: pinned}
        self._forgotten = forgotten
        #: by client
        self._unanswered: dict[ClientId, _Unanswered] = {}

    def answer(self, client: ClientId, request: Request) -> None:
        """Answer a request, now or later: not before those that this client made before it have begun."""
        body, tasks = request.body, named_in(request.body)
        unanswered = self._unanswered.setdefault(client, _Unanswered())
        reply = _Reply(self._send, client, request, unanswered, tasks)
        if isinstance(body, URGENT):
            self._begin(client, body, reply)
        elif isinstance(body, Withdraw):
            self._withdraw(unanswered, body.requests)
            reply.value(None)
        elif unanswered.requests > MOST_UNANSWERED or unanswered.tasks > MOST_TASKS_UNANSWERED:
            text = (
                f"this client has {unanswered.requests - 1:,} questions without an answer, which name "
                f"{unanswered.tasks - tasks:,} tasks; the most are {MOST_UNANSWERED:,} and {MOST_TASKS_UNANSWERED:,}. "
                "Wait for some answers before you ask more"
            )
            reply.error(QueryError(text))
        elif unanswered.is_busy:
            unanswered.queue.append((body, reply))
        elif _takes_a_moment(body, tasks):
            self._begin(client, body, reply)
        else:
            self._begin_long(client, unanswered, body, reply)

    def _withdraw(self, unanswered: _Unanswered, numbers: Iterable[int]) -> None:
        """End those of these requests that are questions: they change nothing."""
        for number in numbers:
            reply = unanswered.replies.get(number)
            if reply is not None and (type(reply.body) in FROM_STORE or type(reply.body) in self._tasks.with_store):
                reply.withdraw()

    def client_left(self, client: ClientId) -> None:
        """Nobody waits for these answers any more."""
        left = self._unanswered.pop(client, None)
        if left is not None:
            left.queue.clear()

    def _begin_long(self, client: ClientId, unanswered: _Unanswered, body: RequestBody, reply: _Reply) -> None:
        """Begin a request that takes more than a moment; those behind it wait for the next turn."""
        unanswered.is_busy = True
        self._post(lambda: self._go_through(client, unanswered))
        self._begin(client, body, reply)

    def _go_through(self, client: ClientId, unanswered: _Unanswered) -> None:
        """Begin the requests that wait, up to one that takes more than a moment."""
        unanswered.is_busy = False
        while unanswered.queue:
            body, reply = unanswered.queue.popleft()
            if not _takes_a_moment(body, reply.tasks):
                self._begin_long(client, unanswered, body, reply)
                return
            self._begin(client, body, reply)

    def _begin(self, client: ClientId, body: RequestBody, reply: _Reply) -> None:
        """Find out who answers, and have it done: not before the tasks that came before are taken in."""
        if reply.is_sent:
            return  # it was withdrawn
        about_known = isinstance(body, Abort | Explain)
        if self._lookups.defers(client, lambda: self._begin(client, body, reply), about_known=about_known):
            return
        self._record()  # what happened before the request is in the answer
        kind = type(body)
        if kind in FROM_STORE:
            self._read(client, body, reply, lambda store: FROM_STORE[kind](store, body, self._forgotten))
        elif kind in IN_WRITER:
            self._change(lambda store: self._pieces(store, body), reply.result)
        elif kind in self._tasks.with_store:
            try:
                found = self._tasks.with_store[kind](body)
            except Exception as error:
                reply.error(error)
            else:
                if callable(found):
                    self._read(client, body, reply, found)
                else:
                    reply.value(found)
        elif kind in self._tasks.in_pieces:
            self._go_on(self._tasks.in_pieces[kind](client, body), reply)
        elif isinstance(body, Resubmit):
            self._resubmission.resubmit(client, body, reply.value, reply.error)
        else:
            try:
                reply.value(self._tasks.at_once[kind](client, body))
            except Exception as error:
                reply.error(error)

    def _read(self, client: ClientId, body: RequestBody, reply: _Reply, work: Callable[[TaskStore], Any]) -> None:
        """Have the answer to a question read."""
        after, slow = scope_of(body, client), is_slow(body)
        end = self._reader.read(work, reply.value, reply.error, after=after, client=client, slow=slow)
        if not reply.is_sent:
            reply.end = end

    def _go_on(self, pieces: Generator[None, None, Any], reply: _Reply) -> None:
        """Do a piece now, and have the loop call this again in its next turn."""
        try:
            next(pieces)
        except StopIteration as end:
            reply.value(end.value)
        except Exception as error:
            reply.error(error)
        else:
            self._post(lambda: self._go_on(pieces, reply))

    def _pieces(self, store: TaskStore, body: Any) -> Iterator[int]:
        try:
            yield from IN_WRITER[type(body)](store, body, self._forgotten)
        finally:
            self._after[type(body)]()


class _Unanswered:
    """The requests of one client that are not answered."""

    __slots__ = ("is_busy", "queue", "replies", "requests", "tasks")

    def __init__(self) -> None:
        #: how many there are, and how many tasks they name
        self.requests = self.tasks = 0
        #: by the number that the client has given the request
        self.replies: dict[int, _Reply] = {}
        #: those that have not begun
        self.queue: deque[tuple[RequestBody, _Reply]] = deque()
        #: whether one has begun in this turn that takes more than a moment
        self.is_busy = False


class _Reply:
    """Ways to reply to one request: the first reply counts. `tasks`: how many it names."""

    def __init__(
        self, send: Send, client: ClientId, request: Request, unanswered: _Unanswered, tasks: int
    ) -> None:
        self._to, self._client, self._number, self.body = send, client, request.number, request.body
        self._unanswered, self.tasks = unanswered, tasks
        self.is_sent = False
        #: ends what reads for it
        self.end: Callable[[], None] = _nothing
        unanswered.replies[request.number] = self
        unanswered.requests += 1
        unanswered.tasks += tasks

    def _send(self, reply: Reply, buffers: Sequence[Any] = ()) -> None:
        if self.is_sent:
            return
        self.is_sent = True
        self.end = _nothing  # what reads refers to this reply: a circle would wait for the garbage collector
        self._unanswered.requests -= 1
        if self._unanswered.replies.get(self._number) is self:
            del self._unanswered.replies[self._number]
        self._unanswered.tasks -= self.tasks
        audit.note(self._client, self.body, reply.value if reply.error is None else reply.error)
        self._to(self._client, reply, buffers)

    def withdraw(self) -> None:
        """Nobody waits for the reply."""
        self.end()  # it may answer by itself
        self.error(withdrawn())

    def value(self, value: Any) -> None:
        """Reply with a value."""
        if isinstance(value, InFrames):
            self._send(Reply(self._number, value.value), value.frames)
        else:
            self._send(Reply(self._number, value))

    def error(self, error: Exception) -> None:
        """Reply with an error."""
        self._send(Reply(self._number, error=error_info(error)))

    def result(self, future: Future[Any]) -> None:
        """Reply with what a future holds."""
        try:
            value = future.result()
        except Exception as error:
            self.error(error)
        else:
            self.value(value)


def _nothing() -> None:
    """There is nothing to end."""


def _takes_a_moment(body: RequestBody, tasks: int) -> bool:
    """Whether the loop has little to do for a request. What threads do for it does not count."""
    return tasks <= MOMENT_TASKS and (type(body) in FROM_STORE or isinstance(body, Sync | Resubmit | Explain))
