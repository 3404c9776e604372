"""NoDB: no database. Tasks run, but no records are kept."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from ...ids import ClientId, Digest, TaskId
from ...messages import Environment, Function
from ...records.entry import Entry
from ...records.record import TaskRecord
from ..base import Columns, Cursor, Page, QueryDict, References, Sort, Usage

_ADVICE = ("this controller keeps no task records (NoDB); start it with --sqlitedb (a file) or --dictdb "
           "(memory) to have them")  # fmt: skip


class NoDB:
    """Keeps nothing: writing does nothing, and every access to a record raises KeyError."""

    keeps = False
    durable = False
    hold_seconds = 0.0
    url = "none"
    dropped = 0

    def write(self, entries: Sequence[Entry]) -> None: ...

    def add_functions(self, functions: Sequence[Function]) -> None: ...

    def get_function(self, digest: Digest) -> Function:
        _refuse()

    def add_environments(self, environments: Sequence[tuple[ClientId, Environment]]) -> None: ...

    def get_environment(self, digest: str) -> bytes:
        _refuse()

    def unfinished(self) -> Iterator[Entry]:
        return iter(())

    def entries(self, ids: Sequence[TaskId]) -> dict[TaskId, Entry]:
        return {}

    def add_record(self, msg_id: TaskId, record: Mapping[str, Any]) -> None: ...

    def get_record(self, msg_id: TaskId) -> TaskRecord:
        _refuse()

    def update_record(self, msg_id: TaskId, changes: Mapping[str, Any]) -> None:
        _refuse()

    def drop_record(self, msg_id: TaskId) -> None:
        _refuse()

    def drop_matching_records(self, query: QueryDict) -> int:
        _refuse()

    def drop_in_pieces(self, query: QueryDict) -> Iterator[int]:
        _refuse()

    def find_records(
        self,
        query: QueryDict,
        keys: Iterable[str] | str | None = None,
        *,
        sort: Sort | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> list[TaskRecord]:
        _refuse()

    def find_columns(
        self,
        query: QueryDict,
        keys: Iterable[str] | str | None = None,
        *,
        sort: Sort | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> Generator[Columns]:
        _refuse()

    def count(self, query: QueryDict) -> int:
        _refuse()

    def page(
        self, query: QueryDict, keys: Iterable[str] | str | None = None, *, after: Cursor | None = None, limit: int
    ) -> Page:
        _refuse()

    def distinct(self, key: str, query: QueryDict) -> list[Any]:
        _refuse()

    def group_by(
        self, key: str, query: QueryDict, *, values: str | None = None, percentiles: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        _refuse()

    def pin(self, ids: Sequence[TaskId], pinned: bool) -> int:
        _refuse()

    def drop_buffers(self, ids: Sequence[TaskId]) -> int:
        _refuse()

    def large_buffers(self, most: int) -> list[tuple[TaskId, int]]:
        return []

    def used_references(self) -> Iterator[References]:
        return iter(())

    def stored_references(self) -> Iterator[References]:
        return iter(())

    def drop_references(self, unused: References) -> int:
        return 0

    def usage(self) -> Usage:
        return Usage(0)

    def room(self) -> int | None:
        return None

    def give_back(self, most: int) -> int:
        return 0

    def get_history(self) -> list[TaskId]:
        _refuse()

    def close(self) -> None: ...


def _refuse() -> NoReturn:
    raise KeyError(_ADVICE)
