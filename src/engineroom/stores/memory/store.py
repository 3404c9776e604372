"""DictDB: the task database in memory, with limits.

Tasks are kept as the entries they were written as; a document is made when somebody asks. An entry is replaced,
never changed, so a query works on a copy of the list of entries and takes the lock only to make that copy.
"""

from __future__ import annotations

import bisect
import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from ...config import GIB
from ...errors import ConfigError, StoreError
from ...ids import ClientId, Digest, TaskId
from ...messages import Environment, Function
from ...records.entry import Entry
from ...records.fields import TIMES
from ...records.record import TaskRecord
from ..base import QUERY_SECONDS, Columns, Cursor, Page, QueryDict, References, Sort, Usage, in_columns
from ..canonical import blank, canonical
from ..query.arguments import parse_keys, parse_page_size, parse_path, parse_percentiles, parse_sort, parse_window
from ..query.deadline import Deadline
from ..query.group import distinct, elements_at, group, value_at
from ..query.match import compile
from ..query.nodes import Compare, Eq, Field, In, Query, conjuncts
from ..query.order import order_key, sort_key
from ..query.parse import parse
from ..query.values import DATE, rank
from ..unreadable import Unreadable
from .items import (  # fmt: skip
    OUTCOME_KEYS,
    Copies,
    Item,
    Kept,
    Place,
    Total,
    View,
    arguments_of,
    completed,
    entry_of,
    function_of,
    id_of,
    is_finished,
    lightened,
    order_of,
    record_of,
    renumbered,
    settled,
    size_of,
)

#: Records, or functions, in one piece of a scan.
PIECE = 5000


T = TypeVar("T")


