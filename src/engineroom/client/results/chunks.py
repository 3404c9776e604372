"""How a growing map is cut into tasks: how many items go into the next ones. Pure: no threads, no clock."""

from __future__ import annotations

#: Larger maps begin with this many single items per engine, to learn how long one takes …
SAMPLE = 4
#: … then put into one task what takes about this long.
CHUNK_SECONDS = 0.1
#: A chunk grows at most by this factor from one to the next.
GROWTH = 8
#: Tasks that are out at a time, per engine.
AHEAD = 4


class ChunkPlan:
    """Cuts `total` items into chunks, the larger the quicker an item is.

    Attributes
    ----------
    next : int
        The first item that is in no chunk yet. The caller moves it on, once the chunks are submitted.
    """

    def __init__(self, total: int, engines: int) -> None:
        self.total = total
        self.next = 0
        self._engines = max(1, engines)
        self._size = 1
        #: a moving average, in seconds; None: not measured yet
        self._per_item: float | None = None

    @property
    def complete(self) -> bool:
        """Whether all items are in chunks."""
        return self.next >= self.total

    def measured(self, seconds: float, items: int) -> None:
        """A chunk of so many items has taken so long."""
        took = seconds / items
        self._per_item = took if self._per_item is None else 0.5 * self._per_item + 0.5 * took

    def room(self, out: int) -> int:
        """How many chunks may be submitted while `out` are without an outcome; at first those of the sample."""
        return (SAMPLE if self.next == 0 else AHEAD) * self._engines - out

    def cut(self, most: int | None = None) -> list[tuple[int, int]]:
        """The next chunks, as pairs (begin, end) of indices: at most `most`; None: all of the rest."""
        if self._per_item is not None:
            wanted = int(CHUNK_SECONDS / max(self._per_item, 1e-9))
            self._size = max(1, min(wanted, self._size * GROWTH))
        elif most is None:  # nothing is measured: chunks of a size that gives each engine a few
            self._size = max(self._size, -(-(self.total - self.next) // (2 * AHEAD * self._engines)))
        chunks: list[tuple[int, int]] = []
        begin = self.next
        while begin < self.total and (most is None or len(chunks) < most):
            left = self.total - begin
            # Never more than an even share of what is left, so that all engines end at about the same time.
            end = begin + max(1, min(self._size, -(-left // (2 * self._engines))))
            chunks.append((begin, end))
            begin = end
        return chunks
