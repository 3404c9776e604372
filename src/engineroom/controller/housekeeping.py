"""Keeps the database within its limits, between the commits of the writer's thread; watches the disk.

A piece of work is followed by a pause nine times as long while tasks are being recorded: they come first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from ..config import RetentionSettings
from ..errors import StoreError, StoreFull
from ..stores import TaskStore
from ..stores.base import References
from ..stores.maintenance.references import find_unreferenced
from ..stores.maintenance.retention import GIVE_BYTES, SPARE_BYTES, Retention

log = logging.getLogger(__name__)

#: How much longer than a piece of work the pause after it is, while the writer has other work.
PAUSE = 9.0
#: With so much more room than is needed, nobody counts what is on its way.
PLENTY = 16 << 30
#: How often a byte is on the disk at a time: in the log, and in the file into which that is copied.
TIMES = 2
#: How much longer than a look for what no record refers to the time after it is, in which there is none.
REST = 100.0


class Judge(Protocol):
    """Who knows whether what no record refers to is wanted all the same (`collector.py`)."""

    def ask(self) -> None:
        """A look is due: `look` is to be called."""

    def tell(self, unused: References) -> None:
        """A look has found these."""

    def end(self) -> None:
        """It is over."""


class Housekeeping:
    """What is to be done with a database beside writing to it."""

    def __init__(self, store: TaskStore, settings: RetentionSettings, judge: Judge | None = None) -> None:
        self._store, self._settings, self._judge = store, settings, judge
        #: a look under way, what it has taken so far, and how many records had been dropped when it was asked for
        self._look: Iterator[References | None] | None = None
        self._looked, self._looked_at = 0.0, 0
        self._rest_until = 0.0
        self._retention = Retention(store, settings)
        self._work: Iterator[int] | None = None
        self._dropped = 0
        self._next_look = 0.0
        self._giving = False
        self._due = 0.0
        self._low = False

    # ------------------------------------------------------------------------------------------ from any thread

    def refusal(self, size: int = 0, waiting: Callable[[], int] | None = None) -> StoreFull | None:
        """Why a new task with so many bytes has no room; None: it has. `waiting`: bytes on their way to the store."""
        room = self._store.room()
        least = self._settings.min_free
        if room is not None and waiting is not None and room < least + PLENTY:
            size = TIMES * (size + waiting())
        if room is None or room - size >= least * (1.1 if self._low else 1.0):
            if self._low and not size:
                self._low = False
                log.warning("there is room for new tasks again: %s free", _mb(room or 0))
            return None
        if not self._low and not size:
            self._low = True
            log.error("new tasks are refused: %s free for %s, min_free is %s", _mb(room), self._store.url, _mb(least))
        return StoreFull(
            f"there is no room for new tasks: {_mb(room)} are free for {self._store.url}"
            + (f", this would take {_mb(size)} with what waits to be written" if size else "")
            + f", and {_mb(least)} are kept for results (min_free). Free some space, or purge records."
        )

    def look_anew(self) -> None:
        """Records have been let loose."""
        self._retention.rescan()

    def shrink(self) -> None:
        """Records have been purged: give back what they took. Called in the writer's thread."""
        self._giving = True
        self._due = 0.0

    # ------------------------------------------------------------------------------------------ the writer's thread

    def until_due(self) -> float | None:
        """Seconds until there is something to do; None: nothing, ever."""
        if not self._store.keeps:
            return None
        if self._giving or self._settings.drops or self._look is not None:
            return max(0.0, self._due - time.monotonic())
        if self._has_leftovers:
            return max(0.0, self._due - time.monotonic(), self._rest_until - time.monotonic())
        return None

    @property
    def _has_leftovers(self) -> bool:
        """Whether records have been dropped since the last look for what they alone referred to."""
        return self._judge is not None and self._store.dropped != self._looked_at

    def look(self, store: TaskStore) -> None:
        """Begin to look for what no record refers to."""
        self._look, self._looked, self._due = find_unreferenced(store), 0.0, 0.0

    def turn(self, busy: bool) -> None:
        """Do one piece of what is due."""
        began = time.monotonic()
        if began < self._due:
            return
        try:
            more = self._piece()
        except StoreError as error:  # the writer says so too, when it fails
            log.warning("the database could not be tidied up: %s", error)
            self._work, more = None, False
            self._end_look()
        took = time.monotonic() - began
        if more:
            self._due = time.monotonic() + took * (PAUSE if busy else 0.2)
        else:
            self._due = max(self._next_look, time.monotonic() + self._settings.interval / 10)

    def _piece(self) -> bool:
        """Whether there is more to do."""
        if self._giving:
            self._giving = self._store.give_back(GIVE_BYTES) > 0
            return True
        if self._look is not None:
            return self._look_on()
        if self._work is None and self._has_leftovers and self._judge and time.monotonic() >= self._rest_until:
            self._looked_at = self._store.dropped
            self._judge.ask()
        if not self._settings.drops:
            return False
        if self._work is None:
            if time.monotonic() < self._next_look:
                return False
            self._next_look = time.monotonic() + self._settings.interval
            self._work, self._dropped = self._retention.apply(time.time()), 0
        number = next(self._work, None)
        if number is not None:
            self._dropped += number
            return True
        self._work = None
        if self._dropped:
            log.info("retention: %d records dropped or made lighter", self._dropped)
            self._shrink()
        return self._giving

    def _shrink(self) -> None:
        usage = self._store.usage()
        self._giving = usage.unused > max(SPARE_BYTES, usage.used // 10)

    def _look_on(self) -> bool:
        began = time.monotonic()
        assert self._look is not None
        for unused in self._look:
            if unused and self._judge is not None:
                self._judge.tell(unused)
            break
        else:
            self._end_look()
            self._shrink()
        self._looked += time.monotonic() - began
        return True

    def _end_look(self) -> None:
        if self._look is not None and self._judge is not None:
            self._look = None
            self._rest_until = time.monotonic() + max(self._settings.interval, REST * self._looked)
            self._judge.end()


def _mb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"
