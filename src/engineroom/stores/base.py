"""What a task database must do: the protocol `TaskStore`, and the types in its answers.

One thread calls the methods that write. Any number of threads call those that read, at the same time. A store does
what it was asked completely, or changes nothing and raises `StoreError`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import msgspec

from ..ids import ClientId, Digest, EngineUuid, TaskId
from ..messages import Environment, Function
from ..records.entry import Entry
from ..records.record import TaskRecord

#: A MongoDB-style query, as users write it.
QueryDict = Mapping[str, Any]
#: [(key, 1 or -1), …]
Sort = Sequence[tuple[str, int]]


#: Some records of an answer in columns: key → its values, of all keys equally many.
Columns = dict[str, Sequence[Any]]

#: Records in one such piece: enough to make what a piece costs by itself small.
PIECE = 2000

#: Where a page ends: (seconds of submission, msg_id) of its last record.
Cursor = tuple[float | None, str]

#: Seconds a query may take.
QUERY_SECONDS = 30.0


class Page(msgspec.Struct, frozen=True):
    """Some records of an answer, in order of submission, and where the next page begins."""

    records: list[TaskRecord]
    #: None: this page is the last
    next: Cursor | None


class Usage(msgspec.Struct, frozen=True):
    """How much space a store uses."""

    #: bytes in use
    used: int
    #: bytes that are no longer in use, and can be returned to the system or used again
    unused: int = 0
    #: bytes that may still be written; None: unknown, or without limit
    room: int | None = None
    #: bytes of large buffers, which are stored apart from the records; 0 if the store does not tell them apart
    large: int = 0


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


def in_columns(records: Iterable[TaskRecord]) -> Generator[Columns]:
    """Records that all have the same keys, in the same order, in pieces."""
    left = iter(records)
    while piece := list(islice(left, PIECE)):
        yield dict(zip(piece[0], zip(*[record.values() for record in piece], strict=True), strict=True))


class TaskStore(Protocol):
    """A task database."""

    #: whether anything written can be read back
    keeps: bool
    #: how many records have been dropped since the store was opened
    dropped: int
    #: whether records survive the end of the controller
    durable: bool
    #: seconds that the writer holds a pending task back: if it ends in that time, it is written once, as a whole
    hold_seconds: float
    #: "sqlite:///…/tasks.db", "memory" or "none": what the connection file says
    url: str

    # the hot path

    def write(self, entries: Sequence[Entry]) -> None:
        """Add or complete tasks, all in one transaction. Writing an entry twice changes nothing."""

    def add_functions(self, functions: Sequence[Function]) -> None:
        """Store pickled functions; those with a known digest are skipped."""

    def get_function(self, digest: Digest) -> Function:
        """A pickled function; KeyError if it is not stored."""

    def add_environments(self, environments: Sequence[tuple[ClientId, Environment]]) -> None:
        """Store the environments of clients, each digest once. A client keeps the first one stored for it."""

    def get_environment(self, digest: str) -> bytes:
        """An environment's content; KeyError if it is not stored."""

    def unfinished(self) -> Iterator[Entry]:
        """Pending tasks in order of submission, for a restarted controller to go on with."""

    def entries(self, ids: Sequence[TaskId]) -> dict[TaskId, Entry]:
        """The entries of these tasks, payloads included. Unknown ids are left out."""

    # records, as users know them

    def add_record(self, msg_id: TaskId, record: Mapping[str, Any]) -> None:
        """Add a record given as a dict; missing keys are None. StoreError if the id is taken."""

    def get_record(self, msg_id: TaskId) -> TaskRecord:
        """The whole record; KeyError if there is none."""

    def update_record(self, msg_id: TaskId, changes: Mapping[str, Any]) -> None:
        """Change some keys of a record; KeyError if there is none."""

    def drop_record(self, msg_id: TaskId) -> None:
        """Drop a record; KeyError if there is none."""

    def drop_matching_records(self, query: QueryDict) -> int:
        """Drop the records that match, in one transaction; returns how many."""

    def drop_in_pieces(self, query: QueryDict) -> Iterator[int]:
        """Drop the records that match now, a piece at each `next`, which gives how many records it dropped.

        A piece is a transaction of its own, takes a small part of a second, and needs little room on the disk. What
        the pieces so far have dropped stays dropped if the rest does not follow. There is no time limit for the whole.
        """

    def find_records(
        self,
        query: QueryDict,
        keys: Iterable[str] | str | None = None,
        *,
        sort: Sort | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> list[TaskRecord]:
        """Records that match, in order of submission unless `sort` is given.

        `keys`: which to return (default: all but `buffers` and `result_buffers`); `msg_id` always is.
        QueryError names what is wrong with a query.
        """

    def find_columns(
        self,
        query: QueryDict,
        keys: Iterable[str] | str | None = None,
        *,
        sort: Sort | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> Generator[Columns]:
        """What `find_records` finds, in columns, some records at a time: for answers with many records.

        Close it if you do not read it to its end.
        """

    def count(self, query: QueryDict) -> int:
        """How many records match."""

    def page(
        self, query: QueryDict, keys: Iterable[str] | str | None = None, *, after: Cursor | None = None, limit: int
    ) -> Page:
        """The next `limit` records that match, in order of submission, after a cursor.

        A record that exists all the time comes on exactly one page. A record submitted meanwhile comes last.
        """

    def distinct(self, key: str, query: QueryDict) -> list[Any]:
        """The values of a key in the records that match: each once, sorted. A list counts as its elements."""

    def group_by(
        self, key: str, query: QueryDict, *, values: str | None = None, percentiles: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        """The records that match, grouped by the value of a key and sorted by it.

        Each group is a dict: `key`, `count`, and with `values` (a key that holds numbers, as `duration`) how many
        `values` there are, their `mean`, `min`, `max`, and `p50`, `p99.9` … for each of `percentiles`.
        """

    # what is kept

    def pin(self, ids: Sequence[TaskId], pinned: bool) -> int:
        """Pin records, so that retention leaves them alone, or unpin them; returns how many records changed."""

    def drop_buffers(self, ids: Sequence[TaskId]) -> int:
        """Drop the buffers of finished records: they are None from then on. Returns how many records had any."""

    def large_buffers(self, most: int) -> list[tuple[TaskId, int]]:
        """Finished records with large buffers, except pinned ones: (id, bytes), by submission, `most` at most."""

    def used_references(self) -> Iterator[References]:
        """What records refer to, some records at a time. Records written during the scan may be left out."""

    def stored_references(self) -> Iterator[References]:
        """All functions and the like that the store holds in tables of their own, some at a time."""

    def drop_references(self, unused: References) -> int:
        """Drop functions and the like; returns how many functions were dropped."""

    def usage(self) -> Usage:
        """How much space the records use. It takes some milliseconds, however many there are."""

    def room(self) -> int | None:
        """Bytes that may still be written; None: unknown, or without limit. It takes no longer than a system call."""

    def give_back(self, most: int) -> int:
        """Return up to `most` unused bytes to the system; returns how many unused bytes are left."""

    def get_history(self) -> list[TaskId]:
        """All ids in order of submission."""

    def close(self) -> None:
        """Release files and connections. May be called twice."""
