"""Back-pressure: while the store is behind, the controller takes in no more tasks.

`Unrecorded` counts the tasks and results whose records are not committed yet. Beyond its limits, a `WaitingRoom` keeps
the tasks that clients send, as messages. Their clients get no `Accepted` meanwhile, so they stop sending: a client has
a limit on tasks that are not accepted (`client/connection/submission.py`). Engines stop by themselves: they have a
limit on results that are not stored (`engine/result_buffer.py`).

There is no store and no thread here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ...config import MIB
from ...messages import Request, Submit, Watch
from ...messages.requests import URGENT, tasks_in_question

#: Tasks and results that are not recorded, beyond which no more tasks are taken in …
MOST = 100_000
#: … and bytes of their messages.
MOST_BYTES = 256 * MIB

#: What a client sends, in order: a question may be about the tasks before it.
IN_ORDER = (Submit, Watch, Request)


class Unrecorded:
    """Counts what is not recorded yet."""

    __slots__ = ("bytes", "count")

    def __init__(self) -> None:
        #: tasks and results
        self.count = 0
        #: of the messages that brought them
        self.bytes = 0

    def add(self, count: int, size: int) -> None:
        """So many tasks or results are to be recorded."""
        self.count += count
        self.bytes += size

    def remove(self, count: int, size: int) -> None:
        """So many are recorded."""
        self.count -= count
        self.bytes -= size

    @property
    def is_too_much(self) -> bool:
        """Whether no more tasks should be taken in."""
        return self.count >= MOST or self.bytes >= MOST_BYTES


class Sender(Protocol):
    """A peer."""

    uuid: str


class WaitingRoom:
    """Messages of clients that wait until the store has caught up.

    Messages of one client keep their order. Clients take turns, message by message.

    Parameters
    ----------
    is_closed : callable
        Whether tasks have to wait at present.
    handle : callable
        Takes a message in: `handle(peer, message, frames)`.
    """

    def __init__(self, is_closed: Callable[[], bool], handle: Callable[[Any, Any, Any], None]) -> None:
        self._is_closed, self._handle = is_closed, handle
        #: uuid → messages; the client whose turn it is comes first
        self._waiting: dict[str, deque[tuple[Sender, Any, Any]]] = {}

    def __len__(self) -> int:
        """How many messages wait."""
        return sum(map(len, self._waiting.values()))

    def receive(self, peer: Sender, message: Any, frames: Any) -> None:
        """Handle a message, or keep it until it may be handled."""
        if not isinstance(message, IN_ORDER) or (isinstance(message, Request) and self._is_free(peer, message)):
            self._handle(peer, message, frames)
        elif peer.uuid in self._waiting:
            self._waiting[peer.uuid].append((peer, message, frames))
        elif type(message) is Submit and self._is_closed():
            self._waiting[peer.uuid] = deque([(peer, message, frames)])
        else:
            self._handle(peer, message, frames)

    def _is_free(self, peer: Sender, message: Request) -> bool:
        """Whether a question says nothing about the tasks that wait here."""
        if isinstance(message.body, URGENT) or peer.uuid not in self._waiting:
            return True
        named = tasks_in_question(message.body)
        if named is None:
            return False
        waiting = (m for _, m, _ in self._waiting[peer.uuid] if type(m) is Submit)
        return {spec.id for submit in waiting for spec in submit.tasks}.isdisjoint(named)

    def let_in(self) -> None:
        """Handle what waits, as far as there is room."""
        while self._waiting and not self._is_closed():
            uuid = next(iter(self._waiting))
            messages = self._waiting.pop(uuid)
            self._handle(*messages.popleft())
            while messages and type(messages[0][1]) is not Submit:  # a question needs no room
                self._handle(*messages.popleft())
            if messages:
                self._waiting[uuid] = messages  # the other clients first

    def let_all_in(self, uuid: str) -> None:
        """A client is gone, and does not keep its tasks for us any more: handle all that it has sent."""
        for arrived in self._waiting.pop(uuid, ()):
            self._handle(*arrived)

    def forget(self, uuid: str) -> None:
        """A client begins anew: it sends everything again that was not answered."""
        self._waiting.pop(uuid, None)
