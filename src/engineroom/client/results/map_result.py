"""Splitting sequences into parts, putting results together, and choosing how much goes into one task."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import TaskAborted
from ...ids import TaskId
from ...messages import TaskDone, TaskOptions
from ...wire.input_cache import ResultOf
from .outcome import Failed, unwrapped
from .result import AsyncResult

if TYPE_CHECKING:
    from ..views.balanced import LoadBalancedView

#: A map of at most this many items is one task per item: each has its own record, result and retries.
SINGLES = 1000
#: Larger maps begin with this many single items per engine, to learn how long one takes …
SAMPLE = 4
#: … then put into one task what takes about this long.
CHUNK_SECONDS = 0.1
#: A chunk grows at most by this factor from one to the next.
GROWTH = 8
#: Tasks that are out at a time, per engine.
AHEAD = 4
#: Stands for what is not going to be submitted.
NEVER = TaskId("never-submitted")


def parts(sequence: Sequence[Any], count: int, dist: str) -> list[Sequence[Any]]:
    """Split into `count` parts: "b" contiguous blocks whose sizes differ by at most one, "r" round robin.

    Arrays are split along their first axis, and stay arrays.
    """
    if dist == "r":
        return [sequence[start::count] for start in range(count)]
    if dist != "b":
        raise ValueError(f"dist is 'b' (blocks) or 'r' (round robin), not {dist!r}")
    size, rest = divmod(len(sequence), count)
    bounds = list(itertools.accumulate((size + (part < rest) for part in range(count)), initial=0))
    return [sequence[a:b] for a, b in itertools.pairwise(bounds)]


def join(pieces: Sequence[Any], dist: str) -> Any:
    """Undo `parts`."""
    arrays = [piece for piece in pieces if hasattr(piece, "dtype") and hasattr(piece, "shape") and piece.shape]
    if arrays and len(arrays) == len(pieces):
        import numpy

        if dist == "b":
            return numpy.concatenate(arrays)
        whole = numpy.empty((sum(len(a) for a in arrays), *arrays[0].shape[1:]), dtype=arrays[0].dtype)
        for start, piece in enumerate(arrays):
            whole[start :: len(arrays)] = piece
        return whole
    lists = [
        list(piece) if hasattr(piece, "__len__") and not isinstance(piece, str | bytes | dict) else [piece]
        for piece in pieces
    ]
    if dist == "b":
        return list(itertools.chain.from_iterable(lists))
    missing = object()
    return [x for row in itertools.zip_longest(*lists, fillvalue=missing) for x in row if x is not missing]


class AsyncMapResult(AsyncResult):
    """The result of a map: one list over all tasks.

    Iterating gives the items as soon as they are there, in order; with `ordered=False` in the order they come.
    """

    def __init__(self, *args: Any, dist: str = "b", ordered: bool = True, chunked: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, single=False, **kwargs)
        self._dist = dist
        self._ordered = ordered
        #: whether a task's value is a list of items, or one item
        self._chunked = chunked

    def _reconstruct(self, values: list[Any]) -> Any:
        if not self._chunked:
            return [unwrapped(value) for value in values]
        values = [[value.error] if isinstance(value, Failed) else value for value in values]
        return join(values, self._dist) if values else []

    def _value_from(self, ids: tuple[TaskId, ...]) -> tuple[Any, ...]:
        return join, (ResultOf(ids, single=False), self._dist)

    def __iter__(self) -> Iterator[Any]:
        if self._dist == "r" and self._chunked:
            yield from self.get()
            return
        for id in self._ids_in_order() if self._ordered else self._ids_as_they_come():
            index = self._ids.index(id) if self._values is not None else -1
            value = self._values[index] if self._values is not None else self._value_of(id)
            if isinstance(value, Failed):
                if not self._return_exceptions:
                    raise value.error
                yield value.error
            elif self._chunked:
                yield from value
            else:
                yield value

    def _ids_in_order(self) -> Iterator[TaskId]:
        index = 0
        while True:
            with self._condition:
                while index >= len(self._ids) and not self._fed():
                    self._condition.wait()
                if index >= len(self._ids):
                    return
                id = self._ids[index]
            self._wait_for(id)
            yield id
            index += 1

    def _ids_as_they_come(self) -> Iterator[TaskId]:
        given = 0
        while True:
            with self._condition:
                while len(self._outcomes) <= given and not (self._fed() and given >= len(self._ids)):
                    self._condition.wait()
                fresh = list(self._outcomes)[given:]  # a dict keeps the order of arrival
            if not fresh:
                return
            given += len(fresh)
            yield from fresh

    def _fed(self) -> bool:
        """Whether all tasks are on their way."""
        return True


class GrowingMapResult(AsyncMapResult):
    """A map over many items, cut into tasks as it becomes known how long an item takes.

    The first tasks are single items; then a task is given as many items as take about `CHUNK_SECONDS`, never
    more than an even share of what is left. `len` and `progress` count items.
    """

    def __init__(
        self,
        view: LoadBalancedView,
        function: Any,
        columns: Sequence[Sequence[Any]],
        options: TaskOptions | None,
        engines: int,
        **kwargs: Any,
    ) -> None:
        self._ids: list[TaskId]
        super().__init__(view.client, [], **kwargs)
        self._state = "PENDING"
        self._view, self._function, self._columns = view, function, columns
        self._options = options
        self._engines = max(1, engines)
        self._total = len(columns[0])
        self._next = 0
        self._sizes: dict[TaskId, int] = {}
        self._items_done = 0
        self._per_item: float | None = None
        self._chunk = 1
        self._stopped = False
        self._condition  # noqa: B018 — made now, so that every arrival is announced and feeds the next tasks
        self._feed(SAMPLE * self._engines)

    def _fed(self) -> bool:
        return self._next >= self._total or self._stopped

    def _all_there(self) -> bool:
        return self._fed() and len(self._outcomes) >= len(self._ids)

    def _arrived(self, done: TaskDone, frames: Sequence[Any], now: float) -> bool:
        size = self._sizes.get(done.id, 1)
        self._items_done += size
        if done.started is not None:
            took = (done.completed - done.started) / size
            self._per_item = took if self._per_item is None else 0.5 * self._per_item + 0.5 * took
        return super()._arrived(done, frames, now)

    def _announce(self) -> None:
        self._feed(AHEAD * self._engines - (len(self._ids) - len(self._outcomes)))
        super()._announce()

    def _feed(self, count: int) -> None:
        """Submit up to `count` more tasks."""
        batch = []
        with self._condition:
            if self._per_item is not None:
                wanted = int(CHUNK_SECONDS / max(self._per_item, 1e-9))
                self._chunk = max(1, min(wanted, self._chunk * GROWTH))
            while count > 0 and not self._fed():
                left = self._total - self._next
                size = max(1, min(self._chunk, -(-left // (2 * self._engines))))
                batch.append([column[self._next : self._next + size] for column in self._columns])
                self._next += size
                count -= 1
            if not batch:
                return
            try:
                ids = self._view._submit_chunks(self._function, batch, self, self._options)
            except Exception as error:  # an item that cannot be pickled
                problem = error
                self._end_with(NEVER)
            else:
                self._ids += ids
                self._sizes |= {id: len(columns[0]) for id, columns in zip(ids, batch, strict=True)}
                self._condition.notify_all()
                return
        self._failed(NEVER, problem)

    def _end_with(self, id: TaskId) -> None:
        """The task of this id stands for all that is not going to be submitted."""
        self._stopped = True
        self._ids.append(id)

    def _no_more(self) -> None:
        with self._condition:
            if self._fed():
                return
            self._end_with(NEVER)
        self._failed(NEVER, TaskAborted("aborted before it was submitted: the rest of a map"))

    def _all_ids(self) -> Sequence[TaskId]:
        """All of it becomes tasks now: what depends on it has to know them."""
        with self._condition:
            left = self._total - self._next
            if self._per_item is None:
                self._chunk = max(self._chunk, -(-left // (2 * AHEAD * self._engines)))
        self._feed(left)
        if self._stopped:
            self._wait_for(NEVER)
            problem = self._outcomes[NEVER]
            assert isinstance(problem, Exception)
            raise problem
        return self._ids

    def __len__(self) -> int:
        return self._total

    @property
    def progress(self) -> int:
        """How many items are done."""
        return self._items_done

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        values = self.get()
        return values[key]


class LazyMapIterator:
    """The iterator of `imap`: submits as it goes, at most `max_outstanding` tasks ahead."""

    def __init__(self, results: Iterator[Any]) -> None:
        self._results = results
        self._cancelled = False

    def __iter__(self) -> LazyMapIterator:
        return self

    def __next__(self) -> Any:
        if self._cancelled:
            raise StopIteration
        return next(self._results)

    def cancel(self) -> None:
        """Submit nothing more."""
        self._cancelled = True
