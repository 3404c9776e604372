"""What a client does with records: it queries, exports, pins and forgets them. `Client` has these methods.

Where a method takes a query, `session` narrows it to the tasks of one session (`records/scope.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from ..config import check_switches
from ..ids import TaskId
from ..records.record import TaskRecord
from .own_tasks import Jobs, OwnTasks
from .pictures.history import HistoryPlot
from .port import ClientPort
from .records.actions import checked, select_or_none
from .records.export import export
from .records.plot import plot_history
from .records.provenance import provenance
from .records.queries import Records
from .records.replay import replay
from .records.scope import in_session
from .records.selection import Selection

F = TypeVar("F", bound=Callable[..., Any])


def documented_by(method: Callable[..., Any]) -> Callable[[F], F]:
    """Decorator: the function has the docstring of the method to which it passes the call."""

    def document(function: F) -> F:
        function.__doc__ = method.__doc__
        return function

    return document


class RecordMethods:
    """Methods of `Client` about records."""

    _records: Records
    _tasks: OwnTasks
    _port: ClientPort

    @documented_by(Records.find)
    def db_query(
        self,
        query: Mapping[str, Any],
        keys: str | Iterable[str] | None = None,
        *,
        sort: str | Sequence[tuple[str, int]] | None = None,
        limit: int | None = None,
        skip: int = 0,
        as_frame: str | None = None,
        session: Any = None,
    ) -> Any:
        query = self._scoped(query, session)
        return self._records.find(query, keys, sort=sort, limit=limit, skip=skip, as_frame=as_frame)

    @documented_by(Records.iterate)
    def db_iter(
        self,
        query: Mapping[str, Any],
        keys: str | Iterable[str] | None = None,
        *,
        batch: int = 1000,
        session: Any = None,
    ) -> Iterator[TaskRecord]:
        return self._records.iterate(self._scoped(query, session), keys, batch=batch)

    @documented_by(Records.distinct)
    def db_distinct(self, key: str, query: Mapping[str, Any] | None = None, *, session: Any = None) -> list[Any]:
        return self._records.distinct(key, self._scoped({} if query is None else query, session))

    @documented_by(Records.group)
    def db_group(
        self,
        key: str,
        query: Mapping[str, Any] | None = None,
        *,
        values: str | None = None,
        percentiles: Sequence[float] = (50, 95),
        as_frame: str | None = None,
        session: Any = None,
    ) -> Any:
        query = self._scoped({} if query is None else query, session)
        return self._records.group(key, query, values=values, percentiles=percentiles, as_frame=as_frame)

    @documented_by(Records.count)
    def db_count(self, query: Mapping[str, Any], *, session: Any = None) -> int:
        return self._records.count(self._scoped(query, session))

    def hub_history(self, *, session: Any = None) -> list[TaskId]:
        """msg_ids of all tasks in the database, by submission: of all sessions, or of one.

        Parameters
        ----------
        session : str or Client, optional
            "mine", "last", an id, or a client.
        """
        if session is None:
            return self._records.history()
        return [record["msg_id"] for record in self.db_iter({}, "msg_id", batch=10_000, session=session)]

    def _scoped(self, query: Any, session: Any) -> Any:
        return in_session(self._records, query, session)

    def purge_results(
        self,
        jobs: Jobs = None,
        targets: Any = None,
        *,
        query: Mapping[str, Any] | str | None = None,
        session: Any = None,
        dry_run: bool = False,
    ) -> Selection | None:
        """Forget finished tasks: by msg_id, by engine, by query, or "all".

        Their records are dropped from the database, and the history of this client forgets them, too (with `query` it
        does not).

        Parameters
        ----------
        session : str or Client, optional
            With `query`: only tasks of this session: "mine", "last", an id, or a client.
        dry_run : bool
            With `query`: do nothing, return the selection.

        Returns
        -------
        Selection or None
            With `query`: the tasks, and how many pending ones match, too, and are left out.

        Raises
        ------
        ValueError
            Nothing is named, or the query is empty.
        PendingTask
            One of the tasks has not finished, of "all" one of this client's; nothing is purged.
        """
        query = self._scoped(query, session)
        others = jobs if jobs is not None else targets
        chosen = select_or_none(self._records, query, "purge", dry_run=dry_run, others=others)
        if dry_run:
            return chosen
        if isinstance(jobs, str) and jobs == "all":
            self._tasks.require_ended()
        jobs = list(jobs) if isinstance(jobs, Iterator) else jobs
        mine = [] if query is not None else self._named_here(jobs, targets, ended=True)
        dropped = self._purge(jobs, targets, query)
        if mine:
            self._tasks.forget(mine)
        return chosen if chosen is None else msgspec.structs.replace(chosen, count=dropped)

    def purge_hub_results(
        self,
        jobs: Jobs = None,
        targets: Any = None,
        *,
        query: Mapping[str, Any] | str | None = None,
        session: Any = None,
    ) -> int:
        """Drop the records of finished tasks, as `purge_results` does; returns how many.

        The history of this client keeps the tasks, and results that you hold keep their values. `rc.results` and
        `rc.metadata` have the tasks no more: they fetch what they give from the controller.
        """
        query = self._scoped(query, session)
        jobs = list(jobs) if isinstance(jobs, Iterator) else jobs
        mine = [] if query is not None else self._named_here(jobs, targets, ended=True)
        dropped = self._purge(jobs, targets, query)
        self._tasks.are_purged(mine)
        return dropped

    def _purge(self, jobs: Jobs, targets: Any, query: Any) -> int:
        """Drop records from the database; returns how many."""
        if _nothing(jobs) and _nothing(targets) and query is None:
            raise ValueError("name what to purge: jobs=, targets=, query=, or jobs='all'")
        if isinstance(jobs, str) and jobs == "all":
            return self._records.purge(everything=True)
        return self._records.purge(
            None if _nothing(jobs) else self._tasks.ids_of(jobs),
            None if _nothing(targets) else self._port.engines.resolve(targets),
            None if query is None else checked(query, "purge"),
        )

    def purge_local_results(self, jobs: Jobs = None, targets: Any = None) -> None:
        """Forget this client's own history of tasks; records in the database stay.

        Parameters
        ----------
        jobs : optional
            The tasks, or "all".
        targets : optional
            Engines: this client's tasks that ran there, as the records tell.

        Raises
        ------
        ValueError
            Nothing is named.
        PendingTask
            One of the tasks is outstanding.
        UnknownTask
            One of the tasks is not this client's.
        """
        if jobs is None and targets is None:
            raise ValueError("name what to forget: jobs=, targets=, or jobs='all'")
        all_of_them = isinstance(jobs, str) and jobs == "all"
        if jobs is not None and not all_of_them:
            jobs = self._tasks.ids_of(jobs)
            self._tasks.require_own(jobs)
        self._tasks.forget(None if all_of_them else self._named_here(jobs, targets))

    def _named_here(self, jobs: Jobs, targets: Any, *, ended: bool = False) -> list[TaskId]:
        """The tasks that a purge names and that this client may have in its history; of "all" those that have ended.

        `ended`: also of the tasks at the targets only those that have ended.
        """
        if isinstance(jobs, str) and jobs == "all":
            return self._tasks.finished()
        at_engines = [] if _nothing(targets) else self._tasks.at_engines(self._port.engines.resolve(targets))
        if ended:
            outstanding = self._tasks.outstanding()
            at_engines = [id for id in at_engines if id not in outstanding]
        return [*self._tasks.ids_of([] if jobs is None else jobs), *at_engines]

    def purge_everything(self) -> None:
        """Forget all finished tasks, here and in the database."""
        self.purge_results("all")
        self.purge_local_results("all")

    @documented_by(Records.pin)
    def pin(self, jobs: Jobs = None, *, query: Mapping[str, Any] | str | None = None, session: Any = None) -> int:
        return self._pin(jobs, self._scoped(query, session), True)

    def unpin(self, jobs: Jobs = None, *, query: Mapping[str, Any] | str | None = None, session: Any = None) -> int:
        """Undo `pin`: records that are due are dropped soon."""
        return self._pin(jobs, self._scoped(query, session), False)

    def _pin(self, jobs: Jobs, query: Any, pinned: bool) -> int:
        if (jobs is None) == (query is None):
            raise ValueError("name either tasks or a query=")
        query = {} if query == "all" else query
        return self._records.pin(None if jobs is None else self._tasks.ids_of(jobs), query, pinned)

    @documented_by(export)
    def export(
        self,
        path: str | os.PathLike[str],
        query: Mapping[str, Any] | str | None = None,
        keys: str | Iterable[str] | None = None,
        *,
        format: str | None = None,
        session: Any = None,
        dry_run: bool = False,
    ) -> Selection:
        check_switches(dry_run=dry_run)
        return export(self._records, path, query, keys, format=format, session=session, dry_run=dry_run)

    @documented_by(plot_history)
    def plot_history(
        self, query: Mapping[str, Any] | None = None, *, by: str = "label", spans: int = 60, session: Any = None
    ) -> HistoryPlot:
        return plot_history(self._records, self._scoped({} if query is None else query, session), by=by, spans=spans)

    @documented_by(provenance)
    def provenance(self, job: Jobs) -> dict[str, Any]:
        return provenance(self._records, self._tasks.id_of(job))

    @documented_by(replay)
    def replay(self, job: Jobs, *, namespace: Mapping[str, Any] | None = None, debug: bool = False) -> Any:
        check_switches(debug=debug)
        return replay(self._records, self._tasks.id_of(job), namespace=namespace, debug=debug)


def _nothing(value: Any) -> bool:
    """Whether an argument names nothing: None, or an empty list."""
    return value is None or (isinstance(value, list | tuple) and not value)
