"""The seam between the controller and a task database.

The writer thread calls `write`, `update`, `drop` and `add_functions`; query threads call the rest, at the
same time. A store raises `StoreError` when it cannot do what was asked, never half of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from ..ids import ClientId, Digest, EngineUuid, TaskId
from ..messages import Environment, Function
from ..records.record import Entry, TaskRecord

#: A MongoDB-style query, as users write it.
QueryDict = Mapping[str, Any]
#: [(key, 1 or -1), …]
Sort = Sequence[tuple[str, int]]


#: Where a page ends: (seconds of submission, msg_id) of its last record.
Cursor = tuple[float | None, str]

#: Seconds a query may take.
QUERY_SECONDS = 30.0


class Page(msgspec.Struct, frozen=True):
    """A part of an answer by submission, and where the next one begins."""

    records: list[TaskRecord]
    #: None: there is no more
    next: Cursor | None


class Usage(msgspec.Struct, frozen=True):
    """What a store takes."""

    records: int
    #: bytes in use
    used: int
    #: bytes that were in use, and can be given back or used again
    unused: int = 0
    #: bytes that may still be written; None: unknown, or without limit
    room: int | None = None


class References(msgspec.Struct, frozen=True):
    """Functions, clients, environments and engines by their names. Records refer to them, many records to each.

    A store may hold them in tables of their own, or in each record.
    """

    functions: frozenset[Digest] = frozenset()
    clients: frozenset[ClientId] = frozenset()
    environments: frozenset[str] = frozenset()
    engines: frozenset[EngineUuid] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.functions or self.clients or self.environments or self.engines)


class TaskStore(Protocol):
    """What every backend does."""

    #: whether anything written can be read back
    keeps: bool
    #: how many records were dropped, for whatever reason, since the store was opened
    dropped: int
    #: whether that outlives the controller
    durable: bool
    #: a pending task is written after this time, unless it has ended before: it is then written once, and whole
    hold_seconds: float
    #: "sqlite:///…/tasks.db", "memory" or "none": what the connection file says
    url: str

    # the hot path

    def write(self, entries: Sequence[Entry]) -> None:
        """Add or complete tasks, all in one transaction. Writing an entry twice changes nothing."""

    def add_functions(self, functions: Sequence[Function]) -> None:
        """Keep pickled functions; known digests are skipped."""

    def get_function(self, digest: Digest) -> Function:
        """A pickled function; KeyError if it is not kept."""

    def add_environments(self, environments: Sequence[tuple[ClientId, Environment]]) -> None:
        """Keep where clients run, once for each digest; of a client that is known the first stays."""

    def get_environment(self, digest: str) -> bytes:
        """An environment's content; KeyError if it is not kept."""

    def unfinished(self) -> Iterator[Entry]:
        """Pending tasks by submission, to be taken up by a restarted controller."""

    def entries(self, ids: Sequence[TaskId]) -> dict[TaskId, Entry]:
        """What is known of these tasks, payloads included; unknown ones are left out."""

    # records, as users know them

    def add_record(self, msg_id: TaskId, record: Mapping[str, Any]) -> None:
        """Add a record given as a dict; missing keys are None. StoreError if the id is taken."""

    def get_record(self, msg_id: TaskId) -> TaskRecord:
        """The whole record; KeyError if there is none."""

    def update_record(self, msg_id: TaskId, changes: Mapping[str, Any]) -> None:
        """Change some keys of a record; KeyError if there is none."""

    def drop_record(self, msg_id: TaskId) -> None:
        """Forget a record; KeyError if there is none."""

    def drop_matching_records(self, query: QueryDict) -> int:
        """Forget the records that match; returns how many."""

    def find_records(
        self,
        query: QueryDict,
        keys: Iterable[str] | str | None = None,
        *,
        sort: Sort | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> list[TaskRecord]:
        """Records that match, by submission unless `sort` says otherwise.

        `keys`: which to return (default: all but `buffers` and `result_buffers`); `msg_id` always is.
        QueryError names what is wrong with a query.
        """

    def count(self, query: QueryDict) -> int:
        """How many records match."""

    def page(
        self, query: QueryDict, keys: Iterable[str] | str | None = None, *, after: Cursor | None = None, limit: int
    ) -> Page:
        """The next `limit` records that match, by submission, after a cursor.

        Page by page a record that is there all the time comes exactly once; one submitted meanwhile comes last.
        """

    def distinct(self, key: str, query: QueryDict) -> list[Any]:
        """Each value of a key in the records that match, once, sorted; of a list each element."""

    def group_by(
        self, key: str, query: QueryDict, *, values: str | None = None, percentiles: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        """The records that match, grouped by the value of a key and sorted by it.

        Each group is a dict: `key`, `count`, and with `values` (a key that holds numbers, as `duration`) how many
        `values` there are, their `mean`, `min`, `max`, and `p50`, `p99.9` … for each of `percentiles`.
        """

    # what is kept

    def pin(self, ids: Sequence[TaskId], pinned: bool) -> int:
        """Pin records, so that retention leaves them alone, or let them loose; returns how many that changes."""

    def drop_buffers(self, ids: Sequence[TaskId]) -> int:
        """Let go of the buffers of finished records, which are None from then on; returns how many had some."""

    def used_references(self) -> Iterator[References]:
        """What records refer to, some records at a time. Records written during the scan may be left out."""

    def stored_references(self) -> Iterator[References]:
        """All functions and the like that the store holds in tables of their own, some at a time."""

    def drop_references(self, unused: References) -> int:
        """Drop functions and the like; returns how many functions were dropped."""

    def usage(self) -> Usage:
        """How much there is."""

    def room(self) -> int | None:
        """Bytes that may still be written, found quickly; None: unknown, or without limit."""

    def give_back(self, most: int) -> int:
        """Return up to so many unused bytes to the system; tells how many are left."""

    def get_history(self) -> list[TaskId]:
        """All ids by time of submission."""

    def close(self) -> None:
        """Release files and connections. May be called twice."""
