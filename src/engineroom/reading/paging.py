"""All records that match, in pages, by a time: memory stays flat, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from ..records.record import TaskRecord

#: Records read in one go.
PAGE = 1000
#: Times in queries are rounded. A page begins so far before the end of the last one; what comes again is left out.
OVERLAP = timedelta(microseconds=10)


class Searchable(Protocol):
    """Records that can be found."""

    def find(
        self,
        query: Mapping[str, Any],
        keys: Sequence[str] | None = None,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> list[TaskRecord]:
        """Records that match."""


def pages(
    records: Searchable, query: Mapping[str, Any], keys: Sequence[str] | None, direction: int, size: int = PAGE
) -> Iterator[list[TaskRecord]]:
    """The records that match, a page at a time: oldest first (`direction` 1) or newest first (-1).

    Records without a time of submission count as the oldest. What is submitted meanwhile may come or
    not; everything else comes once.
    """
    wanted = None if keys is None else list(dict.fromkeys(["submitted", *keys]))
    undated = _by_number(records, {"$and": [query, {"submitted": None}]}, wanted, direction, size)
    if direction > 0:
        yield from undated
    yield from by_time(records, query, wanted, "submitted", direction, size=size)
    if direction < 0:
        yield from undated


def _by_number(
    records: Searchable, query: Mapping[str, Any], keys: Sequence[str] | None, direction: int, size: int
) -> Iterator[list[TaskRecord]]:
    skip = 0
    while found := records.find(query, keys, [("msg_id", direction)], size, skip):
        yield found
        if len(found) < size:
            return
        skip += size


def by_time(
    records: Searchable,
    query: Mapping[str, Any],
    keys: Sequence[str] | None,
    time: str,
    direction: int = 1,
    since: datetime | None = None,
    size: int = PAGE,
) -> Iterator[list[TaskRecord]]:
    """The records that match and have a time, a page at a time, sorted by it.

    Parameters
    ----------
    time : "submitted" or "completed"
        One of `keys`, if keys are given.
    direction : int
        1: oldest first, -1: newest first.
    since : datetime, optional
        With direction 1: only records of this time and later ones.
    """
    bound: Any = {"$ne": None} if since is None else {"$gte": since}
    last: datetime | None = None
    #: the records about the end of the last page
    seen: dict[str, datetime] = {}
    skip = 0
    while True:
        found = records.find({"$and": [query, {time: bound}]}, keys, [(time, direction)], size, skip)
        new = [record for record in found if record["msg_id"] not in seen]
        if new:
            yield new
        if len(found) < size:
            return
        seen |= {record["msg_id"]: record[time] for record in new}
        latest = found[-1][time]
        if last is not None and (latest - last) * direction <= timedelta(0):
            skip += size  # so many were submitted at almost the same moment
            continue
        last, skip = latest, 0
        begin = latest - direction * OVERLAP
        seen = {id: at for id, at in seen.items() if (at - begin) * direction >= -OVERLAP}
        bound = {"$gte" if direction > 0 else "$lte": begin}
