"""One record in DictDB, and functions that answer questions about it.

A record is kept as the entry that was written, until a user changes the record. A document is made from the entry only
when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ...ids import Digest, TaskId
from ...records.entry import Entry, as_digest, cache_key
from ...records.fields import FIELDS
from ...records.record import TaskRecord, document
from ...shared_memory.buffer import key_of


class Kept(msgspec.Struct):
    """A record that a user has added (`changes` alone), or an entry with the changes that users have made."""

    entry: Entry | None
    changes: dict[str, Any] | None = None


#: a record that no user has changed is kept as its entry alone
Item = Entry | Kept
#: a place in the default order, as `order_key` makes it
Place = tuple[bool, float, str]


#: Keys that an outcome overrides when it arrives after somebody has changed the record. Those that are derived keep
#: what they were changed to, as in SQLite.
OUTCOME_KEYS = frozenset(field.name for field in FIELDS if field.outcome and field.place != "derived")

#: key → its value in the record of a task; and of a time in seconds
_VALUES = {field.name: field.value for field in FIELDS}
_SECONDS = {field.name: field.seconds for field in FIELDS if field.seconds}


def arguments_of(item: Item | None) -> str:
    """The digest of a record's arguments, under which equal calls find it; "" if there is none."""
    if isinstance(item, Entry):
        return cache_key(item.spec).arguments
    if item is None:
        return ""
    if item.changes and "arguments_digest" in item.changes:
        return item.changes["arguments_digest"] or ""
    return arguments_of(item.entry)


class View(dict[str, Any]):
    """A record for queries: a dict that makes the value of a key when it is read."""

    __slots__ = ("_item",)

    def __init__(self, item: Item) -> None:
        super().__init__()
        self._item = item

    def get(self, key: str, default: Any = None) -> Any:
        return self[key]

    def __missing__(self, key: str) -> Any:
        item = self._item
        if isinstance(item, Entry):
            return _VALUES[key](item)
        self.update(record_of(item))
        return self[key]

    @property
    def place(self) -> Place:
        """Its place in the default order."""
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


class Copies:
    """Copies of large buffers. Tasks that share a buffer share its copy, if they are written soon after each other."""

    def __init__(self) -> None:
        #: `key_of` the buffer → (the buffer, its copy): of this group of entries, and of the one before
        self._now: dict[Any, tuple[Any, bytes]] = {}
        self._before: dict[Any, tuple[Any, bytes]] = {}

    def next_group(self) -> None:
        """Another group begins."""
        self._before, self._now = self._now, {}

    def of(self, frames: Sequence[Any]) -> tuple[bytes, ...]:
        """Copies of buffers."""
        return tuple([frame if type(frame) is bytes else self._copy(frame) for frame in frames])

    def _copy(self, frame: Any) -> bytes:
        key = key_of(frame)
        known = self._now.get(key) or self._before.get(key)
        if known is None:
            known = frame, bytes(frame)
        self._now[key] = known
        return known[1]


def settled(entry: Entry, copies: Copies) -> Entry:
    """The entry with copies of its frames: views of a message would keep the whole message in memory."""
    if not entry.frames and not entry.result_frames:
        return entry
    return _with(entry, frames=copies.of(entry.frames), result_frames=copies.of(entry.result_frames))


def completed(old: Entry, new: Entry) -> Entry:
    """The old entry's request with the new entry's outcome."""
    name, environment = new.function_name or old.function_name, new.environment or old.environment
    return _with(new, spec=old.spec, client=old.client, frames=old.frames, function_name=name, environment=environment)


def renumbered(entry: Entry) -> Entry:
    """The entry with its frames numbered from 0, instead of by their places in the message they came in."""
    spec, done = entry.spec, entry.done
    if spec.frames != (every := tuple(range(len(entry.frames)))):
        spec = msgspec.structs.replace(spec, frames=every)
    if done is not None and done.frames != (every := tuple(range(len(entry.result_frames)))):
        done = msgspec.structs.replace(done, frames=every)
    return _with(entry, spec=spec, done=done)


def lightened(item: Item) -> Item:
    """A finished record without its buffers; a cell keeps its source."""
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


class Total:
    """Bytes of the buffers of many records. A buffer that several of them share counts once."""

    def __init__(self) -> None:
        self.bytes = 0
        #: id of a buffer → how many records have it
        self._uses: dict[int, int] = {}

    def add(self, item: Item) -> None:
        """A record has come."""
        self._change(item, 1)

    def remove(self, item: Item) -> None:
        """A record has gone."""
        self._change(item, -1)

    def _change(self, item: Item, step: int) -> None:
        entry = entry_of(item)
        if entry is None or not (entry.frames or entry.result_frames):
            self.bytes += step * size_of(item)
            return
        frames = (*entry.frames, *entry.result_frames)
        self.bytes += step * (size_of(item) - sum(map(len, frames)))
        for frame in frames:
            uses = self._uses.get(id(frame), 0)
            if uses + step:
                self._uses[id(frame)] = uses + step
            else:
                del self._uses[id(frame)]
            if not uses or not uses + step:
                self.bytes += step * len(frame)


def size_of(item: Item) -> int:
    """Bytes of a record's buffers, also of those that others share."""
    if isinstance(item, Entry):
        size = len(item.spec.payload) + (0 if item.done is None else len(item.done.payload))
        if item.frames or item.result_frames:
            size += sum(map(len, item.frames)) + sum(map(len, item.result_frames))
        return size
    lists = [(item.changes or {}).get(key) or () for key in ("buffers", "result_buffers")]
    return (0 if item.entry is None else size_of(item.entry)) + sum(len(b) for some in lists for b in some)
