"""Answers what clients ask: finds out who answers a request, and sends the reply.

A request about records is answered after what happened before it is committed: of the tasks that it names, else of the
client's own tasks, so that a client reads what it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from ...ids import ClientId
from ...messages import Abort, Explain, Message, Pin, Purge, Reply, Request, Resubmit
from ...stores import TaskStore
from ..error_info import error_info
from ..lookups import Lookups
from ..storage.store_reader import Reader
from .record_requests import FROM_STORE, IN_WRITER, InFrames, is_slow, scope_of
from .resubmission import Resubmission
from .task_requests import TaskRequests

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

    def answer(self, client: ClientId, request: Request) -> None:
        """Answer a request, now or later: not before the tasks that came before it are taken in."""
        body, number = request.body, request.number
        about_known = isinstance(body, Abort | Explain)
        if self._lookups.defers(client, lambda: self.answer(client, request), about_known=about_known):
            return
        self._record()  # what happened before the request is in the answer
        kind = type(body)
        reply = _Replies(self._send, client, number)
        if kind in FROM_STORE:
            self._reader.read(
                lambda store: FROM_STORE[kind](store, body, self._forgotten),
                reply.value,
                reply.error,
                after=scope_of(body, client),
                client=client,
                slow=is_slow(body),
            )
        elif kind in IN_WRITER:
            self._change(lambda store: self._pieces(store, body), reply.result)
        elif kind in self._tasks.with_store:
            try:
                found = self._tasks.with_store[kind](body)
            except Exception as error:
                reply.error(error)
            else:
                if callable(found):
                    self._reader.read(
                        found, reply.value, reply.error, after=scope_of(body, client), client=client
                    )
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

    def _go_on(self, pieces: Generator[None, None, Any], reply: _Replies) -> None:
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


class _Replies:
    """Ways to reply to one request."""

    def __init__(self, send: Send, client: ClientId, number: int) -> None:
        self._send, self._client, self._number = send, client, number

    def value(self, value: Any) -> None:
        """Reply with a value."""
        if isinstance(value, InFrames):
            self._send(self._client, Reply(self._number), value.frames)
        else:
            self._send(self._client, Reply(self._number, value))

    def error(self, error: Exception) -> None:
        """Reply with an error."""
        self._send(self._client, Reply(self._number, error=error_info(error)))

    def result(self, future: Future[Any]) -> None:
        """Reply with what a future holds."""
        try:
            value = future.result()
        except Exception as error:
            self.error(error)
        else:
            self.value(value)
