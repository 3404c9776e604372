"""What a client can ask about tasks: their results, their records, what they wait for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from ...errors import PendingTask, QueryError, UnknownTask
from ...ids import EngineId, TaskId
from ...messages import (
    CountRecords,
    DistinctValues,
    Explain,
    FindRecords,
    GetEnvironment,
    GetFunction,
    GroupRecords,
    History,
    OptionChanges,
    PageRecords,
    Pin,
    Purge,
    QueueStatus,
    Resubmit,
    ResultStatus,
)
from ...records.fields import ALIASES, DEFAULT_KEYS
from ...records.record import TaskRecord
from ...wire.functions import digest_of
from ..connection.channel import Channel
from ..results.graph_result import GraphResult
from ..results.result import AsyncHubResult, AsyncResult
from ..views.flags import whole
from .dataframe import as_frame_of, check_kind
from .explanation import Explanation
from .query_args import (
    plain_count,
    plain_key,
    plain_keys,
    plain_label,
    plain_metadata,
    plain_percentiles,
    plain_query,
    plain_sort,
)
from .selection import Selection, checked, ids_of, select

if TYPE_CHECKING:
    from ..client import Client
    from ..views import View

Jobs = Any  # msg_id, index into the history, AsyncResult, GraphResult, Future, or a collection of those


class HubClient:
    """The part of a client that asks the hub."""

    block: bool
    _channel: Channel
    _views: Sequence[View]
    _foreign: list[TaskId]  # resubmitted or fetched tasks of this client
    _direct: set[TaskId]  # tasks of this client's direct views

    def _resolve(self, targets: Any) -> list[EngineId]:
        raise NotImplementedError

    def _named(self, targets: Any) -> list[EngineId] | None:
        """The engines that are named; None for "all": the controller knows best which those are."""
        return None if targets is None or (isinstance(targets, str) and targets == "all") else self._resolve(targets)

    @property
    def history(self) -> list[TaskId]:
        """msg_ids of this client's tasks, by submission."""
        ids = [id for view in self._views for id in view.history]
        return sorted(
            {*ids, *self._foreign},
            key=lambda id: int(id.rpartition("-")[2]) if id.startswith(self._channel.session) else -1,
        )

    @property
    def outstanding(self) -> set[TaskId]:
        """msg_ids without an outcome."""
        return self._channel.outstanding()

    def _ids_of(self, jobs: Jobs) -> list[TaskId]:
        """msg_ids of whatever names tasks."""
        if isinstance(jobs, AsyncResult | GraphResult):
            return list(jobs.msg_ids)
        if isinstance(jobs, str):
            return [TaskId(jobs)]
        if isinstance(jobs, int) and not isinstance(jobs, bool):
            history = self.history
            try:
                return [history[jobs]]
            except IndexError:
                raise IndexError(f"this client has submitted {len(history)} tasks; there is no number {jobs}") from None
        if isinstance(jobs, Iterable) and not isinstance(jobs, Mapping | bytes):
            return [id for job in jobs for id in self._ids_of(job)]
        raise TypeError(f"tasks are named by msg_id, index, AsyncResult, or a list of those; got {jobs!r}")

    def _id_of(self, job: Jobs) -> TaskId:
        """The msg_id of what names one task."""
        if len(ids := self._ids_of(job)) != 1:
            raise ValueError(f"name one task, not {len(ids)}")
        return ids[0]

    # ------------------------------------------------------------------------------------------ results

    def get_result(self, indices_or_msg_ids: Jobs = None, block: bool | None = None, owner: bool = True) -> AsyncResult:
        """The result of any task: of this client, of another, or of an earlier session.

        Parameters
        ----------
        indices_or_msg_ids : msg_id, int, AsyncResult, or a list of those
            An int is an index into this client's history; default: the last.
        block : bool, optional
            Wait for it.

        Returns
        -------
        AsyncResult
            AsyncHubResult for tasks that are not this client's. For an unknown msg_id, `get` raises UnknownTask.
        """
        wanted = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        ids, single = self._ids_of(wanted), _names_one(wanted)
        mine = owner and all(id.startswith(self._channel.session) for id in ids)
        kind = AsyncResult if mine else AsyncHubResult
        result = kind(cast("Client", self), ids, single=single, name="get_result", owner=mine)
        waiting = self._channel._waiting.copy()
        watched = []
        for id in dict.fromkeys(ids):
            waiter = waiting.get(id)
            if isinstance(waiter, AsyncResult):
                waiter._follow(id, result)
            else:
                watched.append(id)
        if watched:
            self._channel.expect(watched, result)
        if block or (block is None and self.block):
            result.wait()
        return result

    def result_status(self, msg_ids: Jobs, status_only: bool = True) -> dict[str, Any]:
        """Which tasks are pending and which completed; with `status_only=False` results by msg_id as well.

        Raises
        ------
        UnknownTask
            One of them is not known.
        """
        ids = self._ids_of(msg_ids)
        status: dict[str, Any] = self._channel.ask(ResultStatus(ids))
        if not status_only and status["completed"]:
            values = self.get_result(status["completed"]).get(return_exceptions=True)
            status |= dict(zip(status["completed"], values, strict=True))
        return status

    def explain(self, jobs: Jobs) -> Any:
        """Why tasks are not running, or what has become of them.

        Parameters
        ----------
        jobs : msg_id, int, AsyncResult, or a list of those

        Returns
        -------
        Explanation, or a list of those
            Printed, it is a sentence. Its `state` is one of waiting, queued, held, recovering, ended, unknown.

        Examples
        --------
        >>> rc.explain(result)                                                        # doctest: +SKIP
        3f9ab2-17 is waiting: …
        """
        found = [Explanation(answer) for answer in self._channel.ask(Explain(self._ids_of(jobs)))]
        return found[0] if _names_one(jobs) and found else found

    def resubmit(
        self,
        indices_or_msg_ids: Jobs = None,
        metadata: Mapping[str, Any] | None = None,
        block: bool | None = None,
        *,
        query: Mapping[str, Any] | str | None = None,
        retries: int | None = None,
        label: str | None = None,
        dry_run: bool = False,
    ) -> Any:
        """Run finished tasks again, as new tasks with new msg_ids; the old records name them in `resubmitted`.

        Parameters
        ----------
        indices_or_msg_ids : msg_id, int, AsyncResult, or a list of those
        query : dict or "all", optional
            Instead: all finished tasks whose records match. The result's `selection` tells how many pending ones
            match, too, and were left out.
        metadata, retries, label
            Options of the new tasks; default: those of the old.
        dry_run : bool
            With `query`: do nothing, tell which tasks it would be.

        Returns
        -------
        AsyncHubResult, or Selection if `dry_run`

        Raises
        ------
        UnknownTask, PendingTask
            Nothing is resubmitted then.
        """
        chosen = self._chosen(query, "resubmit", dry_run, indices_or_msg_ids)
        if chosen is not None:
            if dry_run:
                return chosen
            ids = ids_of(self, query, "resubmit")
            single = False
        else:
            wanted = -1 if indices_or_msg_ids is None else indices_or_msg_ids
            ids = self._ids_of(wanted)
            single = _names_one(wanted)
        changes = OptionChanges(
            None if retries is None else whole("retries", retries, "a number of times, 0 or more", 0),
            plain_label(label),
            None if metadata is None else plain_metadata(metadata),
        )
        channel = self._channel
        new = [channel.new_id() for _ in ids]
        result = AsyncHubResult(
            cast("Client", self), new, single=single, name="resubmit", submitted=time.time(), owner=False
        )
        result.selection = chosen
        channel.expect(new, result, watch=False)
        try:
            channel.ask(Resubmit(ids, new, changes))
        except BaseException:
            for id in new:
                channel._waiting.pop(id, None)
            raise
        self._foreign += new
        if block or (block is None and self.block):
            result.wait()
        return result

    # ------------------------------------------------------------------------------------------ records

    def db_query(
        self,
        query: Mapping[str, Any],
        keys: str | Iterable[str] | None = None,
        *,
        sort: str | Sequence[tuple[str, int]] | None = None,
        limit: int | None = None,
        skip: int = 0,
        as_frame: str | None = None,
    ) -> Any:
        """Task records that match a MongoDB-style query.

        Parameters
        ----------
        query : dict
            `{"completed": None}`, `{"result_content.ename": "ValueError", "submitted": {"$gt": yesterday}}` …
        keys : str or list of str, optional
            Which keys to return; `msg_id` always is. Default: all but `buffers` and `result_buffers`.
        sort : str or list of (key, 1 or -1), optional
            Default: by submission. A str is a key, with "-" in front for descending order.
        limit, skip : int, optional
        as_frame : "pandas" or "polars", optional
            A data frame, with a column for each key, in place of the list.

        Returns
        -------
        list of dict, or data frame
            Times are aware datetimes.

        Raises
        ------
        QueryError
            An unknown key or operator, or an argument of the wrong type: the message names it.
        """
        check_kind(as_frame)
        wanted = plain_keys(keys)
        window = plain_count("limit", limit), plain_count("skip", skip) or 0
        body = FindRecords(plain_query(query), wanted, plain_sort(sort), *window)
        records = [TaskRecord(record) for record in self._channel.ask(body)]
        if as_frame is None:
            return records
        named = DEFAULT_KEYS if wanted is None else ["msg_id", *wanted]
        columns = list(records[0]) if records else list(dict.fromkeys(ALIASES.get(key, key) for key in named))
        return as_frame_of(records, columns, as_frame)

    def db_iter(
        self, query: Mapping[str, Any], keys: str | Iterable[str] | None = None, *, batch: int = 1000
    ) -> Iterator[TaskRecord]:
        """The records that match, by submission, fetched `batch` at a time: memory stays flat.

        A record that is there all the while comes exactly once. What is submitted meanwhile comes last; what is
        purged before its page is fetched does not come; a record is as it is when its page is fetched.
        """
        wanted = plain_keys(keys)
        plain, size, after = plain_query(query), plain_count("batch", batch), None
        if not size:
            raise QueryError(f"batch is a whole number, 1 or more, got {batch!r}")
        while True:
            page = self._channel.ask(PageRecords(plain, wanted, size, after))
            yield from map(TaskRecord, page["records"])
            after = page["next"]
            if after is None:
                return

    def db_distinct(self, key: str, query: Mapping[str, Any] | None = None) -> list[Any]:
        """Each value that a key has in the records that match, once, sorted; of a list each element."""
        body = DistinctValues(plain_key(key, "key"), plain_query({} if query is None else query))
        return list(self._channel.ask(body))

    def db_group(
        self,
        key: str,
        query: Mapping[str, Any] | None = None,
        *,
        values: str | None = None,
        percentiles: Sequence[float] = (50, 95),
        as_frame: str | None = None,
    ) -> Any:
        """The records that match, grouped by the value of a key and sorted by it.

        Parameters
        ----------
        key : str
            `"engine_id"`, `"label"`, `"result_content.ename"` …
        query : dict, optional
            Default: all records.
        values : str, optional
            A key that holds numbers, as `duration` does. What is no number is left out.
        percentiles : list of float
            Each from 0 to 100, interpolated between the two nearest values.
        as_frame : "pandas" or "polars", optional

        Returns
        -------
        list of dict, or data frame
            `key`, `count`, and with `values` also `values` (how many), `mean`, `min`, `max`, and `p50`, `p95`, ….
        """
        check_kind(as_frame)
        body = GroupRecords(plain_key(key, "key"), plain_query({} if query is None else query))
        if values is not None:
            body.values, body.percentiles = plain_key(values, "values"), plain_percentiles(percentiles)
        groups = self._channel.ask(body)
        if as_frame is None:
            return groups
        return as_frame_of(groups, list(groups[0]) if groups else ["key", "count"], as_frame)

    def db_count(self, query: Mapping[str, Any]) -> int:
        """How many task records match a query."""
        return int(self._channel.ask(CountRecords(plain_query(query))))

    def hub_history(self) -> list[TaskId]:
        """msg_ids of all tasks in the database, of all clients and earlier sessions, by submission."""
        return list(self._channel.ask(History()))

    def purge_results(
        self,
        jobs: Jobs = None,
        targets: Any = None,
        *,
        query: Mapping[str, Any] | str | None = None,
        dry_run: bool = False,
    ) -> Selection | None:
        """Forget finished tasks: by msg_id, by engine, by query, or "all".

        Parameters
        ----------
        dry_run : bool
            With `query`: do nothing, tell which tasks it would be.

        Returns
        -------
        Selection or None
            With `query`: which tasks, and how many pending ones match, too, and were left out.

        Raises
        ------
        ValueError
            Nothing was named, or an empty query.
        PendingTask
            One of the tasks has not finished; nothing is purged.
        """
        chosen = self._chosen(query, "purge", dry_run, jobs if jobs is not None else targets)
        if dry_run:
            return chosen
        dropped = self.purge_hub_results(jobs, targets, query=query)
        return chosen if chosen is None else msgspec.structs.replace(chosen, count=dropped)

    def _chosen(self, query: Any, action: str, dry_run: bool, others: Any) -> Selection | None:
        """The tasks of an action by query; None if it is not one.

        Raises
        ------
        ValueError
            Tasks are named in other ways, too, or dry_run is asked of those.
        """
        if query is None:
            if dry_run:
                raise ValueError("dry_run tells which tasks a query takes: give query=")
            return None
        if others is not None:
            raise ValueError("give tasks or a query, not both")
        return select(self, query, action, dry_run=dry_run)

    def purge_hub_results(
        self, jobs: Jobs = None, targets: Any = None, *, query: Mapping[str, Any] | str | None = None
    ) -> int:
        """`purge_results` that tells how many records were forgotten."""

        def nothing(value: Any) -> bool:
            return value is None or (isinstance(value, list | tuple) and not value)

        if nothing(jobs) and nothing(targets) and query is None:
            raise ValueError("name what to purge: jobs=, targets=, query=, or jobs='all'")
        body = Purge(everything=isinstance(jobs, str) and jobs == "all")
        if not body.everything:
            body.tasks = None if nothing(jobs) else self._ids_of(jobs)
            body.engines = None if nothing(targets) else self._resolve(targets)
            body.query = None if query is None else checked(query, "purge")
        return int(self._channel.ask(body))

    def pin(self, jobs: Jobs = None, *, query: Mapping[str, Any] | None = None) -> int:
        """Have retention leave records alone: of tasks, or of all that match a query now. Tells how many that changes.

        Raises
        ------
        ValueError
            Nothing was named.
        UnknownTask
            There is no record of one of the tasks; nothing is changed.
        """
        return self._pin(jobs, query, True)

    def unpin(self, jobs: Jobs = None, *, query: Mapping[str, Any] | None = None) -> int:
        """Undo `pin`: what is due by then is dropped soon."""
        return self._pin(jobs, query, False)

    def _pin(self, jobs: Jobs, query: Mapping[str, Any] | None, pinned: bool) -> int:
        if (jobs is None) == (query is None):
            raise ValueError("name either tasks or a query=")
        tasks = None if jobs is None else self._ids_of(jobs)
        return int(self._channel.ask(Pin(tasks, None if query is None else plain_query(query), pinned)))

    def export(
        self,
        path: str | os.PathLike[str],
        query: Mapping[str, Any] | str | None = None,
        keys: str | Iterable[str] | None = None,
        *,
        format: str | None = None,
        dry_run: bool = False,
    ) -> Selection:
        """Write task records to a file, by submission; memory stays flat, whatever their number.

        Parameters
        ----------
        path : str or path
            Its ending says what is written: .jsonl (a JSON object per line), .csv, or .parquet (needs pyarrow). An
            existing file is replaced, once all is written.
        query : dict or "all", optional
            Default: all.
        keys : str or list of str, optional
            Default: all but `buffers` and `result_buffers`, which become base64.
        format : "jsonl", "csv" or "parquet", optional
            Instead of what the ending says.
        dry_run : bool
            Write nothing, tell which tasks it would be.
        """
        from .export import format_of, write_records

        format_of(path, format)
        chosen = select(self, "all" if query is None else query, "export", dry_run=dry_run)
        if dry_run:
            return chosen
        named, plain = plain_keys(keys), {} if query is None else checked(query, "export")
        wanted = named if named is None else [ALIASES.get(key, key) for key in named]
        count = write_records(path, self.db_iter(plain, wanted), wanted, format)
        return msgspec.structs.replace(chosen, count=count)

    # ------------------------------------------------------------------------------------------ provenance

    def provenance(self, job: Jobs) -> dict[str, Any]:
        """With what a task was made.

        Returns
        -------
        dict
            `function`: its `digest`, `name`, `source` (None for cells); `arguments`: the digest of the recorded
            arguments' bytes; `environment`: Python, platform, packages, cwd, argv … of the client, or None;
            `engines`: the hosts of its attempts; `cached_from`.
        """
        id = self._id_of(job)
        keys = ["function", "environment", "buffers", "attempts", "cached_from"]
        found = self.db_query({"msg_id": id}, keys)
        if not found:
            raise UnknownTask(f"no such task: {id}")
        record, function, environment = found[0], None, None
        if record["function"]:
            told = self._channel.ask(GetFunction(record["function"]))
            function = {"digest": record["function"], "name": told["name"], "source": told["source"] or None}
        if record["environment"]:
            environment = self._channel.ask(GetEnvironment(record["environment"]))
        return {
            "function": function,
            "arguments": digest_of(b"".join(record["buffers"])).hex() if record["buffers"] else None,
            "environment": environment,
            "engines": [attempt["host"] for attempt in record["attempts"] or ()],
            "cached_from": record["cached_from"],
        }

    def replay(self, job: Jobs, *, namespace: Mapping[str, Any] | None = None, debug: bool = False) -> Any:
        """Run a task's recorded call in this process, to debug it; nothing is recorded.

        The function, its arguments and results of other tasks among them are unpickled here: the database is trusted,
        as code is. A function of a `__main__` gets a namespace of its own, with the globals that travelled with it.
        A cell runs in an empty one, as plain Python.

        Parameters
        ----------
        job : msg_id, int, AsyncResult
        namespace : dict, optional
            Names that it should find, as if they had been pushed to the engine; those are not recorded.
        debug : bool
            If it raises, start the debugger (`pdb`) where it did, then raise.

        Returns
        -------
        object
            What the call returns; None for a cell.

        Raises
        ------
        Exception
            What the call raises, itself, with a traceback of this process.
        UnknownTask
            There is no such record, or its payload is not kept any more.
        """
        id = self._id_of(job)
        from .replay import replay

        return replay(self, id, namespace, debug)

    def purge_local_results(self, jobs: Jobs = None, targets: Any = None) -> None:
        """Forget this client's own history of tasks; records in the database stay.

        Raises
        ------
        PendingTask
            One of the tasks is outstanding.
        """
        everything = isinstance(jobs, str) and jobs == "all"
        ids = set(self.history if everything or jobs is None else self._ids_of(jobs))
        pending = ids & self.outstanding
        if pending:
            raise PendingTask(f"{len(pending)} of these tasks are outstanding: wait for them, or abort them, first")
        for view in self._views:
            view.history = [id for id in view.history if id not in ids]
        self._foreign = [id for id in self._foreign if id not in ids]
        self._direct -= ids

    def purge_everything(self) -> None:
        """Forget all finished tasks, here and in the database."""
        self.purge_results("all")
        self.purge_local_results("all")

    def queue_status(self, targets: Any = "all", verbose: bool = False) -> dict[Any, Any]:
        """What each engine has done and has to do.

        Returns
        -------
        dict
            `{engine: {"queue": direct tasks, "tasks": load-balanced tasks, "completed": …}, "unassigned": …}`:
            counts, or with `verbose` lists of msg_ids. A single int as target gives the inner dict. "all" are the
            engines there are: after a restart of the controller those that have come back.

        Raises
        ------
        IndexError
            An engine that was named is not there.
        """
        status = self._channel.ask(QueueStatus(self._named(targets), bool(verbose)))
        by_engine: dict[Any, Any] = {int(id): inner for id, inner in status["engines"].items()}
        if isinstance(targets, int):
            [status_of_one] = by_engine.values()
            return dict(status_of_one)
        return {**by_engine, "unassigned": status["unassigned"]}


def _names_one(jobs: Jobs) -> bool:
    """Whether one task is named, by itself."""
    return jobs._single if isinstance(jobs, AsyncResult) else isinstance(jobs, str | int)
