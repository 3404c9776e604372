"""Writes entries, also when the store cannot hold one of them: that one is found, and the others are written.

Values are bounded where messages are decoded, so this should not be needed. Without it, one record that no database
can hold would keep everybody's tasks waiting for ever.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from ...errors import StoreError, StoreRefused
from ...ids import Digest
from ...messages import ErrorInfo, TaskDone, TaskSpec
from ...records.entry import Entry
from ...stores import TaskStore

T = TypeVar("T")

log = logging.getLogger(__name__)


def write(store: TaskStore, entries: Sequence[Entry]) -> list[tuple[Entry, StoreRefused]]:
    """Write entries; returns those that the store cannot hold. A failed record is written in place of each.

    Raises
    ------
    Exception
        The store takes nothing at present, or there is a bug in it: no entry is to blame.
    """
    try:
        store.write(entries)
        return []
    except Exception as error:
        if isinstance(error, StoreError) and not isinstance(error, StoreRefused):
            raise
        if len(entries) > 1:
            middle = len(entries) // 2
            return [*write(store, entries[:middle]), *write(store, entries[middle:])]
        [entry] = entries
        refused = StoreRefused(f"the task database cannot hold the record of this task: {error}")
        store.write([_stand_in(entry, refused)])  # if this fails, too, the entry is not to blame
        log.error("task %.200r: %s", entry.spec.id, refused)
        return [(entry, refused)]


def each(add: Callable[[Sequence[T]], None], items: Sequence[T]) -> None:
    """Add functions or environments. One that the store cannot hold is left out: tasks that need it end with an error.

    Raises
    ------
    Exception
        The store takes nothing at present.
    """
    try:
        add(items)
    except Exception as error:
        if isinstance(error, StoreError) and not isinstance(error, StoreRefused):
            raise
        if len(items) == 1:
            log.error("the task database cannot hold %.200r: %s", items[0], error)
            return
        for item in items:
            each(add, [item])


def _stand_in(entry: Entry, error: StoreRefused) -> Entry:
    """A failed record of the same task, in which nothing can be wrong but its ids."""
    moment = entry.spec.submitted if math.isfinite(entry.spec.submitted) else 0.0
    moment = min(max(moment, 0.0), 253e9)
    spec = TaskSpec(entry.spec.id, Digest(b""), b"", moment)
    info = ErrorInfo(type(error).__name__, str(error), stopped=True)
    return Entry(spec, entry.client, done=TaskDone(spec.id, 1, "error", None, moment, error=info))
