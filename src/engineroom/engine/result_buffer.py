"""Results on their way: they gather, are sent in batches, and kept until the controller has stored them."""

from __future__ import annotations

import resource as rusage
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from ..messages import AttemptKey, Results, TaskDone
from ..wire import frames as wire


class ResultBuffer:
    """The results of an engine that may not be stored yet. All is called with the link's lock held."""

    def __init__(self) -> None:
        self._gathered: list[TaskDone] = []
        self._table = wire.FrameTable()
        #: (number, frames as sent, their tasks)
        self._sent: deque[tuple[int, list[Any], list[AttemptKey]]] = deque()
        self._number = 0
        #: of what has been sent
        self.bytes = 0

    def add(self, done: TaskDone, beside: Sequence[Any]) -> None:
        """A task has ended; `beside` are the buffers of its result."""
        if beside:
            done.frames = self._table.add(beside)
        self._gathered.append(done)

    def add_output(self, stdout: str, stderr: str) -> None:
        """Add text to what the last task printed that has not been sent yet."""
        done = self._gathered[-1]
        done.stdout += stdout
        done.stderr += stderr

    @property
    def has_gathered(self) -> bool:
        """Whether there are results that have not been sent."""
        return bool(self._gathered)

    def pack(self) -> list[Any] | None:
        """The frames of the next message, which the caller sends; None: nothing has gathered."""
        if not self._gathered:
            return None
        self._number += 1
        parts = [wire.encode(Results(self._gathered, self._number, _peak_memory())), *self._table.frames]
        self._sent.append((self._number, parts, [AttemptKey(done.id, done.attempt) for done in self._gathered]))
        self.bytes += _bytes(parts)
        self._gathered, self._table = [], wire.FrameTable()
        return parts

    def stored(self, number: int) -> None:
        """The results of this number and all before are safe."""
        while self._sent and self._sent[0][0] <= number:
            self.bytes -= _bytes(self._sent.popleft()[1])

    @property
    def is_awaiting(self) -> bool:
        """Whether some have been sent and may not be stored yet."""
        return bool(self._sent)

    def sent(self) -> Iterator[list[Any]]:
        """The frames of all messages that may have to be sent again, in order."""
        return (parts for _, parts, _ in self._sent)

    def held(self) -> Iterator[AttemptKey]:
        """The tasks they are of."""
        for done in self._gathered:
            yield AttemptKey(done.id, done.attempt)
        for _, _, tasks in self._sent:
            yield from tasks


def _peak_memory() -> int:
    """The most memory that this process has had at a time since it was forked, in bytes."""
    return rusage.getrusage(rusage.RUSAGE_SELF).ru_maxrss << 10


def _bytes(parts: list[Any]) -> int:
    return len(parts[0]) + (wire.size(b"", parts[1:]) if len(parts) > 1 else 0)
