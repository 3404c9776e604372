"""Keeps the database within its limits, in the writer's thread between commits; watches the disk.

Long changes that clients ask for (purges, pins) are made here too, in pieces. While tasks are being recorded, a pause
nine times as long follows each piece of work, and one as long as the piece if a client waits: the tasks come first.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from ...config import RetentionSettings
from ...errors import StoreError, StoreFull
from ...stores import TaskStore
from ...stores.base import References
from ...stores.maintenance.references import find_unreferenced
from ...stores.maintenance.retention import GIVE_BYTES, SPARE_BYTES, Retention

log = logging.getLogger(__name__)

#: The pause after a piece of work is so many times as long as the work, while the writer has other work.
PAUSE_FACTOR = 9.0
#: The same factor if a client waits for the work.
PAUSE_FACTOR_OF_CHANGES = 1.0
#: Small pieces of it are done together, for about so many seconds.
TOGETHER = 0.02
#: The shortest pause after a piece of work, in seconds.
LEAST_PAUSE = 0.001
#: With so much more room than is needed, the bytes that wait to be written are not counted.
PLENTY = 16 << 30
#: … and how much there is is asked for once in so many seconds.
ROOM_SECONDS = 0.2
#: Copies of a byte on the disk at a time: one in the log, one in the database file.
COPIES_ON_DISK = 2

#: Told what a scan has found: content that no record refers to; or, once it is over, the seconds it took, or None if
#: the store failed.
OnScan = Callable[[References | float | None], None]


class Housekeeping:
    """Retention, space given back, and scans for content that no record refers to."""

    def __init__(self, store: TaskStore, settings: RetentionSettings) -> None:
        self._store, self._settings = store, settings
        #: a scan under way, who is told, and the seconds of work so far
        self._scan: tuple[Iterator[References | None], OnScan] | None = None
        self._scanned = 0.0
        self._retention = Retention(store, settings)
        self._work: Iterator[int] | None = None
        self._dropped = 0
        self._next_look = 0.0
        self._freeing_space = False
        #: changes that clients wait for: their pieces, the future of the whole, how many records changed so far
        self._changes: deque[tuple[Iterator[int], Future[int], list[int]]] = deque()
        self._is_new = store.durable  # an earlier life may have left unused space
        self._due = 0.0
        self._low = False
        #: how much room there was, and until when that is good enough
        self._room_then: int | None = None
        self._room_until = 0.0

    # ------------------------------------------------------------------------------------------ from any thread

    def refusal(self, size: int = 0, waiting: Callable[[], int] | None = None) -> StoreFull | None:
        """Why there is no room for a new task with so many bytes; None: there is.

        `waiting` counts the bytes that wait to be written.
        """
        room = self._room()
        least = self._settings.min_free
        if room is not None and waiting is not None and room < least + PLENTY:
            size = COPIES_ON_DISK * (size + waiting())
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

    def _room(self) -> int | None:
        """Bytes that are free for the store. Asked for again after a moment; every time, once there is not plenty."""
        now = time.monotonic()
        if now >= self._room_until:
            self._room_then = room = self._store.room()
            is_plenty = room is None or room >= self._settings.min_free + PLENTY
            self._room_until = now + ROOM_SECONDS if is_plenty else now
        return self._room_then

    def rescan(self) -> None:
        """Records are no longer pinned: retention looks at all of them again."""
        self._retention.rescan()

    def shrink(self) -> None:
        """Records have been purged: give back the space they took. Called in the writer's thread."""
        self._freeing_space = True
        self._due = 0.0

    # ------------------------------------------------------------------------------------------ the writer's thread

    def until_due(self) -> float | None:
        """Seconds until there is something to do; None: nothing, ever."""
        if self._changes:
            return max(0.0, self._due - time.monotonic())
        if not self._store.keeps:
            return None
        if self._is_new or self._freeing_space or self._settings.drops or self._scan is not None:
            return max(0.0, self._due - time.monotonic())
        return None

    def scan(self, store: TaskStore, on_scan: OnScan) -> None:
        """Begin to look for content that no record refers to."""
        self._scan, self._scanned, self._due = (find_unreferenced(store), on_scan), 0.0, 0.0

    def change(self, pieces: Iterator[int], done: Future[int]) -> None:
        """Make a change in pieces, each of which gives how many records it changed; `done` gets the number of all."""
        self._changes.append((pieces, done, [0]))
        self._due = 0.0

    def stop(self, error: StoreError) -> None:
        """The writer ends: changes that are not complete get this error."""
        while self._changes:
            pieces, done, _ = self._changes.popleft()
            pieces.close()  # type: ignore[attr-defined]
            done.set_exception(error)

    def turn(self, busy: bool) -> None:
        """Do one piece of what is due."""
        began = time.monotonic()
        if began < self._due:
            return
        if self._changes:
            self._go_on_changing(*self._changes[0])
            took = time.monotonic() - began
            self._due = time.monotonic() + max(took * (PAUSE_FACTOR_OF_CHANGES if busy else 0.0), LEAST_PAUSE)
            return
        try:
            more = self._piece()
        except Exception as error:
            # The writer notices, too, when the store fails.
            log.warning("the database could not be tidied up: %s", error, exc_info=not isinstance(error, StoreError))
            self._work, more = None, False
            self._end_scan(None)
        took = time.monotonic() - began
        if more:
            self._due = time.monotonic() + max(took * (PAUSE_FACTOR if busy else 0.2), LEAST_PAUSE)
        else:
            self._due = max(self._next_look, time.monotonic() + self._settings.interval / 10)

    def _go_on_changing(self, pieces: Iterator[int], done: Future[int], changed: list[int]) -> None:
        began = time.monotonic()
        try:
            while number := next(pieces):
                changed[0] += number
                if time.monotonic() - began > TOGETHER:
                    break
        except StopIteration:
            self._changes.popleft()
            done.set_result(changed[0])
        except Exception as error:
            self._changes.popleft()
            done.set_exception(error)
        else:
            room = self._store.room()
            if room is not None and room < 2 * self._settings.min_free:
                self._store.give_back(GIVE_BYTES)

    def _piece(self) -> bool:
        """Whether there is more to do."""
        if self._is_new:
            self._is_new = False
            self._shrink()
        if self._freeing_space:
            self._freeing_space = self._store.give_back(GIVE_BYTES) > 0
            return True
        if self._scan is not None:
            return self._scan_on(*self._scan)
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
        return self._freeing_space

    def _shrink(self) -> None:
        usage = self._store.usage()
        self._freeing_space = usage.unused > max(SPARE_BYTES, usage.used // 10)

    def _scan_on(self, pieces: Iterator[References | None], on_scan: OnScan) -> bool:
        began = time.monotonic()
        try:
            unused = next(pieces)
        except StopIteration:
            self._end_scan(self._scanned)
            self._shrink()
            return True
        if unused:
            on_scan(unused)
        self._scanned += time.monotonic() - began
        return True

    def _end_scan(self, seconds: float | None) -> None:
        if self._scan is not None:
            (_, on_scan), self._scan = self._scan, None
            on_scan(seconds)


def _mb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"
