"""Questions to an SQLite file: SQL narrows the rows down, and answers alone where it can.

Where the condition in SQL is not exact (`where.py`), each row is asked again by the predicate (`query/match.py`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from ...errors import QueryError, StoreDamaged, StoreError
from ...ids import TaskId
from ...records.fields import TIMES
from ...records.record import TaskRecord
from ..base import PIECE, Columns, Cursor, Page, in_columns
from ..query.arguments import Order, Window
from ..query.deadline import Deadline
from ..query.group import distinct, elements_at, group, value_at
from ..query.match import compile
from ..query.nodes import Path, Query, keys_in
from ..query.order import sort_rows
from ..unreadable import Unreadable
from .blobs import load
from .connections import Connections
from .file import reported
from .payload_files import PayloadFiles
from .rows.columns import COLUMN_TYPES
from .rows.reading import Reader
from .where import ORDER, Where, indexed, latest, narrowed, one_of_few, order_clause, translate, unhinted

#: Columns whose values stand in records as they are.
_GROUPED_BY_SQL = COLUMN_TYPES.keys() - TIMES - {"function"}

#: The condition and the order in SQL, and what follows the condition if SQL alone can answer.
_Plan = tuple[Where, str | None, str | None]


class Search:
    """Answers queries that have been parsed."""

    def __init__(self, connections: Connections, files: PayloadFiles, seconds: float) -> None:
        self._connections, self._read, self._files, self._seconds = connections, connections.read, files, seconds
        self._unreadable = Unreadable()

    def find(self, query: Query, keys: Sequence[str], order: Order, window: Window) -> list[TaskRecord]:
        return self._find(self._plan(query, order, window), query, keys, order, window)

    def _find(
        self, plan: _Plan, query: Query, keys: Sequence[str], order: Order, window: Window
    ) -> list[TaskRecord]:
        where, clause, tail = plan
        deadline = self.deadline()
        if tail is not None:
            with self._connections.snapshot():  # of the rows, and of the large buffers that they share
                return list(self._select(where, tail, keys, deadline))
        limit, skip = window
        end = None if limit is None else skip + limit
        with self._connections.snapshot():
            if clause is not None:
                found = self._scan(query, where, clause, (), deadline)
                return self._fetch([seq for seq, _ in islice(found, skip, end)], keys, deadline)
            times = [path[0] for path, _ in order if path[0] in TIMES and len(path) == 1]
            sorted_by = {path[0] for path, _ in order}
            rows = list(self._scan(query, where, f" ORDER BY {ORDER}", sorted_by, deadline, first=("seq", *times)))
            sort_rows(rows, order, times)
            return self._fetch([row[0] for row in rows[skip:end]], keys, deadline)

    def find_columns(
        self, query: Query, keys: Sequence[str], order: Order, window: Window
    ) -> Generator[Columns]:
        plan = where, _, tail = self._plan(query, order, window)
        if tail is None:
            yield from in_columns(self._find(plan, query, keys, order, window))
            return
        read = Reader(keys, load=self.load)
        with self._connections.snapshot():
            if not read.is_simple:
                yield from in_columns(self._select(where, tail, keys, self.deadline()))
                return
            sql = f"SELECT {read.columns} FROM {where.table} WHERE {where.sql}{unhinted(where, tail)}"
            rows = self._read(sql, where.parameters, self.deadline())
            while piece := list(islice(rows, PIECE)):
                try:
                    columns = read.in_columns(piece)
                except Exception:  # a value is not what it must be: leave out the records that have such values
                    yield from in_columns(record for row in piece if (record := self._readable(read, row)) is not None)
                else:
                    yield columns

    def _plan(self, query: Query, order: Order, window: Window) -> _Plan:
        limit, skip = window
        where, clause = narrowed(query, self._read), order_clause(order)
        if order and order[0][0] == ("completed",):
            where = latest(where, self._read) if clause is not None and limit is not None else indexed(where)
        if clause is None or not where.exact:
            return where, clause, None
        return where, clause, f"{clause} LIMIT {-1 if limit is None else limit} OFFSET {skip}"

    def count(self, query: Query) -> int:
        where, deadline = indexed(translate(query)), self.deadline()
        if where.exact:
            [(number,)] = self._read(f"SELECT count(*) FROM tasks WHERE {where.sql}", where.parameters, deadline)
            return int(number)
        return sum(1 for _ in self._scan(query, where, "", (), deadline))

    def page(self, query: Query, keys: Sequence[str], after: Cursor | None, limit: int) -> Page:
        deadline = self.deadline()
        where = narrowed(query, self._read)
        if after is not None:
            where = _behind(where, after)
        with self._connections.snapshot():
            found = self._scan(query, where, f" ORDER BY {ORDER}", (), deadline)
            places = [seq for seq, _ in islice(found, limit)]
            records = self._fetch(places, keys, deadline)
            if len(places) < limit:
                return Page(records, None)
            for seconds, last in self._read("SELECT submitted, msg_id FROM tasks WHERE seq = ?", (places[-1],)):
                return Page(records, (seconds, last))
        raise StoreDamaged("an index names a record that is not there: `engineroom db verify` tells what is lost")

    def distinct(self, path: Path, query: Query) -> list[Any]:
        if len(path) == 1 and path[0] in _GROUPED_BY_SQL:
            where = narrowed(query, self._read)
            if where.exact:
                sql = f"SELECT DISTINCT {path[0]} FROM {where.table} WHERE {where.sql}"
                return distinct(value for (value,) in self._read(sql, where.parameters, self.deadline()))
        return distinct(value for record in self._values(query, {path[0]}) for value in elements_at(record, path))

    def group_by(
        self, path: Path, query: Query, measured: Path | None, percentiles: Sequence[float]
    ) -> list[dict[str, Any]]:
        where = narrowed(query, self._read)
        if where.exact and all(len(p) == 1 and p[0] in _GROUPED_BY_SQL for p in (path, measured or path)):
            sql = f"SELECT {path[0]}, {measured[0] if measured else 'NULL'} FROM {where.table} WHERE {where.sql}"
            rows = self._read(sql, where.parameters, self.deadline())
            return group(((name, value) for name, value in rows), percentiles, measured is not None)
        records = self._values(query, {path[0], *(measured or ())[:1]})
        pairs = ((value_at(r, path), value_at(r, measured) if measured else None) for r in records)
        return group(pairs, percentiles, measured is not None)

    def matching(self, query: Query, where: Where, deadline: Deadline, connection: sqlite3.Connection) -> list[int]:
        """The numbers of the rows that match, read with another connection: within its transaction."""
        return [seq for seq, _ in self._scan(query, where, "", (), deadline, connection)]

    def few(self, query: Query, where: Where, most: int, seconds: float) -> list[int] | None:
        """The numbers of the rows that match; None: there are more, or it takes longer than so many seconds."""
        found: list[int] = []
        try:
            for seq, _ in self._scan(query, indexed(where), f" LIMIT {most + 1}" * where.exact, (), Deadline(seconds)):
                found.append(seq)
                if len(found) > most:
                    return None
        except QueryError:
            return None
        return found

    def history(self) -> list[TaskId]:
        """All ids by submission."""
        return [msg_id for (msg_id,) in self._read(f"SELECT msg_id FROM tasks ORDER BY {ORDER}", (), self.deadline())]

    def deadline(self) -> Deadline:
        """For a question that begins now."""
        return Deadline(self._seconds)

    def load(self, number: int) -> Any:
        """A buffer that records share; None: it is damaged, or missing."""
        with reported("read"):
            return load(self._connections.reader(), self._files, number)

    # ------------------------------------------------------------------------------------------ rows

    def _scan(
        self,
        query: Query,
        where: Where,
        tail: str,
        keys: Iterable[str],
        deadline: Deadline,
        connection: sqlite3.Connection | None = None,
        first: Sequence[str] = ("seq",),
    ) -> Iterator[tuple[Any, ...]]:
        """(seq, …, some keys) of the records that match; no more is read of a row than the question needs."""
        needed = {*keys} if where.exact else {*keys, *keys_in(query)}
        read, start = Reader(sorted(needed), first, self.load), len(first)
        rows = self._read(
            f"SELECT {read.columns} FROM {where.table} WHERE {where.sql}{tail}", where.parameters, deadline, connection
        )
        matches = None if where.exact else compile(query, deadline)
        for row in rows:
            record = self._readable(read, row)
            if record is not None and (matches is None or matches(record)):
                yield (*row[:start], record)

    def _select(self, where: Where, tail: str, keys: Sequence[str], deadline: Deadline) -> Iterator[TaskRecord]:
        """Some keys of the rows that meet an exact condition."""
        read = Reader(keys, load=self.load)
        sql = f"SELECT {read.columns} FROM {where.table} WHERE {where.sql}{unhinted(where, tail)}"
        records = (self._readable(read, row) for row in self._read(sql, where.parameters, deadline))
        return (record for record in records if record is not None)

    def _fetch(self, places: Sequence[int], keys: Sequence[str], deadline: Deadline) -> list[TaskRecord]:
        """Some keys of the rows with these numbers, in this order."""
        read = Reader(keys, load=self.load)
        found: dict[int, TaskRecord] = {}
        for start in range(0, len(places), 500):
            some = one_of_few("seq", places[start : start + 500])
            sql = f"SELECT {read.columns} FROM tasks WHERE {some.sql}"
            for row in self._read(sql, some.parameters, deadline):
                record = self._readable(read, row)
                if record is not None:
                    found[row[0]] = record
        return [found[seq] for seq in places if seq in found]

    def _readable(self, read: Reader, row: Sequence[Any]) -> TaskRecord | None:
        """Some keys of a row. None: a value in it is not what it must be; the others are answered without it."""
        try:
            return read(row)
        except (StoreError, QueryError, sqlite3.Error, MemoryError):  # of the file or the question, not of this record
            raise
        except Exception as error:
            self._unreadable.name(row[0], lambda: self._id_of(row[0]), error)
            return None

    def _id_of(self, seq: int) -> Any:
        """The id in the row with this number; the number, if there is none."""
        with reported("read"):
            found = self._connections.reader().execute("SELECT msg_id FROM tasks WHERE seq = ?", (seq,)).fetchone()
        return found[0] if found else seq

    def _values(self, query: Query, keys: Iterable[str]) -> Iterator[TaskRecord]:
        """Some keys of the records that match, in any order."""
        where, deadline = narrowed(query, self._read), self.deadline()
        return (record for _, record in self._scan(query, where, "", keys, deadline))


def _behind(where: Where, after: Cursor) -> Where:
    """The same condition, for rows that come after a cursor."""
    seconds, last = after
    if seconds is None:
        later = Where("(submitted IS NULL AND msg_id > ?) OR submitted IS NOT NULL", (last,))
    else:
        later = Where("(submitted, msg_id) > (?, ?)", (seconds, last))
    both = (*where.parameters, *later.parameters)
    return where._replace(sql=f"({where.sql}) AND ({later.sql})", parameters=both)
