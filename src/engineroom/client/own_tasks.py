"""The tasks of one client: what names them, which have no outcome yet, and results that wait for them."""

from __future__ import annotations

import time
import warnings
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import Future
from typing import Any

from ..errors import EngineroomError, PendingTask, TimeoutError, UnknownTask
from ..ids import EngineId, TaskId
from ..messages import OptionChanges, Resubmit, Sync, pieces
from .calls import KEYS, FoundCall, calls_in
from .connection.history import History
from .port import ClientPort
from .records import sessions
from .records.queries import Records
from .results.graph_result import GraphResult
from .results.map_result import AsyncMapResult
from .results.metadata import RecordedTimes
from .results.result import AsyncHubResult, AsyncResult
from .results.task_future import CATCH_UP_SECONDS, wait_for_all
from .session import SessionResults
from .views import View

#: What names tasks: a msg_id, an index into the history, an AsyncResult, GraphResult or Future, a collection of those.
Jobs = Any
#: A wait with a limit asks at least so many seconds whether there are such tasks.
ASK_SECONDS = 1.0
#: What is asked of the records of tasks whose results are fetched.
RECORDED = ["submitted", "received", "completed", "label", "function_name"]


class OwnTasks:
    """The tasks that one client has submitted.

    Attributes
    ----------
    views : WeakSet of View
        The client's views, as long as somebody uses them. Each has a history of its own; the client's history, which
        the port has, keeps the tasks of views that are gone.
    """

    def __init__(self, port: ClientPort, records: Records) -> None:
        self._port, self._records = port, records
        self._channel = port.channel
        self.views: weakref.WeakSet[View] = weakref.WeakSet()
        #: results of other clients' tasks that were fetched here, as long as somebody uses them
        self._fetched: weakref.WeakValueDictionary[TaskId, AsyncResult] = weakref.WeakValueDictionary()
        #: tasks of the history whose records are gone, as far as this client knows: nothing can be fetched
        self._purged = History(port.channel.session)

    def history(self) -> History:
        """msg_ids by submission, at this moment."""
        return self._port.history.copy()

    def is_mine(self, id: TaskId) -> bool:
        """Whether this client has made the msg_id."""
        return id.startswith(self._channel.session)

    def outstanding(self) -> set[TaskId]:
        """msg_ids without an outcome."""
        return self._channel.outstanding()

    def finished(self) -> list[TaskId]:
        """msg_ids of tasks that have an outcome, which can be fetched as far as this client knows."""
        left_out = self.outstanding().union(self._purged)
        return [id for id in self._port.history if id not in left_out]

    def are_purged(self, ids: Iterable[TaskId]) -> None:
        """The records of these tasks are gone."""
        self._purged.extend(sorted(self._port.history.among(ids).difference(self._purged)))

    def at_engines(self, engines: Sequence[EngineId]) -> list[TaskId]:
        """This client's tasks that ran on engines, as their records tell."""
        query = {"client_uuid": self._channel.session, "engine_id": {"$in": list(engines)}}
        return [record["msg_id"] for record in self._records.iterate(query, ["msg_id"])]

    def require_ended(self) -> None:
        """Raise PendingTask if a task of this client is outstanding."""
        _refuse(self._port.history.among(self.outstanding()))

    def require_own(self, ids: Iterable[TaskId]) -> None:
        """Raise UnknownTask if this client has not submitted one of these tasks."""
        for id in ids:
            if not self._port.has_made(id):
                raise UnknownTask(f"{id} is no task of this client; {_nothing_was('forgotten')}")

    def forget(self, jobs: Jobs) -> None:
        """Forget tasks (None: all). Raises PendingTask if one is outstanding."""
        outstanding = self.outstanding()
        ids = None if jobs is None else set(self.ids_of(jobs))
        pending = self._port.history.among(outstanding) if ids is None else ids & outstanding
        _refuse(pending)
        for history in (self._port.history, self._purged, *(view.history for view in list(self.views))):
            if ids is None:
                history.clear()
            else:
                history.forget(ids)

    # ------------------------------------------------------------------------------------------ names of tasks

    def ids_of(self, jobs: Jobs) -> list[TaskId]:
        """The msg_ids of tasks."""
        if isinstance(jobs, AsyncResult | GraphResult):
            return list(jobs.msg_ids)
        if isinstance(jobs, str) and jobs.strip():
            return [TaskId(jobs)]
        if isinstance(jobs, int) and not isinstance(jobs, bool):
            history = self._port.history
            try:
                return [history[jobs]]
            except IndexError:
                raise IndexError(f"this client has submitted {len(history)} tasks; there is no number {jobs}") from None
        if isinstance(jobs, Iterable) and not isinstance(jobs, Mapping | str | bytes):
            return [id for job in jobs for id in self.ids_of(job)]
        raise TypeError(f"tasks are named by msg_id, index, AsyncResult, or a list of those; got {jobs!r}")

    def id_of(self, job: Jobs) -> TaskId:
        """The msg_id of one task."""
        if len(ids := self.ids_of(job)) != 1:
            raise ValueError(f"name one task, not {len(ids)}")
        return ids[0]

    def unended(self, ids: Iterable[TaskId], done: str, timeout: float | None) -> list[TaskId]:
        """Those of some tasks that have not ended, as far as can be told in `timeout` seconds.

        The controller is asked about tasks of other clients that nobody here waits for. `done` is what the user wants
        to have done to the tasks: "aborted".

        Raises
        ------
        UnknownTask
            There is no such task.
        """
        pending, others = [], []
        for id in dict.fromkeys(ids):
            if self._channel.waiter_of(id) is not None:
                pending.append(id)
            elif not self.is_mine(id):
                others.append(id)
            elif not self._port.has_made(id):
                raise UnknownTask(f"no such task: {id}: this client has not submitted it; {_nothing_was(done)}")
        others = [id for id in others if not self._is_here(id)]
        if others and self._port.keeps:  # without records, a task that has ended is as unknown as one that never was
            try:
                others = self._records.result_status(others, timeout)["pending"]
            except UnknownTask as error:
                raise UnknownTask(f"{error}; {_nothing_was(done)}") from None
            except TimeoutError:
                pass  # the controller is away: it tells later
        return [*pending, *others]

    # ------------------------------------------------------------------------------------------ results

    def futures(self) -> list[Any]:
        """The results that wait for an outcome."""
        return list(self._channel.waiters.all())

    def futures_of(self, jobs: Jobs, limit: float | None = None) -> list[Any]:
        """Results of tasks, to be waited for; those of other clients are watched from now on.

        `limit`: seconds that the controller has to tell whether there are such tasks, but at least ASK_SECONDS.

        Raises
        ------
        UnknownTask
            There is no such task.
        """
        if isinstance(jobs, Future):
            return [jobs]
        futures: list[Any] = []
        if isinstance(jobs, list | tuple | set):
            futures = [job for job in jobs if isinstance(job, Future)]
            jobs = [job for job in jobs if not isinstance(job, Future)]
        mine: dict[Any, None] = {}
        others = []
        for id in self.unended(self.ids_of(jobs), "waited for", None if limit is None else max(limit, ASK_SECONDS)):
            waiter = self._channel.waiter_of(id)
            if waiter is not None:
                mine[waiter] = None
            elif not self.is_mine(id):
                others.append(id)
        return [*futures, *mine, *([self.result_of(others, single=False)] if others else [])]

    def wait(self, jobs: Jobs, limit: float | None) -> bool:
        """Wait for tasks (None: all that this client waits for), for `limit` seconds. Returns whether all are done."""
        began = time.monotonic()
        futures = self.futures() if jobs is None else self.futures_of(jobs, limit)
        return wait_for_all(futures, None if limit is None else max(0.0, limit - (time.monotonic() - began)))

    async def wait_async(self, jobs: Jobs, limit: float | None, *, cancel: bool) -> bool:
        """`wait` for coroutines. `cancel`: end the tasks if the coroutine is cancelled."""
        import asyncio  # slow to import, and only those who await need it

        from .waiting.coroutines import ending_when_cancelled, until_all_done

        jobs = list(jobs) if isinstance(jobs, Iterator) else jobs
        if jobs is None:
            futures = self.futures()
        elif self._may_ask(jobs):
            futures = await asyncio.to_thread(self.futures_of, jobs, limit)
        else:
            futures = self.futures_of(jobs)
        with ending_when_cancelled(futures, cancel):
            return await until_all_done(futures, limit)

    def _may_ask(self, jobs: Jobs) -> bool:
        """Whether `futures_of` may ask the controller about these jobs, which takes a moment."""
        jobs = jobs if isinstance(jobs, list | tuple | set) else [jobs]
        ids = self.ids_of([job for job in jobs if not isinstance(job, Future)])
        return any(self._channel.waiter_of(id) is None and not self.is_mine(id) for id in ids)

    def results_of_session(self, wanted: Any) -> SessionResults:
        """See `Session.__call__`."""
        found = sessions.find(self._records, wanted)
        records = self._records.iterate({"client_uuid": {"$in": found.sessions}}, KEYS)
        calls = [call for call in calls_in(records) if found.label is None or found.label in call.labels]
        name = wanted if isinstance(wanted, str) else found.sessions[0]
        return SessionResults(name, [call.name for call in calls], lambda number: self._result_again(calls[number]))

    def _result_again(self, call: FoundCall) -> AsyncResult:
        """The result that a call had, of any session."""
        if call.missing > 0:
            warnings.warn(
                f"{call.missing:,} items of the map {call.name!r} are not there: its client ended before it had "
                "submitted them, or their records are gone",
                stacklevel=5,
            )
        mine = all(map(self.is_mine, call.ids))
        what: dict[str, Any] = {"name": call.name, "label": call.label, "owner": mine}
        *dealt, shape = call.shape.split(" ")
        if shape in ("map", "parts"):
            dist = ("r" if dealt else "b") if call.whole else None
            result: AsyncResult = AsyncMapResult(self._port, call.ids, sizes=call.sizes, dist=dist, **what)
            if shape == "parts":
                result._sizes = None
        else:
            kind = AsyncResult if mine else AsyncHubResult
            result = kind(self._port, call.ids, single=call.shape == "single", **what)
        self.result_of(call.ids, single=result._single, again=result)
        if call.ended:  # the outcomes are only to be fetched
            result.wait(CATCH_UP_SECONDS)
        return result

    def result_of(
        self, ids: Sequence[TaskId], *, single: bool, owner: bool = True, again: AsyncResult | None = None
    ) -> AsyncResult:
        """A new result for tasks, of this client or any other. If they are ours, and have ended, it is ready.

        `again`: the result to be filled, instead of one for `ids`.
        """
        mine = owner and all(map(self.is_mine, ids))
        # What is here needs no hub, also if another client has submitted it.
        kind = AsyncResult if owner and all(self.is_mine(id) or self._is_here(id) for id in ids) else AsyncHubResult
        result = kind(self._port, ids, single=single, name="get_result", owner=mine) if again is None else again
        result._doubles = len(ids) - len(set(ids))
        watched, fetched = [], []
        for id in dict.fromkeys(ids):
            waiter = self._channel.waiter_of(id)
            if waiter is None and self._is_here(id):
                self._fetched[id]._follow(id, result)
                fetched.append(id)
            elif isinstance(waiter, AsyncResult):
                waiter._follow(id, result)
                result._submitted, result.label = waiter._submitted, waiter.label
            else:
                watched.append(id)
        if watched or fetched:
            result._recorded = self._recorded([*watched, *fetched])
        if watched:
            self._fetched.update({id: result for id in watched if not self.is_mine(id)})
            self._channel.expect(watched, result)
            if not all(map(self.is_mine, watched)):  # they may have printed something before we came
                result._caught_up = self._channel.request(Sync())
        if mine and len(watched) == len(ids):  # they have ended: the outcomes are only to be fetched
            result.wait(CATCH_UP_SECONDS)
        return result

    def _is_here(self, id: TaskId) -> bool:
        """Whether the outcome of another client's task was fetched, and somebody still has it."""
        fetched = self._fetched.get(id)
        # an exception stands for an outcome that could not be had: it is asked for again
        return fetched is not None and fetched.done() and not isinstance(fetched._outcomes.get(id), Exception)

    def _recorded(self, ids: Sequence[TaskId]) -> RecordedTimes:
        """What the records of these tasks say; they are asked for when somebody wants to know."""

        def find() -> Iterable[Mapping[str, Any]]:
            try:
                return self._records.find({"msg_id": {"$in": list(ids)}}, RECORDED)  # type: ignore[no-any-return]
            except (EngineroomError, TimeoutError):
                return []  # the client is closed, say: what we know is still of use

        return RecordedTimes(find)

    def explain(self, jobs: Jobs) -> Any:
        """Why tasks are not running, or what has become of them.

        Parameters
        ----------
        jobs : msg_id, int, AsyncResult, or a list of those

        Returns
        -------
        Explanation, or Explanations (a list of those)
            Printed, it is a sentence; a list prints one line for each distinct reason, with how many tasks have it.
            Its `state` is one of waiting, queued, held, recovering, ended, unknown.

        Examples
        --------
        >>> rc.explain(result)                                                        # doctest: +SKIP
        3f9ab2-17 is waiting: …
        """
        found = self._records.explain(self.ids_of(jobs))
        return found[0] if names_one(jobs) and found else found

    def resubmit(self, ids: Sequence[TaskId], changes: OptionChanges, *, single: bool) -> AsyncHubResult:
        """Have recorded tasks run again, as new tasks. Raises UnknownTask, PendingTask."""
        channel = self._channel
        new = [channel.new_id() for _ in ids]
        result = AsyncHubResult(self._port, new, single=single, name="resubmit", submitted=time.time(), owner=False)
        result._recorded = self._recorded(new)
        channel.expect(new, result, watch=False)
        try:
            self._records.require_ended(ids)
            for old, fresh in zip(pieces(ids), pieces(new), strict=True):
                channel.ask(Resubmit(list(old), list(fresh), changes))
        except BaseException:
            channel.withdraw(new)
            raise
        self._port.history.extend(new)
        return result

    def end(self, jobs: Jobs, engines: Sequence[EngineId] | None, *, running: bool) -> Future[Any]:
        """Ask the controller to end tasks, or those at some engines; with neither, all that this client has submitted.

        Parameters
        ----------
        running : bool
            Also those that have started.

        Returns
        -------
        Future
            Done once the controller has begun to end them.

        Raises
        ------
        UnknownTask
            There is no such task; nothing is ended.
        """
        tasks: list[TaskId] | None = None
        if jobs is not None:
            jobs = list(jobs) if isinstance(jobs, Iterator) else jobs
            self.unended(self.ids_of(jobs), "cancelled" if running else "aborted", CATCH_UP_SECONDS)
            self._port.stop_growing(self.ids_of(jobs))
            tasks = self.ids_of(jobs)  # read again: a map may have submitted some before it stopped
        elif engines is None:  # by name: tasks submitted after this call are not meant
            self._port.stop_growing(None)
            tasks = self._mine()
        return self._port.end(tasks, engines, running=running)

    def _mine(self) -> list[TaskId]:
        return [id for id in self.outstanding() if self.is_mine(id)]


