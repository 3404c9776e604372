"""Takes in tasks that a client has sent again: after a reconnection it does not know which of them were received."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..ids import TaskId
from ..messages import Request, Submit
from ..records import Entry
from .reading import readable_entries

if TYPE_CHECKING:
    from .main import Controller
    from .peers import Peer


class Resent:
    """The lookups under way, and the questions behind them: those may be about the tasks looked up."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._under_way: Counter[str] = Counter()
        self._behind: dict[str, list[Request]] = {}

    def sort_out(self, peer: Peer, message: Submit, frames: Sequence[Any]) -> None:
        """A Submit that may have been received before: what has ended is answered from the store, the rest queued."""
        controller = self._controller
        known = controller.scheduler.tasks
        self._under_way[peer.uuid] += 1

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
            self._end(peer)

        controller.hub.in_thread(look, lambda: self._end(peer))

    def defers(self, peer: Peer, request: Request) -> bool:
        """Whether a question has to wait; then it is answered after them."""
        if not self._under_way[peer.uuid]:
            return False
        self._behind.setdefault(peer.uuid, []).append(request)
        return True

    def _end(self, peer: Peer) -> None:
        self._under_way[peer.uuid] -= 1
        if not self._under_way[peer.uuid]:
            del self._under_way[peer.uuid]
            for request in self._behind.pop(peer.uuid, ()):
                self._controller.hub.answer(peer, request)
