"""Functions with large buffers, unpickled: an engine keeps those that it has used in the last seconds.

It does not unpickle them: `wire.functions` does, and says how they travel.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from ...ids import Digest
from ...shared_memory.buffer import key_of
from ...wire.functions import Hollow, LoadedFunction, fill

#: Bytes of buffers that an engine keeps so. The function used last is kept in any case.
LIMIT = 256 << 20
#: A function that was not used for so many seconds is dropped.
KEPT_SECONDS = 10.0


class FilledFunctions:
    """The functions with large buffers that an engine has. The one used longest ago is dropped first."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        #: (digest, which buffers) → (the function, its buffers, their bytes, when it was used last)
        self._kept: OrderedDict[Any, tuple[LoadedFunction, Sequence[Any], int, float]] = OrderedDict()
        #: total size of the buffers
        self.bytes = 0

    def get(self, digest: Digest, hollow: Hollow, frames: Sequence[Any], now: float) -> LoadedFunction:
        """The function of a task. The buffers of one that is kept stay alive, so that their keys stay theirs."""
        buffers = hollow.buffers_of(frames)
        key = digest, *map(key_of, buffers)
        found = self._kept.pop(key, None)
        if found is None:
            function, size = fill(hollow, buffers), sum(memoryview(buffer).nbytes for buffer in buffers)
            self.bytes += size
        else:
            function, buffers, size, _ = found
        self._kept[key] = function, buffers, size, now
        while self.bytes > self._limit and len(self._kept) > 1:
            self._drop_oldest()
        return function

    def tidy(self, now: float) -> None:
        """Drop what has not been used for some seconds."""
        while self._kept and next(iter(self._kept.values()))[3] < now - KEPT_SECONDS:
            self._drop_oldest()

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()
        self.bytes = 0

    def _drop_oldest(self) -> None:
        self.bytes -= self._kept.popitem(last=False)[1][2]
