"""Results of tasks as arguments of others: they go from engine to engine, not through the client.

The client pickles a `ResultOf` in the place of the argument, and names the tasks in `TaskOptions.inputs`. The
controller sends their results along with the task, unless the engine has them in its `ValueCache`. Unpickling the
call on the engine puts the values in.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from ..ids import TaskId
from . import payload

V = TypeVar("V")

#: The results that a task takes as arguments: id → (stream, frames), as `payload.dumps` made them.
Inputs = Mapping[TaskId, tuple[bytes, Sequence[Any]]]

#: Bytes of results that an engine keeps for tasks to come.
LIMIT = 256 << 20


class ValueCache(Generic[V]):
    """Which results an engine has: kept twice, by the engine with the values and by the controller for their ids.

    The two never talk about it. Both call `use` once for each `Run` message, in order, and `clear` at each Welcome, so
    they agree about what is kept. What was used longest ago is forgotten first.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._kept: OrderedDict[TaskId, tuple[int, V]] = OrderedDict()
        #: of all values kept
        self.bytes = 0

    def __contains__(self, id: TaskId) -> bool:
        return id in self._kept

    def __iter__(self) -> Iterator[TaskId]:
        """From the one used longest ago to the latest."""
        return iter(self._kept)

    def missing(self, ids: Iterable[TaskId]) -> list[TaskId]:
        """Those of these that are not kept, each once: they must be sent along."""
        return [id for id in dict.fromkeys(ids) if id not in self._kept]

    def use(self, ids: Iterable[TaskId], new: Mapping[TaskId, tuple[int, V]]) -> dict[TaskId, V]:
        """Take in one message.

        Parameters
        ----------
        ids : iterable of TaskId
            `options.inputs` of its tasks, one after the other.
        new : mapping
            The results sent along: id → (bytes, value). The engine's values are the results; the controller needs none.

        Returns
        -------
        dict
            The values of these ids, also of those that the limit does not let stay; without those that are nowhere.
        """
        found: dict[TaskId, V] = {}
        for id in dict.fromkeys(ids):
            kept = self._kept.get(id)
            if kept is not None:
                self._kept.move_to_end(id)
            elif id in new:
                kept = self._kept[id] = new[id]
                self.bytes += kept[0]
            if kept is not None:
                found[id] = kept[1]
        while self.bytes > self._limit:
            self.bytes -= self._kept.popitem(last=False)[1][0]
        return found

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self.bytes = 0


class ResultOf:
    """Stands in the arguments of a call for the results of other tasks.

    Parameters
    ----------
    ids : tuple of TaskId
        The tasks; they must be in the `inputs` of the task that takes this argument.
    single : bool
        Whether the argument is the one task's result, rather than the list of the results.
    """

    def __init__(self, ids: tuple[TaskId, ...], single: bool) -> None:
        self.ids, self.single = ids, single

    def __reduce__(self) -> tuple[Any, ...]:
        return value_of, (self.ids, self.single)


#: Of the task whose call is being unpickled; None: of no task.
_inputs: Inputs | None = None


@contextlib.contextmanager
def providing(inputs: Inputs | None) -> Iterator[None]:
    """While unpickling inside, `ResultOf` becomes these values."""
    global _inputs
    before, _inputs = _inputs, inputs
    try:
        yield
    finally:
        _inputs = before


def value_of(ids: tuple[TaskId, ...], single: bool) -> Any:
    """The values that a `ResultOf` stands for, unpickled anew: what a task does to them, no other task sees.

    Raises
    ------
    LookupError
        A value has not come, or this is not an engine.
    """
    values = [_load(id) for id in ids]
    return values[0] if single else values


def _load(id: TaskId) -> Any:
    if _inputs is None:
        raise LookupError(f"the result of task {id} is put in on the engine, where its call is unpickled: not here")
    if id not in _inputs:
        raise LookupError(
            f"the result of task {id}, an argument of this task, has not come: it is not kept any more "
            "(purged, or dropped to make room). Run that task again, and then this one."
        )
    stream, frames = _inputs[id]
    # Arrays lie in the frames: each task is given its own. A stream that lies in one is only read.
    start = 0 if stream else 1
    return payload.loads(stream, [*frames[:start], *map(bytearray, frames[start:])])
