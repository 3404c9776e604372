"""The results of maps: one list over all tasks. `GrowingMapResult` submits its tasks bit by bit."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ...errors import SerializationError, TaskAborted
from ...ids import TaskId
from ...messages import TaskDone, TaskOptions
from ...wire.parts import Part, items_of
from ..waiting.waits import Need, WaitPort
from .chunks import ChunkPlan
from .ending import Failure, ResultIterator, number_within, value_of, value_or_error
from .port import ResultPort
from .result import AsyncResult

#: Stands for the tasks of a growing map that will not be submitted.
NEVER = TaskId("never-submitted")

#: Pickles chunks, each a list of columns of arguments; returns their ids, and what submits them for a result.
Prepare = Callable[[list[list[Sequence[Any]]]], tuple[Sequence[TaskId], Callable[[AsyncResult], None]]]


class AsyncMapResult(AsyncResult):
    """The result of a map: one list over all tasks.

    Iterating gives the items as soon as they are there, in order; with `ordered=False` in the order they come. An item
    that failed raises in its place, and `next` goes on behind it.

    Parameters
    ----------
    sizes : dict, optional
        How many items a task has, where that is not one. `_sizes` is None where that is not known: of parts.
    dist : {"b", "r"}, optional
        How the items were split: each task has a block of them, in order; or they were dealt to the tasks, round robin.
        None: not known.
    """

    _counted = "item"

    def __init__(
        self,
        *args: Any,
        ordered: bool = True,
        sizes: dict[TaskId, int] | None = None,
        dist: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, single=False, **kwargs)
        self._ordered = ordered
        self._sizes = {} if sizes is None else sizes
        self._dist = dist
        #: the number of the first item, of the tasks that came first; and of the next task
        self._firsts: dict[TaskId, int] = {}
        self._next_first = 0

    def _shape_noted(self) -> tuple[str, TaskId | None, int]:
        dealt = "dealt " if self._dist == "r" else ""
        return dealt + ("parts" if self._sizes is None else "map"), None, 0

    def __len__(self) -> int:
        return self._items_of(self._ids)

    @property
    def progress(self) -> int:
        """How many items are done."""
        return self._items_of(self._outcomes)

    def _items_of(self, ids: Iterable[TaskId]) -> int:
        sizes = self._sizes or {}
        return sum([sizes.get(id, 1) for id in list(ids)]) if sizes else len(list(ids))

    def __getitem__(self, key: int | slice | str) -> Any:
        """An item, once its task has ended; a list of items; or with a str metadata of the tasks."""
        if isinstance(key, str):
            return super().__getitem__(key)
        if not isinstance(key, slice):
            found = self._item(key if self._sizes is None else number_within(key, len(self), "item"))
            if found is not None:
                return self._without_errors(found)[0]
        self._wait_until_done(None)
        entries = self._entries(self._all_values())
        if isinstance(key, slice):
            return self._without_errors(entries[key])
        return self._without_errors([entries[number_within(key, len(entries), "item")]])[0]

    def _item(self, number: int) -> list[Any] | None:
        """An item, once its task has ended, as a list of one; None: the tasks do not have the items in their order."""
        if self._sizes is None or self._dist == "r":
            return None
        for id in self._ids:
            size = self._sizes.get(id, 1)
            if number < size:
                self._wait_for(id)
                value = self._value_of(id) if self._values is None else self._values[self._ids.index(id)]
                part = self._as_part(id, value, "b")
                if type(part) is not Part:
                    return [part]
                items = list(items_of(part.value))
                return [items[number]] if part.dist == "b" and len(items) == size else None
            number -= size
        return None

    def _value_of(self, id: TaskId) -> Any:
        value = super()._value_of(id)
        ending = self._outcomes.get(id)
        if type(value) is not Failure or type(ending) is not TaskDone or self._dist is None or self._sizes is None:
            return value
        if ending.error is None:  # it cannot be unpickled here
            return value
        return value_of(ending, (), self._items_at(id))  # the error is to name the items

    def _items_at(self, id: TaskId) -> tuple[int, ...] | None:
        """The numbers of the first and the last item of a task, and the step between dealt ones; None: not known."""
        sizes = self._sizes or {}
        if self._dist == "r":
            first, step = self._ids.index(id), len(self._ids)
            return (first, first + step * (sizes.get(id, 1) - 1), step)
        for later in itertools.islice(self._ids, len(self._firsts), None):
            self._firsts[later] = self._next_first
            self._next_first += sizes.get(later, 1)
        begin = self._firsts.get(id)
        return None if begin is None else (begin, begin + sizes.get(id, 1) - 1)

    def _without_errors(self, entries: Any) -> Any:
        """The entries, if none of them is a `Failure`, or errors are wanted among them."""
        if not any(isinstance(entry, Failure) for entry in entries):
            return entries
        if not self._return_exceptions:
            self._raise_errors_in(entries)
        return [value_or_error(entry) for entry in entries]

    def _ids_as_wanted(self) -> Iterator[TaskId | Need]:
        return self._ids_in_order() if self._ordered else self._ids_as_they_come()

    def _ids_in_order(self) -> Iterator[TaskId | Need]:
        index = 0
        while True:
            if index >= len(self._ids):
                yield Need(functools.partial(self._is_submitted, index), (self,))
            with self._condition:
                if index >= len(self._ids):
                    return
                id = self._ids[index]
            if id not in self._outcomes:
                yield Need(functools.partial(self._has_ended, id), (self,))
            yield id
            index += 1

    def _ids_as_they_come(self) -> Iterator[TaskId | Need]:
        given = 0
        while True:
            if not self._has_come(given):
                yield Need(functools.partial(self._has_come, given), (self,))
            with self._condition:
                fresh = list(self._outcomes)[given:]  # a dict keeps the order of arrival
            if not fresh:
                return
            given += len(fresh)
            yield from fresh

    def _is_submitted(self, index: int) -> bool:
        """Whether there is a task of this index, or none will be submitted."""
        return index < len(self._ids) or self._all_submitted()

    def _has_come(self, given: int) -> bool:
        """Whether there are more outcomes than these, or no more will come."""
        return len(self._outcomes) > given or (self._all_submitted() and given >= len(self._ids))

    def _all_submitted(self) -> bool:
        """Whether no further tasks will be submitted."""
        return True


class GrowingMapResult(AsyncMapResult):
    """A map over many items, cut into tasks as it becomes known how long an item takes (see `ChunkPlan`).

    The first chunks are pickled and submitted by the thread that calls `map`, those after by a thread of the map's
    own: pickling runs code of the user, which must not hold up the client's I/O thread. `len` and `progress` count
    items.
    """

    _ends_with_outcomes = False  # its last chunk must have been submitted, too

    def __init__(
        self,
        port: ResultPort,
        prepare: Prepare,
        columns: Sequence[Sequence[Any]],
        plan: ChunkPlan,
        *,
        options: TaskOptions | None,
        **kwargs: Any,
    ) -> None:
        self._ids: list[TaskId]
        super().__init__(port, [], dist="b", **kwargs)
        self._state = "PENDING"
        self._options = options
        self._prepare, self._columns, self._plan = prepare, columns, plan
        self._sizes: dict[TaskId, int]
        self._items_done = 0
        self._stopped = False
        #: held while chunks are pickled and submitted; never by the I/O thread. Taken before `_condition`.
        self._submitting = threading.RLock()
        self._condition  # noqa: B018 — made now: so every arrival is announced, and wakes the thread that submits
        try:
            self._submit_chunks(plan.room(0))
            if not self._all_submitted():
                port.growing.add(self)
                threading.Thread(target=self._submit_as_results_come, name="engineroom-map", daemon=True).start()
        except BaseException:  # Ctrl-C: nobody gets this result, and nobody is to wait for its rest
            self._no_more()
            port.growing.discard(self)
            raise

    def _shape_noted(self) -> tuple[str, TaskId | None, int]:
        return "map", self._ids[0], self._plan.total

    def _all_submitted(self) -> bool:
        return self._plan.complete or self._stopped

    def _all_there(self) -> bool:
        return self._all_submitted() and len(self._outcomes) >= len(self._ids)

    def _arrived(self, done: TaskDone, frames: Sequence[Any], now: float) -> bool:
        size = self._sizes.get(done.id, 1)
        self._items_done += size
        if done.started is not None:
            self._plan.measured(done.completed - done.started, size)
        return super()._arrived(done, frames, now)

    def _room(self) -> int:
        return self._plan.room(len(self._ids) - len(self._outcomes))

    def _submit_as_results_come(self) -> None:
        """What the map's own thread does."""
        try:
            while True:
                with self._condition:
                    self._condition.wait_for(lambda: self._all_submitted() or self._room() > 0)
                    if self._all_submitted():
                        return
                    room = self._room()
                self._submit_chunks(room)
        except BaseException as error:  # a user's __reduce__ may call sys.exit: whoever waits must hear of it
            self._stop(SerializationError(f"the items of this map could not be pickled: {error!r}"))
        finally:
            self._port.growing.discard(self)

    def _submit_chunks(self, most: int | None) -> None:
        """Submit up to `most` more chunks; None: all of the rest. What fails becomes the outcome of the rest."""
        with self._submitting:
            with self._condition:
                spans = [] if self._stopped else self._plan.cut(most)
            if not spans:
                return
            try:
                ids, submit = self._prepare([[column[a:b] for column in self._columns] for a, b in spans])
            except Exception as error:  # an item that cannot be pickled
                self._stop(error)
                return
            # Under the condition: an abort either comes before, and nothing is submitted; or after, and knows all ids.
            with self._condition:
                if self._stopped:
                    return
                # First kept, then submitted: outcomes may come at once.
                self._ids += ids
                self._sizes |= {id: b - a for id, (a, b) in zip(ids, spans, strict=True)}
                self._plan.next = spans[-1][1]
                self._condition.notify_all()
                try:
                    submit(self)
                    self._tell_listeners()
                    return
                except Exception as problem:  # the connection is lost
                    lost = problem
            self._stop(lost)
            for id in ids:
                self._failed(id, lost)

    def _stop(self, error: Exception) -> None:
        """Submit no further chunks; `error` is the outcome of the rest."""
        with self._condition:
            if self._all_submitted():
                return
            self._stopped = True
            self._ids.append(NEVER)
        self._failed(NEVER, error)

    def _no_more(self) -> None:
        self._stop(TaskAborted("aborted before it was submitted: the rest of a map"))

    def _submit_rest(self) -> None:
        self._submit_chunks(None)

    def _all_ids(self) -> Sequence[TaskId]:
        self._submit_rest()
        if self._stopped:
            self._wait_for(NEVER)
            error = self._outcomes[NEVER]
            assert isinstance(error, Exception)
            raise error
        return self._ids

    def __len__(self) -> int:
        return self._plan.total

    @property
    def progress(self) -> int:
        """How many items are done."""
        return self._items_done

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        if not isinstance(key, slice):
            key = number_within(key, len(self), "item")
        return self.get()[key]


class LazyMapIterator(ResultIterator):
    """The iterator of `imap`: submits as it goes, at most `max_outstanding` tasks ahead."""

    def __init__(self, entries: Iterator[Any], return_exceptions: bool, port: WaitPort) -> None:
        super().__init__(entries, return_exceptions, port)
        self._cancelled = False

    def __next__(self) -> Any:
        if self._cancelled:
            raise StopIteration
        return super().__next__()

    async def __anext__(self) -> Any:
        if self._cancelled:
            raise StopAsyncIteration
        return await super().__anext__()

    def cancel(self) -> None:
        """Submit nothing more."""
        self._cancelled = True
