"""DictDB: the task database in memory, with limits.

Tasks are kept as the entries they were written as; a document is made when somebody asks. An entry is replaced,
never changed, so a query works on a copy of the list of entries and takes the lock only to make that copy.
"""

from __future__ import annotations

import bisect
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ..config import GIB
from ..errors import ConfigError, StoreError
from ..ids import ClientId, Digest, TaskId
from ..messages import CacheKey, Environment, Function
from ..records import (
    TIMES,
    Entry,
    TaskRecord,
    document,
    duration_of,
    instant,
    request_header,
    result_content,
    state_of,
)
from .base import QUERY_SECONDS, Cursor, Page, QueryDict, Sort, Usage
from .grouping import distinct, elements_at, group, parse_percentiles, value_at
from .matching import Deadline, compile
from .ordering import order_key, sort_key
from .query import And, Compare, Eq, Field, In, Query, parse, parse_keys, parse_path, parse_sort, parse_window
from .rows import blank, normal
from .values import DATE, rank


class _Kept(msgspec.Struct):
    """What is kept of one record: the entry, or a document, or an entry and what was changed of it since."""

    entry: Entry | None
    changes: dict[str, Any] | None = None


#: a plain task is kept as its entry alone
_Item = Entry | _Kept
#: what `order_key` makes
_Place = tuple[bool, float, str]


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
        self._items: dict[TaskId, _Item] = {}
        #: places in the default order, sorted; records come nearly sorted, so most are appended
        self._order: list[_Place] = []
        self._gone: set[TaskId] = set()  # in `_order`, but not there any more
        self._finished: dict[TaskId, None] = {}  # in the order in which they finished
        self._size = 0
        self._functions: dict[Digest, Function] = {}
        self._environments: dict[str, bytes] = {}
        #: those that equal calls may be answered with, by the digest of their arguments
        self._by_arguments: defaultdict[str, dict[TaskId, None]] = defaultdict(dict)

    # the hot path

    def write(self, entries: Sequence[Entry]) -> None:
        with self._lock:
            items = self._items
            for entry in entries:
                old = items.get(entry.spec.id)
                if old is None:
                    self._put(entry.spec.id, _settled(entry))
                elif isinstance(old, Entry):
                    if old.done is None:
                        self._put(entry.spec.id, _settled(_completed(old, entry)))
                elif old.entry is not None and not _is_finished(old):
                    kept = {k: v for k, v in (old.changes or {}).items() if k not in _OUTCOME_KEYS}
                    self._put(entry.spec.id, _Kept(_settled(_completed(old.entry, entry)), kept))
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
        return iter([entry for item in items if not _is_finished(item) and (entry := _entry_of(item)) is not None])

    def entries(self, ids: Sequence[TaskId]) -> dict[TaskId, Entry]:
        with self._lock:
            items = [self._items[id_] for id_ in ids if id_ in self._items]
        found = [entry for item in items if (entry := _entry_of(item)) is not None]
        return {entry.id: _renumbered(entry) for entry in found}

    # records, as users know them

    def add_record(self, msg_id: TaskId, record: Mapping[str, Any]) -> None:
        whole = {**blank(), **normal(record, msg_id), "msg_id": msg_id}
        with self._lock:
            if msg_id in self._items:
                raise StoreError(f"there is a record of task {msg_id} already")
            self._put(msg_id, _Kept(None, whole))
            self._cull()

    def get_record(self, msg_id: TaskId) -> TaskRecord:
        with self._lock:
            item = self._items[msg_id]
        return _document(item)

    def update_record(self, msg_id: TaskId, changes: Mapping[str, Any]) -> None:
        changed = normal(changes, msg_id)
        with self._lock:
            item = self._items[msg_id]
            old = item if isinstance(item, _Kept) else _Kept(item)
            self._put(msg_id, _Kept(old.entry, {**(old.changes or {}), **changed}))
            self._cull()

    def drop_record(self, msg_id: TaskId) -> None:
        with self._lock:
            self._remove(msg_id)

    def drop_matching_records(self, query: QueryDict) -> int:
        parsed = parse(query)
        matches = compile(parsed, Deadline(self._query_seconds))
        with self._lock:
            doomed = [_id_of(item) for item in self._candidates(parsed) if matches(_View(item))]
            for msg_id in doomed:
                self._remove(msg_id)
        return len(doomed)

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
                found.sort(
                    key=lambda view, p=path, d=descending: sort_key(view, p, d),  # type: ignore[misc]
                    reverse=descending,
                )
        return [TaskRecord({key: view[key] for key in wanted}) for view in found[skip:end]]

    def count(self, query: QueryDict) -> int:
        return len(self._matching(parse(query), None))

    def page(
        self, query: QueryDict, keys: Iterable[str] | str | None = None, *, after: Cursor | None = None, limit: int
    ) -> Page:
        wanted = parse_keys(keys)
        found = self._matching(parse(query), limit, None if after is None else order_key(after[0], after[1]))
        records = [TaskRecord({key: view[key] for key in wanted}) for view in found]
        if len(found) < limit:
            return Page(records, None)
        known, seconds, last = found[-1].place
        return Page(records, (seconds if known else None, last))

    def distinct(self, key: str, query: QueryDict) -> list[Any]:
        path = parse_path(key)
        return distinct(value for view in self._matching(parse(query), None) for value in elements_at(view, path))

    def group_by(
        self, key: str, query: QueryDict, *, values: str | None = None, percentiles: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        path, wanted = parse_path(key), parse_percentiles(percentiles)
        measured = None if values is None else parse_path(values)
        found = self._matching(parse(query), None)
        pairs = ((value_at(v, path), value_at(v, measured) if measured else None) for v in found)
        return group(pairs, wanted, measured is not None)

    def pin(self, ids: Sequence[TaskId], pinned: bool) -> int:
        changed = 0
        for id in ids:
            with self._lock:
                item = self._items.get(id)
            if item is not None and _View(item)["pinned"] != pinned:
                self.update_record(id, {"pinned": pinned})
                changed += 1
        return changed

    def drop_buffers(self, ids: Sequence[TaskId]) -> int:
        dropped = 0
        for id in ids:
            with self._lock:
                item = self._items.get(id)
                if item is None or not _is_finished(item) or not _size(item):
                    continue
                light = _light(item)
                self._put(id, light)
                dropped += _size(light) < _size(item)
        return dropped

    def usage(self) -> Usage:
        with self._lock:
            return Usage(len(self._items), self._size)

    def room(self) -> int | None:
        return None

    def give_back(self, most: int) -> int:
        return 0

    def get_history(self) -> list[TaskId]:
        with self._lock:
            return [_id_of(item) for item in self._ordered()]

    def close(self) -> None: ...

    # inside

    def _put(self, msg_id: TaskId, item: _Item) -> None:
        """Add or replace a record; the only place, with `_remove`, that changes the tables."""
        old = self._items.get(msg_id)
        if msg_id in self._gone:
            self._tidy()
        self._size += _size(item) - (0 if old is None else _size(old))
        self._items[msg_id] = item
        place = _order_of(item)
        if old is None or _order_of(old) != place:
            if old is not None:
                del self._order[bisect.bisect_left(self._order, _order_of(old))]
            if self._order and place < self._order[-1]:
                bisect.insort(self._order, place)
            else:
                self._order.append(place)
        if arguments := _arguments_of(old):
            self._by_arguments[arguments].pop(msg_id, None)
        if arguments := _arguments_of(item):
            self._by_arguments[arguments][msg_id] = None
        if not _is_finished(item):
            self._finished.pop(msg_id, None)
        else:
            self._finished.setdefault(msg_id)

    def _remove(self, msg_id: TaskId) -> None:
        item = self._items.pop(msg_id)
        self._size -= _size(item)
        if arguments := _arguments_of(item):
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
        if len(self._items) <= self._record_limit and self._size <= self._size_limit:
            return
        most, largest = (int(limit * (1 - self._cull_fraction)) for limit in (self._record_limit, self._size_limit))
        for id in list(self._finished):
            if len(self._items) <= most and self._size <= largest:
                break
            if not _View(self._items[id])["pinned"]:
                self._remove(id)

    def _ordered(self, first: _Place | None = None, last: _Place | None = None) -> list[_Item]:
        """The records as they are now, in the default order; those between two places."""
        begin = 0 if first is None else bisect.bisect_right(self._order, first)
        end = len(self._order) if last is None else bisect.bisect_left(self._order, last)
        items = self._items
        if self._gone:
            return [items[place[2]] for place in self._order[begin:end] if place[2] in items]  # type: ignore[index]
        return [items[place[2]] for place in self._order[begin:end]]  # type: ignore[index]

    def _candidates(self, query: Query, after: _Place | None = None) -> list[_Item]:
        """In the default order, the records that may match: by their ids or their times, if the query names those."""
        ids, first, last = _bounds(query, self._by_arguments)
        if ids is not None:
            items = [self._items[id] for id in ids if id in self._items]
            items.sort(key=_order_of)
            return items if after is None else [item for item in items if _order_of(item) > after]
        return self._ordered(max(filter(None, (first, after)), default=None), last)

    def _matching(self, query: Query, most: int | None, after: _Place | None = None) -> list[_View]:
        deadline = Deadline(self._query_seconds)
        matches = compile(query, deadline)
        found: list[_View] = []
        with self._lock:
            items = self._candidates(query, after)
        for item in deadline.watch(items):
            if most is not None and len(found) >= most:
                break
            view = _View(item)
            if matches(view):
                found.append(view)
        return found


def _conjuncts(query: Query) -> Iterator[Query]:
    """Conditions that must all hold."""
    if isinstance(query, And):
        for part in query.parts:
            yield from _conjuncts(part)
    else:
        yield query


def _bounds(
    query: Query, by_arguments: Mapping[str, Iterable[TaskId]]
) -> tuple[set[TaskId] | None, _Place | None, _Place | None]:
    """Which ids can match (None: any), and between which places in the default order."""
    ids: set[TaskId] | None = None
    first: _Place | None = None
    last: _Place | None = None
    for part in _conjuncts(query):
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


# ---------------------------------------------------------------------------------------------- one record

#: what an outcome overrides, when it arrives after a record was changed by hand
_OUTCOME_KEYS = frozenset({
    "state", "started", "completed", "received", "engine_uuid", "engine_id", "stdout", "stderr", "result_buffers",
    "cached_from",
})  # fmt: skip

_FIELDS: dict[str, Any] = {
    "msg_id": lambda e: e.spec.id,
    "state": lambda e: state_of(e.done),
    "label": lambda e: e.spec.options.label if e.spec.options else None,
    "client_uuid": lambda e: e.client,
    "function_name": lambda e: e.function_name,
    "environment": lambda e: e.environment,
    "code_digest": lambda e: _key_of(e).code or None,
    "arguments_digest": lambda e: _key_of(e).arguments or None,
    "cached_from": lambda e: e.done.cached_from if e.done else None,
    "engine_uuid": lambda e: e.engine_uuid,
    "engine_id": lambda e: e.done.engine if e.done and e.done.engine >= 0 else None,
    "resubmitted": lambda e: None,
    "pinned": lambda e: False,
    "duration": lambda e: duration_of(e.done.started, e.done.completed) if e.done else None,
    "stdout": lambda e: e.done.stdout if e.done else "",
    "stderr": lambda e: e.done.stderr if e.done else "",
    "metadata": lambda e: dict(e.spec.options.metadata or {}) if e.spec.options else {},
    "header": lambda e: request_header(e.spec, e.client),
    "result_content": lambda e: None if e.done is None else result_content(e.done),
}

_SECONDS: dict[str, Any] = {
    "submitted": lambda e: e.spec.submitted,
    "started": lambda e: e.done.started if e.done else None,
    "completed": lambda e: e.done.completed if e.done else None,
    "received": lambda e: e.received,
}


_NO_KEY = CacheKey()


def _key_of(entry: Entry) -> CacheKey:
    options = entry.spec.options
    return (options and options.cache) or _NO_KEY


def _arguments_of(item: _Item | None) -> str:
    """What a record stands under in `_by_arguments`; "" if it does not."""
    if isinstance(item, Entry):
        return item.spec.options.cache.arguments if item.spec.options and item.spec.options.cache else ""
    if item is None:
        return ""
    if item.changes and "arguments_digest" in item.changes:
        return item.changes["arguments_digest"] or ""
    return _arguments_of(item.entry)


class _View(dict[str, Any]):
    """A record to be asked about: makes no more of the document than the question needs."""

    __slots__ = ("_item",)

    def __init__(self, item: _Item) -> None:
        super().__init__()
        self._item = item

    def get(self, key: str, default: Any = None) -> Any:
        return self[key]

    def __missing__(self, key: str) -> Any:
        item = self._item
        if isinstance(item, Entry) and key in _FIELDS:
            return _FIELDS[key](item)
        if isinstance(item, Entry) and key in TIMES:
            return instant(_SECONDS[key](item))
        self.update(_document(item))
        return self[key]

    @property
    def place(self) -> _Place:
        """Where it stands in the default order."""
        return _order_of(self._item)

    def seconds(self, key: str) -> tuple[bool, float]:
        """A time to sort by."""
        return _seconds(self._item, key)


def _seconds(item: _Item, key: str) -> tuple[bool, float]:
    if isinstance(item, Entry):
        value = _SECONDS[key](item)
    elif item.changes is not None and key in item.changes:
        moment = item.changes[key]
        value = None if moment is None else moment.timestamp()
    else:
        value = None if item.entry is None else _SECONDS[key](item.entry)
    return (value is not None, value or 0.0)


def _document(item: _Item) -> TaskRecord:
    if isinstance(item, Entry):
        return document(item)
    record = TaskRecord() if item.entry is None else document(item.entry)
    record.update(item.changes or {})
    (began, started), (ended, completed) = _seconds(item, "started"), _seconds(item, "completed")
    record["duration"] = completed - started if began and ended else None
    return record


def _order_of(item: _Item) -> _Place:
    if isinstance(item, Entry):
        return (True, item.spec.submitted, item.spec.id)
    return (*_seconds(item, "submitted"), _id_of(item))


def _id_of(item: _Item) -> TaskId:
    if isinstance(item, Entry):
        return item.spec.id
    if item.entry is not None:
        return item.entry.spec.id
    assert item.changes is not None
    return TaskId(item.changes["msg_id"])


def _is_finished(item: _Item) -> bool:
    return (item.done is not None) if isinstance(item, Entry) else _seconds(item, "completed")[0]


def _entry_of(item: _Item) -> Entry | None:
    return item if isinstance(item, Entry) else item.entry


def _settled(entry: Entry) -> Entry:
    """An entry that owns its frames: views of a message would keep all of the message alive."""
    if not entry.frames and not entry.result_frames:
        return entry
    return _with(
        entry,
        frames=tuple([bytes(f) for f in entry.frames]),
        result_frames=tuple([bytes(f) for f in entry.result_frames]),
    )


def _completed(old: Entry, new: Entry) -> Entry:
    """The request as it was first written, with news of its outcome."""
    name, environment = new.function_name or old.function_name, new.environment or old.environment
    return _with(new, spec=old.spec, client=old.client, frames=old.frames, function_name=name, environment=environment)


def _renumbered(entry: Entry) -> Entry:
    """An entry whose spec and outcome name its own frames, whatever message they came in."""
    spec, done = entry.spec, entry.done
    if spec.frames != (every := tuple(range(len(entry.frames)))):
        spec = msgspec.structs.replace(spec, frames=every)
    if done is not None and done.frames != (every := tuple(range(len(entry.result_frames)))):
        done = msgspec.structs.replace(done, frames=every)
    return _with(entry, spec=spec, done=done)


def _light(item: _Item) -> _Item:
    """A finished record without its buffers, but for the source of a cell."""
    whole = _document(item)
    entry = item if isinstance(item, Entry) else item.entry
    changes = dict((None if isinstance(item, Entry) else item.changes) or {})
    if entry is not None:
        spec, done = entry.spec, entry.done
        if spec.kind != "execute":
            spec = msgspec.structs.replace(spec, payload=b"", frames=())
        if done is not None:
            done = msgspec.structs.replace(done, payload=b"", frames=())
        entry = _with(entry, spec=spec, frames=(), done=done, result_frames=())
    changes["result_buffers"] = None
    changes["buffers"] = whole["buffers"] if entry is not None and entry.spec.kind == "execute" else None
    return _Kept(entry, changes)


_with = msgspec.structs.replace


def _size(item: _Item) -> int:
    """Bytes of a record's buffers."""
    if isinstance(item, Entry):
        size = len(item.spec.payload) + (0 if item.done is None else len(item.done.payload))
        if item.frames or item.result_frames:
            size += sum(map(len, item.frames)) + sum(map(len, item.result_frames))
        return size
    lists = [(item.changes or {}).get(key) or () for key in ("buffers", "result_buffers")]
    return (0 if item.entry is None else _size(item.entry)) + sum(len(b) for some in lists for b in some)
