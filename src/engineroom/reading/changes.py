"""Which tasks have changed since the last look: by their times, so that no look reads more than what is new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from ..messages import pieces
from ..records.record import TaskRecord
from ..records.states import RUNNING
from .paging import PAGE, Searchable, by_time

#: Tasks are written a little after the times that their records have; a look reads so much again. What it has seen is
#: not told twice.
OVERLAP = timedelta(seconds=5)

#: What is read of each record besides the keys that are wanted.
_KEYS = ("msg_id", "state", "submitted", "started", "completed")
_NEVER = datetime.fromtimestamp(0, UTC)


class Changes:
    """Tells which tasks that match a query were submitted, have begun, or have ended since the last look.

    Between two looks a task may change several times: only its last state is told.

    Parameters
    ----------
    query : dict
    keys : sequence of str, optional
        Of the records. Default: all but large ones.
    since : datetime
        What happened before is not told.
    """

    def __init__(
        self, records: Searchable, query: Mapping[str, Any], keys: Sequence[str] | None, since: datetime
    ) -> None:
        self._records, self._query = records, query
        self._keys = None if keys is None else list(dict.fromkeys([*_KEYS, *keys]))
        self._since, self._begin = since, since
        #: msg_id → what was told of it, and when that happened
        self._told: dict[str, tuple[tuple[Any, ...], datetime]] = {}
        self._running: set[str] = set()

    def look(self, now: datetime) -> Iterator[list[TaskRecord]]:
        """The records of tasks that have changed, in parts, each sorted by the time of the change."""
        begin = self._begin - OVERLAP
        fresh: list[TaskRecord] = []
        running: set[str] = set()
        for record in chain(self._by_time(begin), self._that_run(running), self._that_ran(running)):
            if self._is_new(record):
                fresh.append(record)
                if len(fresh) >= PAGE:
                    yield sorted(fresh, key=changed)
                    fresh = []
        if fresh:
            yield sorted(fresh, key=changed)
        self._running = running
        # A clock that is ahead of ours must not move the window into the future.
        self._begin = now
        self._told = {id: told for id, told in self._told.items() if told[1] >= now - 2 * OVERLAP or id in running}

    def _by_time(self, begin: datetime) -> Iterator[TaskRecord]:
        for time in ("submitted", "completed"):
            yield from chain.from_iterable(by_time(self._records, self._query, self._keys, time, since=begin))

    def _that_run(self, running: set[str]) -> Iterator[TaskRecord]:
        """Those that run now: an engine runs one task at a time, so they are few. Their msg_ids go to `running`."""
        for record in self._records.find({"$and": [self._query, {"state": RUNNING}]}, self._keys):
            running.add(record["msg_id"])
            yield record

    def _that_ran(self, running: set[str]) -> Iterator[TaskRecord]:
        """Those that ran at the last look, and do not run now: whatever the clock of their engine says."""
        for some in filter(None, pieces(sorted(self._running - running))):
            yield from self._records.find({"$and": [self._query, {"msg_id": {"$in": list(some)}}]}, self._keys)

    def _is_new(self, record: TaskRecord) -> bool:
        state = record["state"], record["started"], record["completed"]
        # The latest of its times: the clock of an engine may be behind that of the client.
        at = max(record["submitted"] or _NEVER, record["started"] or _NEVER, record["completed"] or _NEVER)
        before = self._told.get(record["msg_id"])
        self._told[record["msg_id"]] = state, at
        if before is not None:
            return before[0] != state
        return at >= self._since or record["state"] == RUNNING or record["msg_id"] in self._running


def changed(record: Mapping[str, Any]) -> datetime:
    """When a task came into its present state."""
    found: datetime = record["completed"] or record["started"] or record["submitted"] or _NEVER
    return found
