"""Results that are not there yet.

An `AsyncResult` is a `concurrent.futures.Future` for one task or several. It costs little until somebody waits:
its lock and its list of listeners are made on demand, and values are unpickled when they are asked for.

How readiness stays exact without a lock per result: a result gets its state with the module-wide `fulfilling`
lock held, and its condition is made with the same lock held; so either the condition is there and the change is
made under it, or it is not, and nobody can have missed anything.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_EXCEPTION, Future
from concurrent.futures import wait as wait_futures
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import RemoteError, TaskAborted, collect_exceptions
from ...ids import TaskId
from ...messages import Output, Published, Started, TaskDone, TaskOptions
from ...wire import payload
from ...wire.input_cache import ResultOf
from ..connection.channel import fulfilling
from ..views.result_args import as_argument
from .metadata import KEYS, ExecuteReply, Metadata, instant, metadata_of
from .outcome import Failed, Outcome, task_error, unwrapped
from .times import Times

if TYPE_CHECKING:
    from ..client import Client
    from ..records.selection import Selection

PENDING, FINISHED = "PENDING", "FINISHED"

_NONE_YET: Mapping[TaskId, Outcome] = MappingProxyType({})

#: Pickles up to this size are kept beside their value.
SMALL = 4096


class AsyncResult(Times, Future):  # type: ignore[type-arg]
    """The result of one task, or of several.

    Parameters
    ----------
    client : Client
    ids : sequence of str
        The msg_ids.
    single : bool
        Whether the value is the one task's, or a list of all tasks'.
    name : str
        What is called, for messages.
    """

    # concurrent.futures reads these; they become instance attributes when they change.
    _state = PENDING
    _cond: threading.Condition | None = None
    _values: list[Any] | None = None
    _live: dict[TaskId, dict[str, Any]] | None = None
    _followers: dict[TaskId, list[AsyncResult]] | None = None
    _frames: dict[TaskId, Sequence[Any]] | None = None
    # Shared until the first outcome comes: a result that waits is as few objects as can be.
    _outcomes: Mapping[TaskId, Outcome] = _NONE_YET
    _return_exceptions = False
    _options: TaskOptions | None = None
    owner = True
    label: str | None = None

    def __init__(
        self,
        client: Client,
        ids: Sequence[TaskId],
        *,
        single: bool = True,
        name: str = "task",
        submitted: float | None = None,
        label: str | None = None,
        owner: bool = True,
        return_exceptions: bool = False,
    ) -> None:
        # Future.__init__ would make a lock: `_condition` below makes it when needed.
        self._client = client
        self._ids: Sequence[TaskId] = ids
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

    @property
    def msg_ids(self) -> list[TaskId]:
        """The tasks' ids."""
        return list(self._ids)

    # ------------------------------------------------------------------------------------------ becoming ready

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        condition = self._cond
        if condition is None:
            with fulfilling:
                condition = self._cond
                if condition is None:
                    self._waiters: list[Any] = []
                    self._done_callbacks: list[Callable[[Any], Any]] = []
                    self._news: list[TaskId] = []
                    condition = self._cond = threading.Condition()
        return condition

    def _all_there(self) -> bool:
        return len(self._outcomes) >= len(self._ids)

    def _keep(self, id: TaskId, outcome: Outcome, frames: Sequence[Any] = ()) -> None:
        """Note an outcome, if there is none."""
        if id in self._outcomes:
            return
        if frames:
            self._frames = {**(self._frames or {}), id: frames}
        if self._outcomes is _NONE_YET:
            self._outcomes = {id: outcome}
        else:
            self._outcomes[id] = outcome  # type: ignore[index]
        if self._cond is not None:
            self._news.append(id)

    def _arrived(self, done: TaskDone, frames: Sequence[Any], now: float) -> bool:
        self._keep(done.id, done, frames)
        self._received = now
        if self._cond is not None:
            return True
        if self._all_there():
            self._state = FINISHED
        return False

    def _announce(self) -> None:
        with self._condition:
            finished = self._state == PENDING and self._all_there()
            if finished:
                self._state = FINISHED
                failed = any(isinstance(o, Exception) or o.status != "ok" for o in self._outcomes.values())
                for waiter in self._waiters:
                    (waiter.add_exception if failed else waiter.add_result)(self)
            self._condition.notify_all()
            followers = self._followers_served()
        for follower, id in followers:
            follower._take(id, self)
        if finished:
            self._invoke_callbacks()

    def _followers_served(self) -> list[tuple[AsyncResult, TaskId]]:
        """Followers of the tasks that have ended since the last time; they are not told again."""
        served = []
        while self._news:  # never exchanged for another: outcomes arrive meanwhile
            id = self._news.pop()
            if self._followers:
                served += [(follower, id) for follower in self._followers.pop(id, ())]
        return served

    def _follow(self, id: TaskId, follower: AsyncResult) -> None:
        """Pass the outcome of one of our tasks on to another AsyncResult, now or when it is there."""
        with self._condition:
            if id not in self._outcomes:
                if self._followers is None:
                    self._followers = {}
                self._followers.setdefault(id, []).append(follower)
                return
        follower._take(id, self)

    def _take(self, id: TaskId, whole: AsyncResult) -> None:
        with self._condition:
            if self._single and whole._values is not None:
                self._values = [whole._values[whole._ids.index(id)]]
            self._keep(id, whole._outcomes[id], (whole._frames or {}).get(id, ()))
            self._received = whole._received
        self._announce()

    def _failed(self, id: TaskId, error: Exception) -> None:
        with self._condition:
            self._keep(id, error)
        self._announce()

    def _heard(self, id: TaskId, news: Output | Started | Published, frames: Sequence[Any]) -> None:
        with self._condition:
            if self._live is None:
                self._live = {}
            live = self._live.setdefault(id, {"stdout": [], "stderr": [], "data": {}, "started": None, "engine": None})
            if isinstance(news, Output):
                live[news.stream].append(news.text)
            elif isinstance(news, Started):
                live["started"], live["engine"] = news.started, news.engine
            else:
                with contextlib.suppress(Exception):  # data that cannot be unpickled here is no reason to die
                    live["data"] = live["data"] | payload.loads(news.payload, frames)
            self._condition.notify_all()

    # ------------------------------------------------------------------------------------------ waiting

    def done(self) -> bool:
        """Whether all outcomes are there."""
        return self._state != PENDING

    ready = done

    def running(self) -> bool:
        """Whether a task is known to have begun (those that end within a moment are never announced)."""
        return not self.done() and self._live is not None

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
        limit = _limit(timeout)
        if return_when is not None and not (return_when == ALL_COMPLETED and self._single):
            parts = self.split()
            done, pending = wait_futures(parts, timeout=limit, return_when=return_when)
            return done, pending
        if self._state == PENDING:
            with self._condition:
                self._condition.wait_for(self.done, limit)
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
        if return_when == FIRST_EXCEPTION and not self._single:
            done, _ = self.wait(timeout, FIRST_EXCEPTION)
            for part in done:
                if part.exception() is not None:
                    part.get()
        if not self.wait(timeout if timeout is not None else -1):
            raise TimeoutError(f"{self!r} was not ready after {timeout:g} s; its tasks go on")
        if return_exceptions is None:
            return_exceptions = self._return_exceptions
        values = self._all_values()
        if not return_exceptions:
            collect_exceptions([value.error for value in values if isinstance(value, Failed)], self._name)
        return unwrapped(values[0]) if self._single else self._reconstruct(values)

    def result(self, timeout: float | None = None) -> Any:
        """Future's spelling of `get`."""
        return self.get(timeout)

    def exception(self, timeout: float | None = None) -> Any:
        """The exception `get` would raise, or None."""
        try:
            self.get(timeout)
        except TimeoutError:
            if not self.done():
                raise
            return sys.exc_info()[1]
        except Exception as error:
            return error
        return None

    def _reconstruct(self, values: list[Any]) -> Any:
        return [unwrapped(value) for value in values]

    def successful(self) -> bool:
        """Whether no task failed.

        Raises
        ------
        RuntimeError
            Not ready yet.
        """
        if not self.done():
            raise RuntimeError(f"{self!r} is not ready")
        return all(not isinstance(o, Exception) and o.status == "ok" for o in self._outcomes.values())

    def cancelled(self) -> bool:
        """Whether all tasks were aborted or cancelled."""
        return (
            self.done()
            and bool(self._ids)
            and all(
                isinstance(o, TaskAborted) if isinstance(o, Exception) else o.status == "aborted"
                for o in self._outcomes.values()
            )
        )

    def abort(self) -> None:
        """End the tasks that have not started. What is running goes on."""
        self._client.abort(self)

    def cancel(self) -> bool:
        """Have the tasks ended, also those that are running: they are interrupted, and killed if they do not stop.

        Waits for nothing. A task may still end by itself before it is reached; it has one outcome, and `cancelled()`
        tells which.

        Returns
        -------
        bool
            False: they had all ended already, and nothing was asked for.
        """
        if self.done():
            return False
        self._client.cancel(self, block=False)
        return True

    def _no_more(self) -> None:
        """Its tasks are to be aborted: submit no others. (What has all its tasks has nothing to do.)"""

    def wait_for_send(self, timeout: float | None = -1) -> None:
        """Kept for old code: tasks are sent in the background, and large arrays are not copied before."""

    @property
    def sent(self) -> bool:
        """Kept for old code: see `wait_for_send`."""
        return True

    def wait_for_output(self, timeout: float | None = -1) -> bool:
        """Wait until all output is there: it comes with the outcome."""
        return bool(self.wait(timeout))

    def wait_interactive(
        self,
        interval: float = 0.1,
        timeout: float | None = -1,
        widget: bool | None = None,
        return_when: str = ALL_COMPLETED,
    ) -> None:
        """Wait, and show a progress bar."""
        from .progress import show_progress

        show_progress(
            [self],
            interval=interval,
            timeout=_limit(timeout),
            name=self._name,
            until_error=return_when == FIRST_EXCEPTION,
        )

    # ------------------------------------------------------------------------------------------ values

    def _all_values(self) -> list[Any]:
        """Values in order; errors stand for themselves. Unpickled once."""
        if self._values is None:
            self._values = [self._value_of(id) for id in self._ids]
            self._frames = None  # large pickles are not needed any more
            for id, outcome in self._outcomes.items():
                if isinstance(outcome, TaskDone) and len(outcome.payload) > SMALL:
                    self._outcomes[id] = msgspec.structs.replace(outcome, payload=b"")  # type: ignore[index]
        return self._values

    def _value_of(self, id: TaskId) -> Any:
        outcome = self._outcomes[id]
        if isinstance(outcome, Exception):
            return Failed(outcome)
        done = outcome
        if done.error is not None:
            return Failed(task_error(done.error, made_by_engine=done.started is not None))
        try:
            value = payload.loads(done.payload, (self._frames or {}).get(id, ()))
        except Exception as error:
            return Failed(
                RemoteError(
                    type(error).__name__,
                    f"the result cannot be unpickled here: {error}",
                    "",
                    {"engine_id": done.engine, "method": "result"},
                )
            )
        if done.content is not None and "execute_input" in done.content:
            return ExecuteReply(value, self._metadata_of(id))
        return value

    def _ready_value(self, index: int) -> Any:
        """The value of task `index`, which is there; raises its error."""
        values = self._values
        value = values[index] if values is not None else self._value_of(self._ids[index])
        if isinstance(value, Failed) and not self._return_exceptions:
            raise value.error
        return unwrapped(value)

    def get_dict(self, timeout: float | None = -1) -> dict[int, Any]:
        """Values by engine number.

        Raises
        ------
        ValueError
            Several tasks ran on one engine.
        """
        values = self.get(timeout)
        values = [values] if self._single else values
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

    def __iter__(self) -> Iterator[Any]:
        """Values in order, each as soon as it is there."""
        if self._single:
            raise TypeError("the result of a single task is not iterable: use get()")
        for index, id in enumerate(self._ids):
            self._wait_for(id)
            yield self._ready_value(index)

    def _wait_for(self, id: TaskId) -> None:
        if id not in self._outcomes:
            with self._condition:
                self._condition.wait_for(lambda: id in self._outcomes)

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
            collect_exceptions([value.error for value in values if isinstance(value, Failed)], self._name)
            return values
        index = range(len(self._ids))[key]
        self._wait_for(self._ids[index])
        return self._ready_value(index)

    def split(self) -> tuple[AsyncResult, ...]:
        """One AsyncResult for each task."""
        from .parts import Part

        return tuple([Part(self, id) for id in self._ids])

    @classmethod
    def join(cls, *results: AsyncResult) -> AsyncResult:
        """One AsyncResult for the tasks of several."""
        from .parts import Joined

        if not results:
            raise ValueError("nothing to join")
        return Joined(results)

    # ------------------------------------------------------------------------------------------ as an argument

    def _all_ids(self) -> Sequence[TaskId]:
        """The ids of all tasks there will be."""
        return self._ids

    def _value_from(self, ids: tuple[TaskId, ...]) -> tuple[Any, ...]:
        """What makes the value of its tasks' results where it is unpickled, as `__reduce__` would say it."""
        return ResultOf(ids, self._single).__reduce__()

    def __reduce__(self) -> tuple[Any, ...]:
        return as_argument(self)

    # ------------------------------------------------------------------------------------------ metadata

    def _metadata_of(self, id: TaskId) -> Metadata:
        outcome = self._outcomes.get(id)
        done = outcome if isinstance(outcome, TaskDone) else None
        metadata = metadata_of(id, self._submitted, self.label, done, self._received)
        if self._options is not None:
            for name in ("after", "follow"):
                wish = getattr(self._options, name)
                metadata[name] = None if wish is None else list(wish.tasks)
        if metadata["engine_id"] is not None:
            metadata["engine_uuid"] = self._client._engine_uuid(metadata["engine_id"])
        live = self._live.get(id) if self._live is not None else None
        if live is not None:
            metadata["data"] = dict(live["data"])
            if done is None:
                metadata.update(
                    stdout="".join(live["stdout"]),
                    stderr="".join(live["stderr"]),
                    engine_id=live["engine"],
                    started=instant(live["started"]),
                )
        return metadata

    @property
    def metadata(self) -> Any:
        """What is known about the task (a dict), or a list of those; live before the end."""
        all_of_them = [self._metadata_of(id) for id in self._ids]
        return all_of_them[0] if self._single else all_of_them

    def _metadata_list(self, key: str) -> Any:
        if key not in KEYS:
            raise KeyError(f"there is no metadata {key!r}; there is {', '.join(KEYS)}")
        values = [self._metadata_of(id)[key] for id in self._ids]
        return values[0] if self._single else values

    def __getattr__(self, name: str) -> Any:
        if name in KEYS:
            return self._metadata_list(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *KEYS]

    @property
    def progress(self) -> int:
        """How many tasks have ended."""
        return len(self._outcomes)

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
        from .display import display_outputs

        if groupby not in ("type", "engine", "order"):
            raise ValueError(f"groupby is 'type', 'engine' or 'order', not {groupby!r}")
        self.wait()
        display_outputs([self._metadata_of(id) for id in self._ids], groupby, result_only, single=self._single)

    def __await__(self) -> Any:
        import asyncio

        return asyncio.wrap_future(self).__await__()

    def __repr__(self) -> str:
        if self.done():
            return f"<{type(self).__name__}({self._name}): finished>"
        count = "" if self._single else f": {len(self._outcomes)}/{len(self._ids)}"
        return f"<{type(self).__name__}({self._name}): pending{count}>"


class AsyncHubResult(AsyncResult):
    """The result of tasks that another client, or an earlier session, submitted.

    Attributes
    ----------
    selection : Selection or None
        Of `resubmit(query=…)`: which tasks were taken, and how many left out.
    """

    selection: Selection | None = None


def _limit(timeout: float | None) -> float | None:
    return None if timeout is None or timeout < 0 else timeout
