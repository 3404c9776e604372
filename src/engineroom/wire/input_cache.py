"""Results of tasks as arguments of other tasks: they go to the engine without passing through the client.

The client pickles a `ResultOf` in place of the argument, and names the tasks in `TaskOptions.inputs`. The controller
sends their results with the task, unless the engine has them in its `InputCache`. When the engine unpickles the call,
each `ResultOf` becomes the value.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from ..ids import TaskId
from ..shared_memory.buffer import SharedBuffer
from .parts import combine, plain

V = TypeVar("V")

#: The results that a task takes as arguments: id → (stream, frames), as `payload.dumps` made them.
Inputs = Mapping[TaskId, tuple[bytes, Sequence[Any]]]

#: Bytes of results that an engine keeps for later tasks.
LIMIT = 256 << 20


class InputCache(Generic[V]):
    """The results that an engine has. The engine keeps one with the values, the controller a mirror with the ids.

    No message keeps the two alike. Both call `use` once for each `Run` message, in order, and `clear` at each Welcome,
    so they hold the same ids. The least recently used result is dropped first.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._kept: OrderedDict[TaskId, tuple[int, V]] = OrderedDict()
        #: total size of the kept values
        self.bytes = 0

    def __contains__(self, id: TaskId) -> bool:
        return id in self._kept

    def __iter__(self) -> Iterator[TaskId]:
        """The ids, least recently used first."""
        return iter(self._kept)

    def missing(self, ids: Iterable[TaskId]) -> list[TaskId]:
        """The ids among these that are not kept, each once. Their results must be sent."""
        return [id for id in dict.fromkeys(ids) if id not in self._kept]

    def use(self, ids: Iterable[TaskId], new: Mapping[TaskId, tuple[int, V]]) -> dict[TaskId, V]:
        """Apply one `Run` message.

        Parameters
        ----------
        ids : iterable of TaskId
            The `options.inputs` of its tasks, one after the other.
        new : mapping
            The results in the message: id → (bytes, value). The controller's mirror needs no value.

        Returns
        -------
        dict
            The values of these ids, also of those that the limit drops at once. Ids without a value are left out.
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
        """Drop everything."""
        self._kept.clear()
        self.bytes = 0


class ResultOf:
    """Stands for the results of other tasks in the arguments of a call.

    Parameters
    ----------
    ids : tuple of TaskId
        The tasks; they must be in the `inputs` of the task that takes this argument.
    single : bool
        True: the argument is the result of the only task. False: it is what `get()` gives for these tasks.
    """

    def __init__(self, ids: tuple[TaskId, ...], single: bool) -> None:
        self.ids, self.single = ids, single

    def __reduce__(self) -> tuple[Any, ...]:
        return value_of, (self.ids, self.single)


#: Inputs of the task whose call is being unpickled; None: no call is being unpickled.
_inputs: Inputs | None = None


@contextlib.contextmanager
def providing(inputs: Inputs | None) -> Iterator[None]:
    """Inside the block, each unpickled `ResultOf` becomes its value from these inputs."""
    global _inputs
    before, _inputs = _inputs, inputs
    try:
        yield
    finally:
        _inputs = before


def value_of(ids: tuple[TaskId, ...], single: bool) -> Any:
    """The value that a `ResultOf` stands for, unpickled for each task: none sees what another does to it.

    Raises
    ------
    LookupError
        A result was not sent, or this process is not an engine.
    """
    values = [_load(id) for id in ids]
    return plain(values[0]) if single else combine(values)


def _load(id: TaskId) -> Any:
    if _inputs is None:
        raise LookupError(f"the result of task {id} is known only on the engine that runs the call, not here")
    if id not in _inputs:
        raise LookupError(
            f"the result of task {id}, an argument of this task, cannot be had any more "
            "(it was purged, dropped to make room, or is damaged). Run that task again, and then this one."
        )
    stream, frames = _inputs[id]
    # Arrays use the memory of the frames, so each task is given copies. A frame that holds the pickle is only read.
    start = 0 if stream else 1
    copies = [frame if isinstance(frame, SharedBuffer) else bytearray(frame) for frame in frames[start:]]
    from . import payload  # controllers have this module, too, and do not unpickle

    return payload.loads(stream, [*frames[:start], *copies])
