"""The results of an engine: they gather, are sent in batches, and are kept until the controller has stored them."""

from __future__ import annotations

import resource as rusage
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..config import MIB
from ..messages import AttemptKey, Results, TaskDone
from ..shared_memory.buffer import weight
from ..wire import frames as wire

#: What a result weighs until it is stored, here and in the controller, besides its bytes.
RESULT_BYTES = 2048
#: Fresh memory takes 0.5 ms a MB: in less than this no task takes much.
SHORT_SECONDS = 0.001
#: How long the peak memory that was seen last is told after such tasks.
LOOK_AGAIN_SECONDS = 0.1


class ResultBuffer:
    """Results that may not be stored yet. Everything is called with the link's lock held.

    `lend` lets other engines of this host have a large buffer, and returns its number, or 0.
    """

    def __init__(self, lend: Callable[[Any], int] = lambda buffer: 0) -> None:
        self._lend = lend
        #: bytes beyond which the engine runs no task until earlier results are stored …
        self.limit = 256 * MIB
        #: … and its share of what all engines of the cluster may keep; 0: it was not told
        self.share = 0
        self._gathered: list[TaskDone] = []
        self._table = wire.FrameTable()
        #: (number, frames as sent, their tasks)
        self._sent: deque[tuple[int, list[Any], list[AttemptKey]]] = deque()
        self._number = 0
        #: the most memory that this process has had at a time, in bytes; and when we looked (seconds since the epoch)
        self._peak, self._looked = 0, 0.0
        #: what the results weigh that have been sent
        self.bytes = 0

    def add(self, done: TaskDone, buffers: Sequence[Any]) -> None:
        """Take in the outcome of a task, and the large buffers of its result."""
        if buffers:
            done.frames = self._table.add(buffers)
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
        """The frames of the next message; the caller sends it. None: no results have gathered."""
        if not self._gathered:
            return None
        self._number += 1
        frames = self._table.frames
        lent = tuple(map(self._lend, frames))
        results = Results(self._gathered, self._number, self._peak_memory(), lent if any(lent) else ())
        parts = [wire.encode(results), *frames]
        self._sent.append((self._number, parts, [AttemptKey(done.id, done.attempt) for done in self._gathered]))
        self.bytes += _bytes(parts) + len(self._gathered) * RESULT_BYTES
        self._gathered, self._table = [], wire.FrameTable()
        return parts

    def _peak_memory(self) -> int:
        """The most memory that this process has had at a time since it was forked, in bytes.

        We do not look again after tasks so short that they cannot have taken much, if we have looked a moment ago.
        """
        first, last = self._gathered[0].started, self._gathered[-1].completed
        if first is None or not (0 <= last - first < SHORT_SECONDS and 0 <= last - self._looked < LOOK_AGAIN_SECONDS):
            self._peak, self._looked = rusage.getrusage(rusage.RUSAGE_SELF).ru_maxrss << 10, last
        return self._peak

    def stored(self, number: int) -> None:
        """The controller has stored the results of this number and of all before."""
        while self._sent and self._sent[0][0] <= number:
            _, parts, tasks = self._sent.popleft()
            self.bytes -= _bytes(parts) + len(tasks) * RESULT_BYTES

    @property
    def last_stored(self) -> int:
        """The number of the last message that the controller has stored; 0: none."""
        return self._sent[0][0] - 1 if self._sent else self._number

    @property
    def is_full(self) -> bool:
        """Whether no task should run before results are stored."""
        return self.bytes > (min(self.limit, self.share) if self.share else self.limit)

    @property
    def is_awaiting(self) -> bool:
        """Whether results have been sent that may not be stored yet."""
        return bool(self._sent)

    def sent(self) -> Iterator[list[Any]]:
        """The frames of the messages that may not be stored yet, in order."""
        return (parts for _, parts, _ in self._sent)

    def held(self) -> Iterator[AttemptKey]:
        """The tasks whose results may not be stored yet."""
        for done in self._gathered:
            yield AttemptKey(done.id, done.attempt)
        for _, _, tasks in self._sent:
            yield from tasks


def _bytes(parts: list[Any]) -> int:
    return len(parts[0]) + (weight(parts[1:]) if len(parts) > 1 else 0)
