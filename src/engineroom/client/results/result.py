"""Results that are not there yet: `AsyncResult`, a Future for one task or several.

How it becomes ready is in `task_future.py`; metadata and times are in `metadata.py`. Here is what else users see of it:
values and errors, which are unpickled when somebody asks for them, and output.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_EXCEPTION
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from ...collecting import together
from ...config import check_optional_switches, check_switches
from ...errors import InvalidDependency, SerializationError
from ...ids import TaskId
from ...messages import TaskDone
from ...wire.input_cache import ResultOf
from ...wire.parts import Part, combine, items_of
from ..connection.submission import Acceptance
from ..records.selection import Selection
from ..waiting.waits import Need, check_return_when, limit_of, wait_for_futures
from .arguments import refuse_direct, results_of_this_call
from .ending import (
    Failure,
    ResultIterator,
    check_joined,
    errors_in,
    failed_among,
    is_enough,
    number_within,
    succeeded,
    value_of,
    value_or_error,
    was_aborted,
)  # fmt: skip
from .metadata import DescribedFuture, ExecuteReply
from .port import ResultPort
from .task_future import FINISHED, PENDING, TaskFuture

#: What stands for a value that `get` does not return as it is.
_NEEDS_A_LOOK = (Failure, Part)

#: Pickles up to this many bytes are kept beside their value.
SMALL = 4096


class AsyncResult(DescribedFuture):
    """The result of one task, or of several.

    Parameters
    ----------
    port : ResultPort
        The client's port.
    ids : sequence of str
        The msg_ids.
    single : bool
        Whether the value is the one task's, or a list of all tasks'.
    name : str
        What is called, for messages.
    submitted : float, optional
        Seconds since the epoch.
    """

    # These become instance attributes when they change: a result that waits is as few objects as can be.
    _values: list[Any] | None = None
    #: values of tasks that another result has unpickled before
    _taken: dict[TaskId, Any] | None = None
    #: of a map: how many items a task has, where that is not one
    _sizes: dict[TaskId, int] | None = None
    _dist: str | None = None  #: … and how the items were split
    _return_exceptions = False
    #: with `track`: whether the tasks have been accepted
    _acceptance: Acceptance | None = None
    owner = True
    #: what `len` and `progress` count
    _counted = "task"

    def __init__(
        self,
        port: ResultPort,
        ids: Sequence[TaskId],
        *,
        single: bool = True,
        name: str = "task",
        submitted: float | None = None,
        label: str | None = None,
        owner: bool = True,
        return_exceptions: bool = False,
    ) -> None:
        # Neither TaskFuture nor Future has anything to set up yet: see `TaskFuture`.
        self._ids: Sequence[TaskId] = ids
        self._port = port
        self._single = single
        self._name = name
        self._submitted = submitted
        if label is not None:
            self.label = label
        if not owner:
            self.owner = False
        if return_exceptions:
            self._return_exceptions = True
        if not ids:
            self._state = FINISHED

    def _shape_noted(self) -> tuple[str, TaskId | None, int]:
        """What a record says of the result that its task is part of; see `messages.Call`: shape, first, items."""
        return "list", None, 0

    @property
    def msg_ids(self) -> list[TaskId]:
        """The tasks' ids."""
        return list(self._ids)

    # ------------------------------------------------------------------------------------------ waiting

    def ready(self) -> bool:
        """Whether all outcomes are there."""
        return self.done()

    def wait(self, timeout: float | None = -1, return_when: str | None = None) -> Any:
        """Wait for the outcomes; no error of a task is raised.

        Parameters
        ----------
        timeout : float or None
            Seconds; None or negative: no limit.
        return_when : {FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED}, optional

        Returns
        -------
        bool
            Whether all are there; with `return_when`, sets (done, pending) of one-task AsyncResults.
        """
        limit = limit_of(timeout)
        check_return_when(return_when)
        if return_when is not None and not (return_when == ALL_COMPLETED and self._single):
            return wait_for_futures(self.split(), limit, return_when, self._port)
        self._wait_until_done(limit)
        if return_when is not None:
            return ({self}, set()) if self.done() else (set(), {self})
        return self.done()

    def get(
        self, timeout: float | None = None, return_exceptions: bool | None = None, return_when: str | None = None
    ) -> Any:
        """The value, or the list of values in the order of the tasks.

        Parameters
        ----------
        timeout : float, optional
            Seconds; None or negative: no limit.
        return_exceptions : bool, optional
            Put errors in the place of values instead of raising them.
        return_when : {FIRST_EXCEPTION, ALL_COMPLETED}, optional
            FIRST_EXCEPTION: raise as soon as one task has failed.

        Raises
        ------
        TimeoutError
            Not ready in time. The tasks go on.
        RemoteError, CompositeError, EngineError, TaskAborted
            The task raised; several did; its engine died; it was aborted.
        """
        if return_exceptions is not None:
            check_switches(return_exceptions=return_exceptions)
        if return_when is not None:
            check_return_when(return_when)
            if return_when == FIRST_EXCEPTION and not self._single:
                done, _ = self.wait(timeout, FIRST_EXCEPTION)
                for part in done:
                    if part.exception() is not None:
                        part.get()
        limit = None if timeout is None else limit_of(timeout)
        if self._state == PENDING:
            self._wait_until_done(limit)
            if not self.done():
                raise TimeoutError(f"{self!r} was not ready after {timeout:g} s; its tasks go on")
        values = self._all_values()
        if self._single and type(values[0]) not in _NEEDS_A_LOOK:  # the hot path
            return values[0]
        if return_exceptions is None:
            return_exceptions = self._return_exceptions
        if not return_exceptions:
            self._raise_errors_in(values)
        return value_or_error(values[0]) if self._single else self._together(values)

    def result(self, timeout: float | None = None) -> Any:
        """`get`, as Future calls it."""
        return self.get(timeout)

    def exception(self, timeout: float | None = None) -> Any:
        """The exception `get` would raise, or None."""
        limit = limit_of(timeout)
        try:
            self.get(limit)
        except Exception as error:
            if isinstance(error, TimeoutError) and not self.done():
                raise
            return error
        return None

    def _together(self, values: Sequence[Any]) -> Any:
        """The values of the tasks as `get` returns them: parts of a call are put together."""
        together = self._entries(values)
        return [value_or_error(value) for value in together] if failed_among(values) else together

    def _entries(self, values: Sequence[Any]) -> Any:
        """`_together`, with a `Failure` in the place of each error."""
        dist = next((value.dist for value in values if type(value) is Part), self._dist)
        if dist is None and self._sizes is None:
            return list(values)
        if Failure not in set(map(type, values)):
            return combine(values)
        return combine([self._as_part(id, value, dist or "b") for id, value in zip(self._ids, values, strict=True)])

    def _as_part(self, id: TaskId, value: Any, dist: str) -> Any:
        """The value of a task; in place of a chunk that failed as a whole, the same error for each of its items."""
        if isinstance(value, Failure):
            return Part([value] * (1 if self._sizes is None else self._sizes.get(id, 1)), dist)
        return value

    def _raise_errors_in(self, values: Sequence[Any]) -> None:
        if failed := failed_among(values):
            raise together([e for value in failed for e in errors_in(value)], self._name, single=self._single)

    def successful(self) -> bool:
        """Whether no task failed.

        Raises
        ------
        RuntimeError
            Not ready yet.
        """
        if not self.done():
            raise RuntimeError(f"{self!r} is not ready")
        return all(map(succeeded, self._outcomes.values()))

    def cancelled(self) -> bool:
        """Whether all tasks were aborted or cancelled."""
        return self.done() and bool(self._ids) and all(map(was_aborted, self._outcomes.values()))

    def abort(self) -> None:
        """End the tasks that have not started. Tasks that are running go on."""
        self._no_more()
        self._port.abort(self._ids, running=False)

    def cancel(self) -> bool:
        """End the tasks, also those that are running: they are interrupted, and killed if they do not stop.

        Returns at once. A task may still end by itself first; it has one outcome, and `cancelled()` tells which.

        Returns
        -------
        bool
            False if all tasks had ended already; then nothing is done.
        """
        if self.done():
            return False
        self._no_more()
        self._port.abort(self._ids, running=True)
        return True

    def wait_for_send(self, timeout: float | None = -1) -> bool:
        """Wait until the arguments may be changed; returns True.

        At once, unless `track` is set: arguments are copied at the call. With `track=True` large buffers are not
        copied, and may be changed once the controller has accepted the tasks: until then they may be sent again.

        Parameters
        ----------
        timeout : float or None
            Seconds; None or negative: no limit.

        Raises
        ------
        TimeoutError
            They may not be changed yet.
        """
        limit = limit_of(timeout)
        if self._acceptance is None or self._acceptance.wait(limit):
            return True
        raise TimeoutError(f"the arguments of {self!r} have not been accepted after {timeout:g} s: do not change them")

    @property
    def sent(self) -> bool:
        """Whether the arguments may be changed: see `wait_for_send`."""
        return self._acceptance is None or self._acceptance.is_complete()

    def wait_for_output(self, timeout: float | None = -1) -> bool:
        """The same as `wait`: all output has come when the outcome comes."""
        return bool(self.wait(timeout))

    def wait_interactive(
        self, interval: float = 0.1, timeout: float | None = -1, widget: bool | None = None,
        return_when: str = ALL_COMPLETED,
    ) -> None:  # fmt: skip
        """Wait, and show a progress bar.

        Parameters
        ----------
        interval : float
            Seconds between two looks.
        timeout : float or None
            Seconds; None or negative: no limit. Raises TimeoutError after it.
        widget : bool, optional
            In a notebook: a widget of ipywidgets, or HTML. Default: a widget if ipywidgets is installed.
        return_when : {ALL_COMPLETED, FIRST_EXCEPTION, FIRST_COMPLETED}
            With the others: until one task has failed, or ended.
        """
        from ..notebook.progress import show_progress

        check_return_when(return_when)
        show_progress(
            [self], interval=interval, timeout=limit_of(timeout), name=self._name, widget=widget,
            enough=lambda: is_enough(return_when, list(self._outcomes.values())),
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ values

    def _all_values(self) -> list[Any]:
        """Values in order, a `Failure` for each error. They are unpickled once."""
        values = self._values
        if values is None:
            values = self._values = [self._value_of(id) for id in self._ids]
            if self._frames is not None:
                self._frames = None  # large pickles are not needed any more
            for id, outcome in self._outcomes.items():
                if type(outcome) is TaskDone and len(outcome.payload) > SMALL:
                    self._outcomes[id] = msgspec.structs.replace(outcome, payload=b"")  # type: ignore[index]
        return values

    def _value_of(self, id: TaskId) -> Any:
        if self._taken is not None and id in self._taken:
            return self._taken[id]
        ending, frames = self._outcomes[id], self._frames
        value = value_of(ending, () if frames is None else frames.get(id, ()))
        if type(ending) is TaskDone and ending.content is not None and "execute_input" in ending.content:
            return value if isinstance(value, Failure) else ExecuteReply(value, self._metadata_of(id))
        return value

    def _ready_value(self, index: int) -> Any:
        """The value of task `index`, which has ended. Raises its error."""
        values = self._values
        value = values[index] if values is not None else self._value_of(self._ids[index])
        if not self._return_exceptions:
            self._raise_errors_in([value])
        return value_or_error(value)

    def _take(self, id: TaskId, source: TaskFuture) -> None:
        # Once the source has unpickled its values, it drops their pickles: take over the value, too.
        if isinstance(source, AsyncResult) and source._values is not None:
            self._taken = {**(self._taken or {}), id: source._values[source._ids.index(id)]}
        super()._take(id, source)

    def get_dict(self, timeout: float | None = -1) -> dict[int, Any]:
        """Values by engine number.

        Raises
        ------
        ValueError
            Several tasks ran on one engine.
        """
        self.get(timeout)
        values = list(map(value_or_error, self._all_values()))
        engines = [self._metadata_of(id)["engine_id"] for id in self._ids]
        doubled = {e for e in engines if engines.count(e) > 1} if len(set(engines)) < len(engines) else set()
        if doubled:
            raise ValueError(f"several tasks ran on engine {min(doubled)}, so values cannot be named by engine")
        return dict(zip(engines, values, strict=True))

    @property
    def r(self) -> Any:
        """`get()`."""
        return self.get()

    @property
    def result_dict(self) -> dict[int, Any]:
        """`get_dict()`."""
        return self.get_dict()

    def __iter__(self) -> ResultIterator:
        """Values in order, each as soon as its task has ended. Of a map these are its items.

        An error is raised in the place of its value. `next` then goes on with the values behind it.
        """
        if self._single:
            raise TypeError("the result of a single task is not iterable: use get()")
        return ResultIterator(self._entries_as_they_come(), self._return_exceptions, self._port)

    def __aiter__(self) -> ResultIterator:
        """The same for `async for`: a coroutine that waits for a value does not block its event loop."""
        return self.__iter__()

    def _entries_as_they_come(self) -> Iterator[Any]:
        """What iterating gives, with a `Failure` in the place of each error, and a `Need` before what is not there."""
        unpickled: dict[TaskId, Any] = {}
        for id in self._ids_as_wanted():
            if isinstance(id, Need):
                yield id
                continue
            if self._values is not None and not unpickled:
                unpickled = dict(zip(self._ids, self._values, strict=True))
            value = unpickled[id] if unpickled else self._value_of(id)
            if self._dist == "r" or (type(value) is Part and value.dist != "b"):
                # Its first item is followed by the first of the next part.
                yield Need(self.done, (self,))
                yield from self._entries(self._all_values())
                return
            part = value if self._sizes is None else self._as_part(id, value, "b")
            yield from items_of(part.value) if type(part) is Part else (part,)

    def _ids_as_wanted(self) -> Iterator[TaskId | Need]:
        """The ids of the tasks, in the order in which iterating gives their values.

        Before the id of a task that may not have ended comes a `Need`.
        """
        for id in self._ids:
            if id not in self._outcomes:
                yield Need(functools.partial(self._has_ended, id), (self,))
            yield id

    def _has_ended(self, id: TaskId) -> bool:
        return id in self._outcomes

    def __len__(self) -> int:
        return len(self._ids)

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, key: int | slice | str) -> Any:
        if isinstance(key, str):
            return self._metadata_list(key)
        if self._single:
            raise TypeError("the result of a single task has no items: use get()")
        if isinstance(key, slice):
            ids = range(len(self._ids))[key]
            for index in ids:
                self._wait_for(self._ids[index])
            values = [self._value_of(self._ids[i]) if self._values is None else self._values[i] for i in ids]
            if not self._return_exceptions:
                self._raise_errors_in(values)
            return list(map(value_or_error, values))
        index = number_within(key, len(self._ids), "task")
        self._wait_for(self._ids[index])
        return self._ready_value(index)

    def split(self) -> tuple[AsyncResult, ...]:
        """One AsyncResult for each task; that of a single task gives itself."""
        return (self,) if self._single else tuple([ResultPart(self, id) for id in self._ids])

    @classmethod
    def join(cls, *results: AsyncResult) -> AsyncResult:
        """One AsyncResult for the tasks of several, in order."""
        check_joined(results, AsyncResult)
        ids = [id for result in results for id in result.msg_ids]
        first = results[0]
        joined = AsyncResult(first._port, ids, single=False, name=first._name, submitted=first._submitted)
        joined._doubles = len(ids) - len(set(ids))
        for result in results:
            for id in result.msg_ids:
                result._follow(id, joined)
        joined._describe(results)
        return joined

    # ------------------------------------------------------------------------------------------ as an argument

    def _all_ids(self) -> Sequence[TaskId]:
        """The ids of all tasks; a growing map submits the rest of its chunks first."""
        return self._ids

    def _pickled_as(self, ids: tuple[TaskId, ...]) -> tuple[Any, ...]:
        """What `__reduce__` returns for a result with these tasks: unpickled on an engine, it is the value."""
        return ResultOf(ids, self._single).__reduce__()

    def __reduce__(self) -> tuple[Any, ...]:
        """Stand in the pickle of a load-balanced call's arguments for the value.

        Raises
        ------
        SerializationError
            No load-balanced call is being pickled.
        InvalidDependency
            A task has failed, and the controller keeps no results.
        """
        results = results_of_this_call()
        if results is None:
            raise SerializationError(
                f"{self!r} is not a value, so nothing was sent: give its value, ar.get(). Only calls through a "
                "load-balanced view take AsyncResults as arguments"
            )
        if self.done() and not self._port.keeps:
            return operator.getitem, ((self._value_to_send(),), 0)  # unpickles as the value
        results.append(self)
        return self._pickled_as(tuple(self._all_ids()))

    def _value_to_send(self) -> Any:
        """The value itself: the controller does not keep it for the engines."""
        refuse_direct(self._ids, self._port)
        try:
            return self.get(return_exceptions=False)
        except Exception as error:
            raise InvalidDependency(f"an argument is the result of a task that has failed: {error}") from error

    # ------------------------------------------------------------------------------------------ output

    def display_outputs(self, groupby: str = "type", result_only: bool = False) -> None:
        """Print what the tasks printed and displayed.

        Parameters
        ----------
        groupby : {"type", "engine", "order"}
            All stdout first, then stderr …; or engine by engine.
        result_only : bool
            Only the values of executed cells.
        """
        from .display import check_display, display_outputs

        check_display(groupby, result_only)
        self.wait()
        display_outputs([self._metadata_of(id) for id in self._ids], groupby, result_only, single=self._single)

    def stream_output(self) -> AbstractContextManager[None]:
        """Inside this context, what the tasks print is shown as it comes: `with ar.stream_output(): ar.wait()`."""
        from .display import OutputStream

        return OutputStream(self)

    def _repr_html_(self) -> str:
        from .shown import result_html

        elapsed = None if self._submitted is None else f"{self.elapsed:.3g} s"
        facts = [("label", self.label), ("elapsed", elapsed)]
        title = f"{type(self).__name__}({self._name})"
        return result_html(self._ids, self._outcomes, facts, title, self._counted, self.progress, len(self))

    def __await__(self) -> Any:
        """`await ar` is the value, as `get()` gives it. If the coroutine is cancelled, the tasks go on."""
        return self.get_async().__await__()

    async def wait_async(self, timeout: float | None = -1, *, cancel: bool = False) -> bool:
        """`wait` for coroutines: their event loop goes on meanwhile.

        Parameters
        ----------
        cancel : bool
            If the coroutine is cancelled while it waits, cancel the tasks, also those that are running. Default: they
            go on.
        """
        from ..waiting.coroutines import ending_when_cancelled, until_all_done

        with ending_when_cancelled([self], cancel):
            return await until_all_done([self], timeout)

    async def get_async(
        self, timeout: float | None = None, return_exceptions: bool | None = None, *, cancel: bool = False
    ) -> Any:
        """`get` for coroutines: their event loop goes on meanwhile. `cancel`: see `wait_async`."""
        check_optional_switches(return_exceptions=return_exceptions)
        if not await self.wait_async(timeout, cancel=cancel):
            raise TimeoutError(f"{self!r} was not ready after {timeout:g} s; its tasks go on")
        return self.get(None, return_exceptions)

    def __repr__(self) -> str:
        if self.done():
            return f"<{type(self).__name__}({self._name}): finished>"
        count = "" if self._single else f": {len(self._outcomes)}/{len(self._ids)}"
        return f"<{type(self).__name__}({self._name}): pending{count}>"


class ResultPart(AsyncResult):
    """The result of one task of a larger AsyncResult."""

    def __init__(self, whole: AsyncResult, id: TaskId) -> None:
        super().__init__(
            whole._port, [id], name=whole._name, submitted=whole._submitted, label=whole.label, owner=whole.owner,
            return_exceptions=whole._return_exceptions,
        )  # fmt: skip
        self._recorded, self._each, self._names = whole._recorded, whole._each, whole._names
        whole._follow(id, self)


class AsyncHubResult(AsyncResult):
    """The result of tasks that another client, or an earlier session, submitted.

    Attributes
    ----------
    selection : Selection or None
        Of `resubmit(query=…)`: which tasks were taken, and how many left out.
    """

    selection: Selection | None = None
