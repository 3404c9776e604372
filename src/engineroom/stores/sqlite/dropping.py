"""Drops the rows that match a query in pieces, each one short transaction, so that other work comes in between.

If few rows match, they are looked up first. Otherwise all rows that are there at the beginning are walked through in
the order of their numbers. The time and the room on the disk that a piece takes depend neither on the query nor on how
much is dropped in all. A piece that the disk has no room for is made smaller.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from ...errors import StoreFull
from ..query.nodes import Query
from .connections import Connections
from .search import Search
from .where import LONG_LIST, Where, translate
from .write_ahead_log import shorten_log

#: Up to so many matching rows are looked up first, if that takes no longer than so many seconds.
FEW, LOOK_SECONDS = 5000, 0.2
#: A piece takes about so many seconds. The first one has so many rows; none has more than the most.
PIECE_SECONDS, FIRST_ROWS, MOST_ROWS = 0.05, 500, 20_000


class Dropping:
    """The rows that match one query, on their way out."""

    def __init__(self, connections: Connections, search: Search, query: Query) -> None:
        self._connections, self._read, self._search = connections, connections.read, search
        self._query, self._where = query, translate(query)
        self._rows = FIRST_ROWS

    def pieces(self) -> Iterator[int]:
        """Drop a piece at each `next`; gives how many rows it dropped.

        A piece of 0 rows may mean that a reader still needs the write-ahead log, which is too long to be written on.
        """
        few = self._search.few(self._query, self._where, FEW, LOOK_SECONDS)
        if few is not None:
            yield from self._looked_up(few)
        else:
            yield from self._walked_through()

    def _looked_up(self, left: Sequence[int]) -> Iterator[int]:
        while left:
            some = left[: self._rows]
            listed = Where(f"seq {LONG_LIST}", (msgspec.json.encode(some).decode(),))
            dropped = self._drop(listed)
            if dropped is not None:
                left = left[len(some) :]
            yield dropped or 0

    def _walked_through(self) -> Iterator[int]:
        [(first, last)] = self._read("SELECT min(seq), max(seq) FROM tasks")
        while last is not None and first <= last:
            [(end,)] = self._read(
                "SELECT coalesce((SELECT seq FROM tasks WHERE seq >= ? ORDER BY seq LIMIT 1 OFFSET ?), ?)",
                (first, self._rows - 1, last),
            )
            dropped = self._drop(Where("seq BETWEEN ? AND ?", (first, min(end, last))))
            if dropped is not None:
                first = end + 1
            yield dropped or 0

    def _drop(self, among: Where) -> int | None:
        """Drop those of some rows that match; None: not now, perhaps in a smaller piece."""
        with self._connections.writing("shorten its log", whole=False) as connection:
            if not shorten_log(connection, self._connections.path):
                return None
        # The rows are asked again: since they were looked up, others may have taken their numbers.
        both: tuple[Any, ...] = (*among.parameters, *self._where.parameters)
        where = Where(f"{among.sql} AND ({self._where.sql})", both, self._where.exact, "tasks NOT INDEXED")
        began = time.perf_counter()
        try:
            dropped = self._drop_where(where)
        except StoreFull:
            with self._connections.writing("shorten its log", whole=False) as connection:
                shorten_log(connection, self._connections.path, 0)
            if self._rows == 1:
                raise
            self._rows = max(1, self._rows // 4)
            return None
        pace = PIECE_SECONDS / max(time.perf_counter() - began, 1e-6)
        self._rows = max(1, min(MOST_ROWS, int(self._rows * min(2.0, max(0.25, pace)))))
        return dropped

    def _drop_where(self, where: Where) -> int:
        deadline = self._search.deadline()
        with self._connections.writing("drop records") as connection, self._connections.in_time(deadline):
            if where.exact:
                return connection.execute(f"DELETE FROM {where.table} WHERE {where.sql}", where.parameters).rowcount
            rows = [(seq,) for seq in self._search.matching(self._query, where, deadline, connection)]
            return connection.executemany("DELETE FROM tasks WHERE seq = ?", rows).rowcount if rows else 0
