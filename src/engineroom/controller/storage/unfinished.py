"""What an earlier life of the controller left unfinished, read from the store when the controller starts.

Arguments that would take too much memory stay in the store. They are read again before their tasks are sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from ...ids import Digest, TaskId
from ...messages import Function
from ...records.entry import Entry
from ...stores import TaskStore
from .store_reader import readable_functions


class Unfinished(msgspec.Struct):
    """The unfinished tasks of a database."""

    entries: list[Entry]
    functions: list[Function]
    #: functions that cannot be read, and why
    missing: Mapping[Digest, str]
    #: tasks whose large arguments (frames) were left in the store
    large: list[TaskId]
    #: tasks whose small arguments were left in the store
    small: set[TaskId]


def read_unfinished(store: TaskStore, takes: Callable[[int], bool]) -> Unfinished:
    """Read them. `takes`: whether small arguments of so many bytes are taken into memory; asked once for each task."""
    entries: list[Entry] = []
    large: list[TaskId] = []
    small: set[TaskId] = set()
    for entry in store.unfinished():
        if entry.frames:
            entry = msgspec.structs.replace(entry, frames=())
            large.append(entry.id)
        if not takes(len(entry.spec.payload)):
            entry = msgspec.structs.replace(entry, spec=msgspec.structs.replace(entry.spec, payload=b""))
            small.add(entry.id)
        entries.append(entry)
    digests = dict.fromkeys(entry.spec.function for entry in entries if entry.spec.function)
    functions, missing = readable_functions(store, digests)
    return Unfinished(entries, functions, missing, large, small.difference(large))
