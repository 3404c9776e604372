"""Makes a database smaller that no controller uses: purges it, drops what no record refers to, gives space back.

All of it is done in pieces, needs little room on the disk, and may be interrupted and begun again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..base import QueryDict, TaskStore
from .references import find_unreferenced
from .retention import GIVE_BYTES

#: Told what is being done, how much of it is done, and of how much.
Progress = Callable[[str, int, int], None]

#: Seconds to wait for somebody who reads the database.
WAIT = 0.05


def purge(store: TaskStore, query: QueryDict, expected: int, progress: Progress) -> int:
    """Drop the records that match, and all space that they took; returns how many records."""
    dropped = 0
    for number in store.drop_in_pieces(query):
        dropped += number
        progress("records", dropped, max(expected, dropped))
        if not number:
            time.sleep(WAIT)
    compact(store, progress)
    return dropped


def compact(store: TaskStore, progress: Progress) -> int:
    """Drop what no record refers to, and return all unused space to the system.

    Returns how many functions were dropped. Nobody else may write to the store meanwhile.
    """
    functions = 0
    for unused in find_unreferenced(store):
        progress("references", 0, 0)
        if unused:
            functions += store.drop_references(unused)
    total = left = store.usage().unused
    while more := store.give_back(GIVE_BYTES):
        if more >= left:
            time.sleep(WAIT)  # a reader needs the write-ahead log
        left = more
        progress("space", max(0, total - left), total)
    return functions
