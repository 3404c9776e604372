"""The records of tasks, as a client reads and changes them: questions to the controller, and their answers.

Answers are plain data: dicts, lists, ids, data frames. `Client` makes results of ids. Which tasks an action by query
takes is in `actions.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

from ...errors import PendingTask, QueryError
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
    PageRecords,
    Pin,
    Purge,
    QueueStatus,
    ResultStatus,
    pieces,
)
from ...messages.bounds import MOST_NAMED
from ...records.fields import DEFAULT_KEYS
from ...records.projection import is_projection, projected, whole_keys
from ...records.record import TaskRecord, TaskRecords
from ...wire.frames import decode_columns
from ..connection.channel import Channel
from .dataframe import as_frame_of, check_kind
from .explanation import Explanation, Explanations
from .query_args import plain_count, plain_key, plain_keys, plain_percentiles, plain_query, plain_sort


class Records:
    """The records in the database of the cluster's controller."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def session(self) -> str:
        """The id of this client's session."""
        return self._channel.session

    # ------------------------------------------------------------------------------------------ queries

    def find(
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
            Which keys to return; `msg_id` always is. Default: all but `buffers` and `result_buffers`. A dotted key
            returns a part under that name: `"metadata.run"`, `"attempts.peak_memory"` (of each attempt).
        sort : str or list of (key, 1 or -1), optional
            Default: by submission. A str is a key, with "-" in front for descending order.
        limit, skip : int, optional
        as_frame : "pandas" or "polars", optional
            A data frame, with a column for each key, in place of the list.
        session : str or Client, optional
            Only tasks of this session: "mine" (this client's), "last" (that of the newest task), a session id (the
            `client_uuid` of records, or its beginning), or a client. `Client` has this argument.

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
        whole = whole_keys(wanted) if wanted is not None and is_projection(wanted) else wanted
        body = FindRecords(plain_query(query), whole, plain_sort(sort), *window)
        _, frames = self._channel.ask(body)
        records = TaskRecords(_records_in(frames))
        if wanted is not None and is_projection(wanted):
            records = TaskRecords(projected(record, wanted) for record in records)
        if as_frame is None:
            return records
        named = DEFAULT_KEYS if wanted is None else ["msg_id", *wanted]
        columns = list(records[0]) if records else list(dict.fromkeys(named))
        return as_frame_of(records, columns, as_frame)

    def iterate(
        self, query: Mapping[str, Any], keys: str | Iterable[str] | None = None, *, batch: int = 1000
    ) -> Iterator[TaskRecord]:
        """The records that match, by submission, fetched `batch` at a time: memory stays flat.

        A record that is there all the while comes exactly once. What is submitted meanwhile comes last; what is
        purged before its page is fetched does not come; a record is as it is when its page is fetched.
        """
        wanted, plain, size = plain_keys(keys), plain_query(query), plain_count("batch", batch)
        if not size:
            raise QueryError(f"batch is a whole number, 1 or more, got {batch!r}")
        return self._pages(plain, wanted, size)

    def _pages(self, query: dict[str, Any], wanted: list[str] | None, size: int) -> Iterator[TaskRecord]:
        """The records that match, fetched `size` at a time."""
        whole = whole_keys(wanted) if wanted is not None and is_projection(wanted) else wanted
        after = None
        while True:
            after, frames = self._channel.ask(PageRecords(query, whole, size, after))
            for record in _records_in(frames):
                yield projected(record, wanted) if wanted is not None and whole is not wanted else record
            if after is None:
                return

    def distinct(self, key: str, query: Mapping[str, Any] | None = None) -> list[Any]:
        """Each value that a key has in the records that match, once, sorted; of a list each element."""
        body = DistinctValues(plain_key(key, "key"), plain_query({} if query is None else query))
        return list(self._channel.ask(body))

    def group(
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

    def count(self, query: Mapping[str, Any]) -> int:
        """How many task records match a query."""
        return int(self._channel.ask(CountRecords(plain_query(query))))

    def history(self) -> list[TaskId]:
        """msg_ids of all tasks in the database, of all clients and earlier sessions, by submission."""
        return list(self._channel.ask(History()))

    # ------------------------------------------------------------------------------------------ the state of tasks

    def result_status(self, ids: Sequence[TaskId], timeout: float | None = None) -> dict[str, Any]:
        """Which tasks are pending and which completed: two lists of msg_ids.

        Raises
        ------
        UnknownTask
            There is no such task.
        TimeoutError
            The controller has not answered a question for `timeout` seconds.
        """
        status: dict[str, Any] = {"pending": [], "completed": []}
        for some in pieces(list(ids)):
            for state, found in self._channel.ask(ResultStatus(list(some)), timeout).items():
                status[state] += found
        return status

    def require_ended(self, ids: Sequence[TaskId]) -> None:
        """Look whether all of these tasks have ended, if they are more than one message may name.

        Then a change takes several messages, and the first of them must not have an effect if another one is refused.

        Raises
        ------
        UnknownTask, PendingTask
        """
        if len(ids) > MOST_NAMED and (pending := self.result_status(ids)["pending"]):
            raise PendingTask(f"task {pending[0]} has not finished; nothing was changed")

    def explain(self, ids: Sequence[TaskId]) -> Explanations:
        """Why each of these tasks is not running, or what has become of it."""
        asked = (self._channel.ask(Explain(list(some))) for some in pieces(list(ids)))
        return Explanations(Explanation(answer) for answers in asked for answer in answers)

    def queue_status(self, engines: Sequence[EngineId] | None, verbose: bool) -> dict[Any, Any]:
        """What each engine has done and has to do.

        Returns
        -------
        dict
            `{engine: {"queue": direct tasks, "tasks": load-balanced tasks, "completed": …}, "unassigned": …}`:
            counts, or with `verbose` lists of msg_ids (of completed tasks the newest 1,000 of each engine). "silent" is
            how many seconds ago an engine was heard, if it gets no more tasks for that; else None. For a single int
            as `targets`, the inner dict. After a restart of the controller, "all" are the engines that have come back.

        Raises
        ------
        IndexError
            There is no engine of that number.
        """
        status = self._channel.ask(QueueStatus(None if engines is None else list(engines), verbose))
        return {**{int(id): inner for id, inner in status["engines"].items()}, "unassigned": status["unassigned"]}

    # ------------------------------------------------------------------------------------------ changes

    def pin(self, ids: Sequence[TaskId] | None, query: Mapping[str, Any] | None, pinned: bool) -> int:
        """Keep records from retention: of tasks, or of all that match a query now. Returns how many this changes.

        Raises
        ------
        ValueError
            Nothing is named.
        UnknownTask
            There is no record of one of the tasks; nothing is changed.
        """
        count = 0
        if ids is not None and len(ids) > MOST_NAMED:
            self.result_status(ids)  # all are known
            *first, ids = pieces(list(ids))
            count = sum(int(self._channel.ask(Pin(list(some), None, pinned))) for some in first)
        tasks = None if ids is None else list(ids)
        return count + int(self._channel.ask(Pin(tasks, None if query is None else plain_query(query), pinned)))

    def purge(
        self,
        ids: Sequence[TaskId] | None = None,
        engines: Sequence[EngineId] | None = None,
        query: Mapping[str, Any] | None = None,
        *,
        everything: bool = False,
    ) -> int:
        """Forget finished tasks: of ids, of engines, of a query, or all; returns how many."""
        count = 0
        if ids is not None and len(ids) > MOST_NAMED and not everything:
            self.require_ended(ids)
            *first, ids = pieces(list(dict.fromkeys(ids)))
            count = sum(int(self._channel.ask(Purge(list(some)))) for some in first)
        body = Purge(everything=everything)
        if not everything:
            body.tasks = None if ids is None else list(ids)
            body.engines = None if engines is None else list(engines)
            body.query = None if query is None else dict(query)
        return count + int(self._channel.ask(body))

    # ------------------------------------------------------------------------------------------ functions, environments

    def function(self, digest: str) -> dict[str, Any]:
        """A recorded function: its `payload`, `name` and `source`."""
        return dict(self._channel.ask(GetFunction(digest)))

    def environment(self, digest: str) -> dict[str, Any]:
        """A recorded environment of a client: Python, platform, packages, …"""
        return dict(self._channel.ask(GetEnvironment(digest)))


def _records_in(frames: Iterable[Any]) -> Iterator[TaskRecord]:
    """The records in the frames of an answer."""
    for columns in map(decode_columns, frames):
        rows = zip(*columns.values(), strict=True)
        yield from map(TaskRecord, map(zip, repeat(tuple(columns)), rows))
