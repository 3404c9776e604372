"""How a task ended, as the client knows it, and the value or the exception that comes of it.

No waiting here: see `task_future.py`. What a task printed, and when it ran, is in `metadata.py`.
"""

from __future__ import annotations

import operator
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION
from typing import Any

import msgspec

from ...errors import OUTCOMES, EngineError, EngineInfo, KernelError, RemoteError, TaskAborted, input_parts
from ...ids import TaskId
from ...messages import ErrorInfo, TaskDone
from ...printable import printable
from ...wire import payload
from ...wire.exceptions import remote_error
from ...wire.frames import size
from ...wire.parts import Part
from ..waiting.waits import Need, WaitPort, wait_until_met

#: The engine's report; or the exception that stands for it, if no report will come.
Ending = TaskDone | Exception

#: Stands for the end of an iterator.
_END = object()


class Failure:
    """Stands for a failed task in a list of values. A bare exception would not do: a task may return one."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def value_or_error(value: Any) -> Any:
    """The value; of a `Failure` its exception; of a `Part` what it holds, with exceptions for items that failed."""
    if type(value) is Part:
        return [value_or_error(item) for item in value.value] if value.errors else value.value
    return value.error if isinstance(value, Failure) else value


def errors_in(value: Any) -> list[Exception]:
    """The exception of a `Failure`, or those of a `Part`'s items; []: the task has succeeded."""
    if type(value) is Part:
        return [value.value[index].error for index in sorted(value.errors)]
    return [value.error] if isinstance(value, Failure) else []


def succeeded(ending: Ending) -> bool:
    """Whether the task has a value."""
    return not isinstance(ending, Exception) and ending.status == "ok"


def was_aborted(ending: Ending) -> bool:
    """Whether the task was aborted or cancelled."""
    return isinstance(ending, TaskAborted) if isinstance(ending, Exception) else ending.status == "aborted"


def is_enough(return_when: str, endings: Sequence[Ending]) -> bool:
    """Whether a wait may return, as some tasks have ended like this. That all have ended is not known here."""
    if return_when == FIRST_EXCEPTION:
        return not all(map(succeeded, endings))
    return return_when == FIRST_COMPLETED and bool(endings)


def failed_among(values: Sequence[Any]) -> list[Any]:
    """The values of tasks that have failed, as a whole or in an item."""
    return [value for value in values if type(value) is Failure or (type(value) is Part and value.errors)]


def number_within(key: Any, count: int, what: str) -> int:
    """An index as a number from 0. Raises IndexError, which says how many tasks or items there are."""
    number = operator.index(key)
    if not -count <= number < count:
        raise IndexError(f"this result has {count} {what}{'' if count == 1 else 's'}; there is no number {number}")
    return number % count


def check_joined(results: Sequence[Any], kind: type) -> None:
    """Raise ValueError if there are no results to join, TypeError if one of them is none."""
    if not results:
        raise ValueError("nothing to join")
    for result in results:
        if not isinstance(result, kind):
            raise TypeError(f"join takes AsyncResults, got {result!r:.60} ({type(result).__name__})")


class ResultIterator(Iterator[Any], AsyncIterator[Any]):
    """Iterates over values, with `for` or `async for`; raises errors in their place, and can go on behind them.

    Parameters
    ----------
    entries : iterator
        Values, `Failure`s, and in between `Need`s: what must be waited for before it can go on.
    port : WaitPort
        The client's port.

    Attributes
    ----------
    deadline : float or None
        When `next` is to raise TimeoutError instead of waiting on, by `time.monotonic`.
    """

    deadline: float | None = None

    def __init__(self, entries: Iterator[Any], return_exceptions: bool, port: WaitPort) -> None:
        self._entries, self._return_exceptions, self._port = entries, return_exceptions, port

    def __next__(self) -> Any:
        while type(entry := next(self._entries)) is Need:
            limit = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
            if not wait_until_met(entry, limit, self._port):
                raise TimeoutError("the next value was not there in time; its task goes on")
        return self._given(entry)

    async def __anext__(self) -> Any:
        from ..waiting.coroutines import until_met

        while type(entry := next(self._entries, _END)) is Need:
            await until_met(entry)
        if entry is _END:
            raise StopAsyncIteration
        return self._given(entry)

    def _given(self, entry: Any) -> Any:
        if isinstance(entry, Failure) and not self._return_exceptions:
            raise entry.error
        return value_or_error(entry)


def value_of(ending: Ending, frames: Sequence[Any], items: tuple[int, ...] | None = None) -> Any:
    """Unpickle what the task returned; a `Failure` if it failed, or if its value cannot be unpickled here.

    A chunk of a map of which some items failed is a `Part`, with a `Failure` in the place of each of these.

    `items`: of a task of a map, the numbers of its first and its last item, and the step between dealt ones.
    """
    if isinstance(ending, Exception):
        return Failure(ending)
    if ending.error is not None:
        if ending.payload or frames:
            value = value_of(msgspec.structs.replace(ending, error=None), frames)
            if type(value) is Part:
                for index, error in value.errors.items():
                    value.value[index] = Failure(task_error(error, made_by_engine=True, id=ending.id))
                return value
        made_by_engine = ending.started is not None
        return Failure(task_error(ending.error, made_by_engine=made_by_engine, id=ending.id, items=items))
    try:
        return payload.loads(ending.payload, frames)
    except (Exception, SystemExit) as error:  # unpickling may run any code
        text = f"the result cannot be unpickled here: {error}"
        if isinstance(error, MemoryError) and not str(error):
            text = f"there is no memory here for the result, {size(ending.payload, frames) / 1e6:,.1f} MB"
        return Failure(RemoteError(type(error).__name__, text, "", {"engine_id": ending.engine, "method": "result"}))


def task_error(
    error: ErrorInfo, *, made_by_engine: bool, id: TaskId | None = None, items: tuple[int, ...] | None = None
) -> Exception:
    """The exception for a failed task.

    Parameters
    ----------
    made_by_engine : bool
        Whether the engine reported the error. Else the controller did, and its errors have types of their own.
    items : tuple of int, optional
        Of a task of a map: the numbers of its first and its last item, and the step between dealt ones.
    """
    info: EngineInfo = {"engine_id": error.engine_id, "engine_uuid": error.engine_uuid, "method": error.method}
    if id is not None:
        info["msg_id"] = id
    if error.host is not None:
        info["host"] = error.host
    if error.index is not None:
        info["index"] = error.index
    elif items is not None and items[0] == items[1]:
        info["index"] = items[0]
    elif items is not None:
        info["items"] = items
    if error.arguments is not None:
        info["arguments"] = error.arguments
    text = printable(error.evalue)  # of these two kinds it may quote other peers
    if error.ename == "EngineError" and (error.stopped or not made_by_engine):
        return EngineError(text, error.traceback, info)
    if error.ename in OUTCOMES and (error.stopped or not made_by_engine):
        outcome = OUTCOMES[error.ename](text)
        if isinstance(outcome, KernelError):
            outcome.name_call(info)
        if isinstance(outcome, RemoteError):
            outcome.engine_info, outcome.traceback = info, error.traceback
        if parts := input_parts(info):
            outcome.add_note(f"It was {', '.join(parts)}")
        if error.traceback:
            outcome.add_note(f"It was stopped here, on engine {error.engine_id}:\n{error.traceback}")
        return outcome
    return remote_error(error.ename, error.evalue, error.traceback, info, error.packed)
