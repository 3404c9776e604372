"""What the store knows of tasks, also where some of their records are damaged."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import StoreDamaged
from ..ids import TaskId
from ..records.entry import Entry
from ..stores import TaskStore


def readable_entries(store: TaskStore, ids: Sequence[TaskId]) -> tuple[dict[TaskId, Entry], dict[TaskId, str]]:
    """What is known of these tasks, and of those that cannot be read what is wrong with them."""
    try:
        return store.entries(ids), {}
    except StoreDamaged:
        found: dict[TaskId, Entry] = {}
        damaged: dict[TaskId, str] = {}
        for id in ids:
            try:
                found |= store.entries([id])
            except StoreDamaged as error:
                damaged[id] = str(error)
        return found, damaged
