"""Results that other tasks take as arguments, until those have ended.

They are pickles nobody here opens. What is recorded already may leave memory when it grows too much, and is read
again from the store when it is needed. Without a store (NoDB) the latest results are kept for a while, because
nobody could bring them back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from ..config import MIB
from ..ids import TaskId
from ..stores import TaskStore
from ..wire.frames import size
from .store_reader import readable_entries

#: Bytes of results in memory, beyond which those that the store has are dropped.
LIMIT = 512 * MIB
#: Without a store: bytes of the latest results.
RECENT = 64 * MIB
#: … each of which takes so much more than itself.
OVERHEAD = 256

#: A result as it came: (payload, frames).
Raw = tuple[bytes, Sequence[Any]]


class Values:
    """Results by task."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self._values: dict[TaskId, Raw] = {}
        self._bytes = 0
        #: those the store has, too, oldest first
        self._stored: OrderedDict[TaskId, None] = OrderedDict()
        self._recent: OrderedDict[TaskId, Raw] = OrderedDict()
        self._recent_bytes = 0

    def keep(self, id: TaskId, payload: bytes, frames: Sequence[Any], *, stored: bool = False) -> None:
        """Keep a result until it is released."""
        if id not in self._values:
            self._values[id] = payload, frames
            self._bytes += size(payload, frames)
        if stored:
            self.stored(id)

    def stored(self, id: TaskId) -> None:
        """The store has this one now."""
        if id not in self._values:
            return
        self._stored[id] = None
        while self._bytes > LIMIT and self._stored:
            self._drop(self._stored.popitem(last=False)[0])

    def release(self, id: TaskId) -> None:
        """Nobody wants it any more."""
        self._stored.pop(id, None)
        self._drop(id)

    def _drop(self, id: TaskId) -> None:
        raw = self._values.pop(id, None)
        if raw is not None:
            self._bytes -= size(*raw)

    def get(self, id: TaskId) -> Raw | None:
        """A result, from memory or from the store; None if neither has it."""
        raw = self._values.get(id) or self._recent.get(id)
        if raw is None and self._store.keeps:
            entry = readable_entries(self._store, [id])[0].get(id)
            if entry is not None and entry.done is not None and entry.done.status == "ok" and not entry.is_light:
                return entry.done.payload, entry.result_frames
        return raw

    # ------------------------------------------------------------------------------------------ without a store

    def note(self, id: TaskId, payload: bytes, frames: Sequence[Any]) -> None:
        """Keep a result for a while."""
        self._recent[id] = payload, frames
        self._recent_bytes += size(payload, frames) + OVERHEAD
        while self._recent_bytes > RECENT:
            self._recent_bytes -= size(*self._recent.popitem(last=False)[1]) + OVERHEAD

    def recent(self, id: TaskId) -> Raw | None:
        """A result that has been noted not long ago."""
        return self._recent.get(id)
