"""Results that unfinished tasks take as arguments, kept until those tasks have ended.

They are pickles that the controller never opens. When they take too much memory, results that are recorded leave it;
`spilled` names them, and the outbox has them read again before it sends the tasks that need them. Without a store
(NoDB) the latest results of all tasks are kept for a while, because they could not be read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from ...config import MIB
from ...ids import TaskId
from ...wire.frames import size

#: Bytes of results in memory, beyond which results that are recorded are dropped.
LIMIT = 512 * MIB
#: Without a store: bytes of the latest results.
RECENT = 64 * MIB
#: … each of which takes so many bytes more than its content.
OVERHEAD = 256

#: A result as it came: (payload, frames).
Raw = tuple[bytes, Sequence[Any]]


class InputValues:
    """Results by task."""

    def __init__(self) -> None:
        self._values: dict[TaskId, Raw] = {}
        #: of all results in memory, but for the latest ones
        self.bytes = 0
        #: those that are recorded, too, oldest first
        self._recorded: OrderedDict[TaskId, None] = OrderedDict()
        self._recent: OrderedDict[TaskId, Raw] = OrderedDict()
        self._recent_bytes = 0

    def keep(self, id: TaskId, payload: bytes, frames: Sequence[Any], *, recorded: bool = False) -> None:
        """Keep a result until it is released."""
        if id not in self._values:
            self._values[id] = payload, frames
            self.bytes += size(payload, frames)
        if recorded:
            self.recorded(id)

    def recorded(self, id: TaskId) -> None:
        """The store has this result now."""
        if id not in self._values:
            return
        self._recorded[id] = None
        while self.bytes > LIMIT and self._recorded:
            self._drop(self._recorded.popitem(last=False)[0])

    def release(self, id: TaskId) -> None:
        """No unfinished task needs this result any more."""
        self._recorded.pop(id, None)
        self._drop(id)

    def _drop(self, id: TaskId) -> None:
        raw = self._values.pop(id, None)
        if raw is not None:
            self.bytes -= size(*raw)

    def get(self, id: TaskId) -> Raw | None:
        """A result, if it is in memory."""
        return self._values.get(id) or self._recent.get(id)

    def spilled(self, ids: Iterable[TaskId]) -> list[TaskId]:
        """Those of these results that are not in memory."""
        return [id for id in ids if id not in self._values and id not in self._recent]

    # ------------------------------------------------------------------------------------------ without a store

    def note(self, id: TaskId, payload: bytes, frames: Sequence[Any]) -> None:
        """Keep a result for a while."""
        self._recent[id] = payload, frames
        self._recent_bytes += size(payload, frames) + OVERHEAD
        while self._recent_bytes > RECENT:
            self._recent_bytes -= size(*self._recent.popitem(last=False)[1]) + OVERHEAD

    def recent(self, id: TaskId) -> Raw | None:
        """A result that was noted not long ago."""
        return self._recent.get(id)