class DictDB:
    """Task records in memory.

    Arguments
    ---------
    record_limit : int
        How many records are kept.
    size_limit : int
        How many bytes their buffers may take.
    cull_fraction : float
        When a limit is exceeded, the records that finished first are dropped, until this part of it is free.
        Records that are pinned, or of unfinished tasks, are never dropped.
    query_seconds : float
        A query that takes longer is an error.
    """

    keeps = True
    durable = False
    hold_seconds = 0.2
    url = "memory"
    dropped = 0

    def __init__(
        self,
        *,
        record_limit: int = 100_000,
        size_limit: int = GIB,
        cull_fraction: float = 0.1,
        query_seconds: float = QUERY_SECONDS,
    ) -> None:
        if record_limit < 1 or size_limit < 1 or not 0 <= cull_fraction < 1:
            raise ConfigError(
                "record_limit and size_limit must be positive and cull_fraction at least 0 and below 1, "
                f"got {record_limit}, {size_limit} and {cull_fraction}"
            )
        self._record_limit, self._size_limit, self._cull_fraction = record_limit, size_limit, cull_fraction
        self._query_seconds = query_seconds
        self._lock = threading.Lock()
        self._items: dict[TaskId, Item] = {}
        #: places in the default order, sorted; records come nearly sorted, so most are appended
        self._order: list[Place] = []
        self._gone: set[TaskId] = set()  # dropped, but still in `_order`
        self._finished: dict[TaskId, None] = {}  # in the order in which they finished
        self._total, self._copies = Total(), Copies()
        self._functions: dict[Digest, Function] = {}
        self._environments: dict[str, bytes] = {}
        self._unreadable = Unreadable()
        #: digest of arguments → ids of the tasks with these arguments, whose results may answer equal calls
        self._by_arguments: defaultdict[str, dict[TaskId, None]] = defaultdict(dict)

    # the hot path

    def write(self, entries: Sequence[Entry]) -> None:
        with self._lock:
            items, copies = self._items, self._copies
            copies.next_group()
            for entry in entries:
                old = items.get(entry.spec.id)
                if old is None:
                    self._put(entry.spec.id, settled(entry, copies))
                elif isinstance(old, Entry):
                    if old.done is None:
                        self._put(entry.spec.id, settled(completed(old, entry), copies))
                elif old.entry is not None and not is_finished(old):
                    kept = {k: v for k, v in (old.changes or {}).items() if k not in OUTCOME_KEYS}
                    self._put(entry.spec.id, Kept(settled(completed(old.entry, entry), copies), kept))
            self._cull()

    def add_functions(self, functions: Sequence[Function]) -> None:
        with self._lock:
            for function in functions:
                self._functions.setdefault(function.digest, function)

    def get_function(self, digest: Digest) -> Function:
        return self._functions[digest]

    def add_environments(self, environments: Sequence[tuple[ClientId, Environment]]) -> None:
        with self._lock:
            for _, environment in environments:
                self._environments.setdefault(environment.digest, environment.content)

    def get_environment(self, digest: str) -> bytes:
        return self._environments[digest]

    def unfinished(self) -> Iterator[Entry]:
        with self._lock:
            items = self._ordered()
        return iter([entry for item in items if not is_finished(item) and (entry := entry_of(item)) is not None])

    def entries(self, ids: Sequence[TaskId]) -> dict[TaskId, Entry]:
        with self._lock:
            items = [self._items[id_] for id_ in ids if id_ in self._items]
        found = [entry for item in items if (entry := entry_of(item)) is not None]
        return {entry.id: renumbered(entry) for entry in found}

    # records, as users know them

    def add_record(self, msg_id: TaskId, record: Mapping[str, Any]) -> None:
        whole = {**blank(), **canonical(record, msg_id), "msg_id": msg_id}
        with self._lock:
            if msg_id in self._items:
                raise StoreError(f"there is a record of task {msg_id} already")
            self._put(msg_id, Kept(None, whole))
            self._cull()

    def get_record(self, msg_id: TaskId) -> TaskRecord:
        with self._lock:
            item = self._items[msg_id]
        return record_of(item)

    def update_record(self, msg_id: TaskId, changes: Mapping[str, Any]) -> None:
        changed = canonical(changes, msg_id)
        with self._lock:
            item = self._items[msg_id]
            old = item if isinstance(item, Kept) else Kept(item)
            self._put(msg_id, Kept(old.entry, {**(old.changes or {}), **changed}))
            self._cull()

    def drop_record(self, msg_id: TaskId) -> None:
        with self._lock:
            self._remove(msg_id)

    def drop_matching_records(self, query: QueryDict) -> int:
        parsed = parse(query)
        matches = compile(parsed, Deadline(self._query_seconds))
        with self._lock:
            doomed = [id_of(item) for item in self._candidates(parsed) if matches(View(item))]
            for msg_id in doomed:
                self._remove(msg_id)
        return len(doomed)

    def drop_in_pieces(self, query: QueryDict) -> Iterator[int]:
        parsed = parse(query)
        with self._lock:
            ids = [id_of(item) for item in self._candidates(parsed)]
        for start in range(0, len(ids), PIECE):
            matches = compile(parsed, Deadline(self._query_seconds))
            with self._lock:
                items = [self._items[id] for id in ids[start : start + PIECE] if id in self._items]
                doomed = [id_of(item) for item in items if matches(View(item))]
                for msg_id in doomed:
                    self._remove(msg_id)
            yield len(doomed)

    def find_records(
        self,
        query: QueryDict,
        keys: Iterable[str] | str | None = None,
        *,
        sort: Sort | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> list[TaskRecord]:
        parsed, wanted, order = parse(query), parse_keys(keys), parse_sort(sort)
        limit, skip = parse_window(limit, skip)
        end = None if limit is None else skip + limit
        found = self._matching(parsed, None if order else end)
        for path, descending in reversed(order):
            if len(path) == 1 and path[0] in TIMES:  # seconds hold more digits than a datetime
                found.sort(key=lambda view, key=path[0]: view.seconds(key), reverse=descending)  # type: ignore[misc]
            else:
                found = self._made(found, lambda view, p=path: (value_at(view, p), view)[1])  # type: ignore[misc]
                found.sort(
                    key=lambda view, p=path, d=descending: sort_key(view, p, d),  # type: ignore[misc]
                    reverse=descending,
                )
        return self._made(found[skip:end], lambda view: TaskRecord({key: view[key] for key in wanted}))

    def find_columns(
        self,
        query: QueryDict,
        keys: Iterable[str] | str | None = None,
        *,
        sort: Sort | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> Generator[Columns]:
        return in_columns(self.find_records(query, keys, sort=sort, limit=limit, skip=skip))

    def count(self, query: QueryDict) -> int:
        return len(self._matching(parse(query), None))

    def page(
        self, query: QueryDict, keys: Iterable[str] | str | None = None, *, after: Cursor | None = None, limit: int
    ) -> Page:
        wanted, limit = parse_keys(keys), parse_page_size(limit)
        found = self._matching(parse(query), limit, None if after is None else order_key(after[0], after[1]))
        records = self._made(found, lambda view: TaskRecord({key: view[key] for key in wanted}))
        if len(found) < limit:
            return Page(records, None)
        known, seconds, last = found[-1].place
        return Page(records, (seconds if known else None, last))

    def distinct(self, key: str, query: QueryDict) -> list[Any]:
        path = parse_path(key)
        found = self._made(self._matching(parse(query), None), lambda view: list(elements_at(view, path)))
        return distinct(value for values in found for value in values)

    def group_by(
        self, key: str, query: QueryDict, *, values: str | None = None, percentiles: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        path, wanted = parse_path(key), parse_percentiles(percentiles)
        measured = None if values is None else parse_path(values)
        found = self._matching(parse(query), None)
        pairs = self._made(found, lambda view: (value_at(view, path), value_at(view, measured) if measured else None))
        return group(pairs, wanted, measured is not None)

    def pin(self, ids: Sequence[TaskId], pinned: bool) -> int:
        changed = 0
        for id in ids:
            with self._lock:
                item = self._items.get(id)
            if item is not None and View(item)["pinned"] != pinned:
                self.update_record(id, {"pinned": pinned})
                changed += 1
        return changed

    def drop_buffers(self, ids: Sequence[TaskId]) -> int:
        dropped = 0
        for id in ids:
            with self._lock:
                item = self._items.get(id)
                if item is None or not is_finished(item) or not size_of(item):
                    continue
                light = lightened(item)
                self._put(id, light)
                dropped += size_of(light) < size_of(item)
        return dropped

    def large_buffers(self, most: int) -> list[tuple[TaskId, int]]:
        return []  # `size_limit` bounds all buffers

    def used_references(self) -> Iterator[References]:
        with self._lock:
            ids = list(self._items)
        for start in range(0, len(ids), PIECE):
            with self._lock:
                items = [self._items[id] for id in ids[start : start + PIECE] if id in self._items]
            yield References(
                frozenset([digest for item in items if (digest := function_of(item))]),
                environments=frozenset([name for item in items if (name := View(item)["environment"])]),
            )

    def stored_references(self) -> Iterator[References]:
        with self._lock:
            functions, environments = list(self._functions), frozenset(self._environments)
        for start in range(0, len(functions), PIECE):
            yield References(frozenset(functions[start : start + PIECE]))
        yield References(environments=environments)

    def drop_references(self, unused: References) -> int:
        with self._lock:
            for digest in unused.environments:
                self._environments.pop(digest, None)
            return sum(self._functions.pop(digest, None) is not None for digest in unused.functions)

    def usage(self) -> Usage:
        with self._lock:
            return Usage(self._total.bytes)

    def room(self) -> int | None:
        return None

    def give_back(self, most: int) -> int:
        return 0

    def get_history(self) -> list[TaskId]:
        with self._lock:
            return [id_of(item) for item in self._ordered()]

    def close(self) -> None: ...

    # inside

    def _put(self, msg_id: TaskId, item: Item) -> None:
        """Add or replace a record; the only place, with `_remove`, that changes the tables."""
        old = self._items.get(msg_id)
        if msg_id in self._gone:
            self._tidy()
        self._total.add(item)
        if old is not None:
            self._total.remove(old)
        self._items[msg_id] = item
        place = order_of(item)
        if old is None or order_of(old) != place:
            if old is not None:
                del self._order[bisect.bisect_left(self._order, order_of(old))]
            if self._order and place < self._order[-1]:
                bisect.insort(self._order, place)
            else:
                self._order.append(place)
        if arguments := arguments_of(old):
            self._by_arguments[arguments].pop(msg_id, None)
        if arguments := arguments_of(item):
            self._by_arguments[arguments][msg_id] = None
        if not is_finished(item):
            self._finished.pop(msg_id, None)
        else:
            self._finished.setdefault(msg_id)

    def _remove(self, msg_id: TaskId) -> None:
        item = self._items.pop(msg_id)
        self.dropped += 1
        self._total.remove(item)
        if arguments := arguments_of(item):
            known = self._by_arguments[arguments]
            known.pop(msg_id, None)
            if not known:
                del self._by_arguments[arguments]
        self._finished.pop(msg_id, None)
        self._gone.add(msg_id)
        if len(self._gone) > 1000 + len(self._order) // 2:
            self._tidy()

    def _tidy(self) -> None:
        self._order = [place for place in self._order if place[2] in self._items]
        self._gone.clear()

    def _cull(self) -> None:
        if len(self._items) <= self._record_limit and self._total.bytes <= self._size_limit:
            return
        most, largest = (int(limit * (1 - self._cull_fraction)) for limit in (self._record_limit, self._size_limit))
        for id in list(self._finished):
            if len(self._items) <= most and self._total.bytes <= largest:
                break
            if not View(self._items[id])["pinned"]:
                self._remove(id)

    def _ordered(self, first: Place | None = None, last: Place | None = None) -> list[Item]:
        """The records between two places, in the default order."""
        begin = 0 if first is None else bisect.bisect_right(self._order, first)
        end = len(self._order) if last is None else bisect.bisect_left(self._order, last)
        items = self._items
        if self._gone:
            return [items[place[2]] for place in self._order[begin:end] if place[2] in items]  # type: ignore[index]
        return [items[place[2]] for place in self._order[begin:end]]  # type: ignore[index]

    def _candidates(self, query: Query, after: Place | None = None) -> list[Item]:
        """The records that may match, in the default order: if the query names ids or times, only those."""
        ids, first, last = _bounds(query, self._by_arguments)
        if ids is not None:
            items = [self._items[id] for id in ids if id in self._items]
            items.sort(key=order_of)
            return items if after is None else [item for item in items if order_of(item) > after]
        return self._ordered(max(filter(None, (first, after)), default=None), last)

    def _matching(self, query: Query, most: int | None, after: Place | None = None) -> list[View]:
        deadline = Deadline(self._query_seconds)
        matches = compile(query, deadline)
        with self._lock:
            items = self._candidates(query, after)
        views = (View(item) for item in deadline.watch(items))
        matching = (view for view, does_match in self._unreadable.each(views, _id_in, matches) if does_match)
        return list(islice(matching, most))

    def _made(self, views: Iterable[View], make: Callable[[View], T]) -> list[T]:
        """What is made of each record, without those that cannot be read."""
        return [made for _, made in self._unreadable.each(views, _id_in, make)]


def _id_in(view: View) -> str:
    return view.place[2]


def _bounds(
    query: Query, by_arguments: Mapping[str, Iterable[TaskId]]
) -> tuple[set[TaskId] | None, Place | None, Place | None]:
    """Which ids can match (None: any), and between which places in the default order."""
    ids: set[TaskId] | None = None
    first: Place | None = None
    last: Place | None = None
    for part in conjuncts(query):
        if not isinstance(part, Field):
            continue
        test = part.test
        if part.path == ("msg_id",) and (isinstance(test, Eq) or (isinstance(test, In) and not test.patterns)):
            values = (test.value,) if isinstance(test, Eq) else test.values
            named = {TaskId(value) for value in values if isinstance(value, str)}
            ids = named if ids is None else ids & named
        elif part.path == ("arguments_digest",) and isinstance(test, In | Eq) and not getattr(test, "patterns", ()):
            values = (test.value,) if isinstance(test, Eq) else test.values
            if all(isinstance(value, str) for value in values):
                named = {id for value in values for id in by_arguments.get(value, ())}
                ids = named if ids is None else ids & named
        elif part.path == ("submitted",) and isinstance(test, Compare) and rank(test.value) == DATE:
            # a microsecond more: several floats read as one datetime
            if test.op in ("$gt", "$gte"):
                first = max(filter(None, (first, (True, test.value.timestamp() - 1e-6, ""))))
            else:
                last = min(filter(None, (last, (True, test.value.timestamp() + 2e-6, ""))))
    return ids, first, last
