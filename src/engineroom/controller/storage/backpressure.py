"""Back-pressure: while there is no room, the controller takes in no more tasks.

`Unrecorded` counts the tasks and results whose records are not committed yet; `queued_memory.py` counts the memory of
tasks that have not ended. Beyond their limits, a `WaitingRoom` keeps the tasks that clients send, as messages. Their
clients get no `Accepted` meanwhile, so they stop sending: a client has a limit on tasks that are not accepted
(`client/connection/submission.py`). Engines stop by themselves: they have a limit on results that are not stored
(`engine/result_buffer.py`).

There is no store and no thread here.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ...config import MIB
from ...messages import Request, Submit, Watch
from ...messages.requests import URGENT, Abort, Resubmit, tasks_in_question
from .queued_memory import QueuedMemory

log = logging.getLogger(__name__)

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


class StoreState(Protocol):
    """What is known of the store: the writer, as far as it matters here."""

    @property
    def hangs(self) -> bool:
        """Whether the store has not answered for long."""

    def refusal(self) -> Exception | None:
        """Why the store refuses new tasks; None: it does not."""


class Room:
    """Whether there is room for more tasks.

    Parameters
    ----------
    unrecorded : Unrecorded
    queued : QueuedMemory
    store : StoreState
        What becomes of what is written.
    is_inside_engine : callable
        Whether a client is in the process of an engine.
    """

    def __init__(
        self,
        unrecorded: Unrecorded,
        queued: QueuedMemory,
        store: StoreState,
        is_inside_engine: Callable[[Any], bool],
    ) -> None:
        self._unrecorded, self._queued = unrecorded, queued
        self._store, self._is_inside_engine = store, is_inside_engine

    def lacks(self, peer: Sender) -> str:
        """Why tasks of a peer have to wait; "": they need not.

        "database": it is behind, for a moment. "database hangs": nobody knows for how long. "memory": until others end.
        A task may wait for tasks that it has submitted itself. So these never wait until others have ended.
        """
        if self._store.hangs:
            why = "database hangs"
        elif self._unrecorded.is_too_much:
            why = "database"
        elif self._queued.is_full and not self._is_inside_engine(peer):
            why = "memory"
        else:
            return ""
        return why if self._store.refusal() is None else ""  # what is refused need not wait


class WaitingRoom:
    """Messages of clients that wait until there is room.

    Messages of one client keep their order. Clients take turns, message by message.

    Parameters
    ----------
    no_room : callable
        Why tasks of a peer have to wait at present: `Room.lacks`.
    handle : callable
        Takes a message in: `handle(peer, message, frames)`.
    """

    def __init__(self, no_room: Callable[[Any], str], handle: Callable[[Any, Any, Any], None]) -> None:
        self._no_room, self._handle = no_room, handle
        #: uuid → messages; the client whose turn it is comes first
        self._waiting: dict[str, deque[tuple[Sender, Any, Any]]] = {}

    def __len__(self) -> int:
        """How many messages wait."""
        return sum(map(len, self._waiting.values()))

    def receive(self, peer: Sender, message: Any, frames: Any) -> None:
        """Handle a message, or keep it until it may be handled."""
        if not isinstance(message, IN_ORDER) or (peer.uuid in self._waiting and self._is_free(peer, message)):
            self._handle(peer, message, frames)
        elif peer.uuid in self._waiting:
            self._waiting[peer.uuid].append((peer, message, frames))
        elif _brings_tasks(message) and self._no_room(peer):
            self._waiting[peer.uuid] = deque([(peer, message, frames)])
        else:
            self._handle(peer, message, frames)

    def _is_free(self, peer: Sender, message: Any) -> bool:
        """Whether a message need not wait behind the tasks of its client that wait here."""
        if _brings_tasks(message):
            return False
        if self._no_room(peer) in ("memory", "database hangs"):  # nobody knows for how long they wait
            if isinstance(message, Request) and isinstance(message.body, Abort):
                self.let_all_in(peer.uuid)  # it may be about them, and makes room
            return True
        if not isinstance(message, Request):
            return False
        if isinstance(message.body, URGENT):
            return True
        named = tasks_in_question(message.body)
        if named is None:
            return False
        waiting = (m for _, m, _ in self._waiting[peer.uuid] if type(m) is Submit)
        return {spec.id for submit in waiting for spec in submit.tasks}.isdisjoint(named)

    def let_in(self) -> None:
        """Handle what waits, as far as there is room."""
        while uuid := next((id for id, m in self._waiting.items() if not self._no_room(m[0][0])), ""):
            messages = self._waiting.pop(uuid)
            self._handle(*messages.popleft())
            while messages and not _brings_tasks(messages[0][1]):  # a question needs no room
                self._handle(*messages.popleft())
            if messages:
                self._waiting[uuid] = messages  # the other clients first

    def client_left(self, uuid: str) -> None:
        """A client is gone, and does not keep its tasks for us any more: they are taken in, if memory has room."""
        messages = self._waiting.get(uuid)
        if messages and self._no_room(messages[0][0]) == "memory":
            self.forget(uuid)
            log.warning("client %s is gone: its last %d messages had no room, and are dropped", uuid, len(messages))
        else:
            self.let_all_in(uuid)

    def let_all_in(self, uuid: str) -> None:
        """Handle all that a client has sent."""
        for arrived in self._waiting.pop(uuid, ()):
            self._handle(*arrived)

    def forget(self, uuid: str) -> None:
        """A client begins anew, and sends everything again that was not answered; or it is gone."""
        self._waiting.pop(uuid, None)


def _brings_tasks(message: Any) -> bool:
    """Whether a message needs room."""
    return type(message) is Submit or (type(message) is Request and type(message.body) is Resubmit)
