"""Tasks that have come and are looked up first: those sent again, and those the store may have the results of.

After a reconnection a client does not know which of its tasks were received, and sends them again. Questions that it
asks after them may be about them, so they wait until those tasks are taken in.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ..ids import TaskId
from ..messages import Abort, Explain, Request, Submit
from ..records.entry import Entry
from .store_reader import readable_entries

if TYPE_CHECKING:
    from .loop import Controller
    from .peers import Peer


class LookUp(msgspec.Struct, frozen=True):
    """One that is under way."""

    number: int
    client: str
    #: whether its tasks are known by their ids meanwhile (`cache.py`), to be aborted and explained
    known: bool


class Arriving:
    """The lookups under way, and the questions behind them."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._numbers = itertools.count()
        self._under_way: set[LookUp] = set()
        self._behind: list[tuple[set[LookUp], Peer, Request]] = []

    def begin(self, peer: Peer, *, known: bool) -> LookUp:
        """Tasks of a client are being looked up; `end` is to follow."""
        look_up = LookUp(next(self._numbers), peer.uuid, known)
        self._under_way.add(look_up)
        return look_up

    def end(self, look_up: LookUp) -> None:
        """They are taken in: answer the questions that waited for that."""
        self._under_way.discard(look_up)
        waiting, self._behind = self._behind, []
        for before, peer, request in waiting:
            before.discard(look_up)
            if before:
                self._behind.append((before, peer, request))
            else:
                self._controller.hub.answer(peer, request)

    def defers(self, peer: Peer, request: Request) -> bool:
        """Whether a question has to wait; then it is answered later."""
        if not self._under_way:
            return False
        at_once = isinstance(request.body, Abort | Explain)
        before = {one for one in self._under_way if one.client == peer.uuid and not (at_once and one.known)}
        if before:
            self._behind.append((before, peer, request))
        return bool(before)

    def sort_out(self, peer: Peer, message: Submit, frames: Sequence[Any]) -> None:
        """A Submit that may have been received before: what has ended is answered from the store, the rest queued."""
        controller = self._controller
        known = controller.scheduler.tasks
        look_up = self.begin(peer, known=False)

        def look() -> None:
            # What cannot be read may not have ended: it runs again.
            found, _ = readable_entries(controller.store, [s.id for s in message.tasks if s.id not in known])
            controller.post(lambda: take(found))

        def take(found: dict[TaskId, Entry]) -> None:
            ended = {id for id, entry in found.items() if entry.done is not None}
            message.tasks = [spec for spec in message.tasks if spec.id not in ended]
            controller.submit(peer, message, frames)
            for id in ended:
                done = found[id].done
                assert done is not None
                controller.performer.deliver(peer, done, found[id].result_frames)
            self.end(look_up)

        # A store that fails knows of none: they run.
        controller.hub.in_thread(look, lambda: take({}))