class TaskResults(MutableMapping[TaskId, Any]):
    """Values (or metadata) of a client's finished tasks, by msg_id, fetched from the controller when asked for.

    To delete one is to have the client forget the task. Its record stays in the database.
    """

    def __init__(self, tasks: OwnTasks, *, metadata: bool = False) -> None:
        self._tasks, self._metadata = tasks, metadata

    def __getitem__(self, id: TaskId) -> Any:
        if not isinstance(id, str):
            raise UnknownTask(f"no such task: {id!r}: this takes msg_ids; rc.get_result takes more")
        result = self._tasks.result_of([id], single=True)
        result.wait()
        if isinstance(error := result.exception(), UnknownTask):
            self._tasks.are_purged([id])
            raise error
        return result.metadata if self._metadata else result.get()

    def __setitem__(self, id: TaskId, value: Any) -> None:
        raise TypeError("what a task gave cannot be set here: assign to a dict of your own, `dict(rc.results)`")

    def __delitem__(self, id: TaskId) -> None:
        if id not in self:
            raise KeyError(id)
        self._tasks.forget([id])

    def pop(self, id: TaskId, *default: Any) -> Any:
        """The value of a task, which the client then forgets."""
        return super().pop(id, *default) if id in self or not default else default[0]

    def clear(self) -> None:
        """Have the client forget its finished tasks."""
        self._tasks.forget(self._tasks.finished())

    def copy(self) -> dict[TaskId, Any]:
        """A dict with all of them: this fetches all."""
        return dict(self)

    def __contains__(self, id: object) -> bool:
        return id in set(self._tasks.finished())

    def __iter__(self) -> Iterator[TaskId]:
        return iter(self._tasks.finished())

    def __len__(self) -> int:
        return len(self._tasks.finished())

    def __repr__(self) -> str:
        return f"<{'metadata' if self._metadata else 'results'} of {len(self)} finished tasks>"


def names_one(jobs: Jobs) -> bool:
    """Whether one task is named, not a list with one."""
    return jobs._single if isinstance(jobs, AsyncResult) else isinstance(jobs, str | int)


def _nothing_was(done: str) -> str:
    return f"nothing was {done}. Tasks are named by their msg_ids: ar.msg_ids, rc.history, rc.hub_history()"


def _refuse(pending: Collection[TaskId]) -> None:
    if pending:
        raise PendingTask(f"{len(pending)} of these tasks are outstanding: wait for them, or abort them, first")
