"""One record as DictDB keeps it, and what is asked of it.

An entry is kept as it was written, for as long as nobody changes the record by hand. A document is made of it when
somebody asks.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...ids import Digest, TaskId
from ...messages import CacheKey
from ...records.record import (
    TIMES,
    Entry,
    TaskRecord,
    as_digest,
    document,
    duration_of,
    instant,
    request_header,
    result_content,
    state_of,
)


class Kept(msgspec.Struct):
    """What is kept of one record: the entry, or a document, or an entry and what was changed of it since."""

    entry: Entry | None
    changes: dict[str, Any] | None = None


#: a plain task is kept as its entry alone
Item = Entry | Kept
#: what `order_key` makes
Place = tuple[bool, float, str]


#: what an outcome overrides, when it arrives after a record was changed by hand
OUTCOME_KEYS = frozenset({
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


def arguments_of(item: Item | None) -> str:
    """What a record stands under in `_by_arguments`; "" if it does not."""
    if isinstance(item, Entry):
        return item.spec.options.cache.arguments if item.spec.options and item.spec.options.cache else ""
    if item is None:
        return ""
    if item.changes and "arguments_digest" in item.changes:
        return item.changes["arguments_digest"] or ""
    return arguments_of(item.entry)


class View(dict[str, Any]):
    """A record to be asked about: makes no more of the document than the question needs."""

    __slots__ = ("_item",)

    def __init__(self, item: Item) -> None:
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
        self.update(record_of(item))
        return self[key]

    @property
    def place(self) -> Place:
        """Where it stands in the default order."""
        return order_of(self._item)

    def seconds(self, key: str) -> tuple[bool, float]:
        """A time to sort by."""
        return _seconds(self._item, key)


def _seconds(item: Item, key: str) -> tuple[bool, float]:
    if isinstance(item, Entry):
        value = _SECONDS[key](item)
    elif item.changes is not None and key in item.changes:
        moment = item.changes[key]
        value = None if moment is None else moment.timestamp()
    else:
        value = None if item.entry is None else _SECONDS[key](item.entry)
    return (value is not None, value or 0.0)


def record_of(item: Item) -> TaskRecord:
    if isinstance(item, Entry):
        return document(item)
    record = TaskRecord() if item.entry is None else document(item.entry)
    record.update(item.changes or {})
    (began, started), (ended, completed) = _seconds(item, "started"), _seconds(item, "completed")
    record["duration"] = completed - started if began and ended else None
    return record


def order_of(item: Item) -> Place:
    if isinstance(item, Entry):
        return (True, item.spec.submitted, item.spec.id)
    return (*_seconds(item, "submitted"), id_of(item))


def id_of(item: Item) -> TaskId:
    if isinstance(item, Entry):
        return item.spec.id
    if item.entry is not None:
        return item.entry.spec.id
    assert item.changes is not None
    return TaskId(item.changes["msg_id"])


def is_finished(item: Item) -> bool:
    return (item.done is not None) if isinstance(item, Entry) else _seconds(item, "completed")[0]


def entry_of(item: Item) -> Entry | None:
    return item if isinstance(item, Entry) else item.entry


def function_of(item: Item) -> Digest | None:
    if isinstance(item, Entry):
        return item.spec.function
    if item.changes and "function" in item.changes:
        return as_digest(item.changes["function"])
    return None if item.entry is None else item.entry.spec.function


def settled(entry: Entry) -> Entry:
    """An entry that owns its frames: views of a message would keep all of the message alive."""
    if not entry.frames and not entry.result_frames:
        return entry
    return _with(
        entry,
        frames=tuple([bytes(f) for f in entry.frames]),
        result_frames=tuple([bytes(f) for f in entry.result_frames]),
    )


def completed(old: Entry, new: Entry) -> Entry:
    """The request as it was first written, with news of its outcome."""
    name, environment = new.function_name or old.function_name, new.environment or old.environment
    return _with(new, spec=old.spec, client=old.client, frames=old.frames, function_name=name, environment=environment)


def renumbered(entry: Entry) -> Entry:
    """An entry whose spec and outcome name its own frames, whatever message they came in."""
    spec, done = entry.spec, entry.done
    if spec.frames != (every := tuple(range(len(entry.frames)))):
        spec = msgspec.structs.replace(spec, frames=every)
    if done is not None and done.frames != (every := tuple(range(len(entry.result_frames)))):
        done = msgspec.structs.replace(done, frames=every)
    return _with(entry, spec=spec, done=done)


def lightened(item: Item) -> Item:
    """A finished record without its buffers, but for the source of a cell."""
    whole = record_of(item)
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
    return Kept(entry, changes)


_with = msgspec.structs.replace


def size_of(item: Item) -> int:
    """Bytes of a record's buffers."""
    if isinstance(item, Entry):
        size = len(item.spec.payload) + (0 if item.done is None else len(item.done.payload))
        if item.frames or item.result_frames:
            size += sum(map(len, item.frames)) + sum(map(len, item.result_frames))
        return size
    lists = [(item.changes or {}).get(key) or () for key in ("buffers", "result_buffers")]
    return (0 if item.entry is None else size_of(item.entry)) + sum(len(b) for some in lists for b in some)
