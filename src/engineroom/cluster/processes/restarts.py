"""Whether a process of a cluster that ended is started again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

#: A process that lived shorter than this (seconds), this many times in a row, is not started again.
SHORT_LIFE, SHORT_LIVES = 2.0, 5


class Restarts:
    """Shared by the controller and the engine sets of one cluster.

    Parameters
    ----------
    done : callable
        Called after a process was started again.
    """

    def __init__(self, done: Callable[[], None]) -> None:
        #: held while a process is started again, and taken by the cluster before it stops
        self.lock = threading.Lock()
        #: False while the cluster stops
        self.allowed = False
        self.done = done

    def again(self, what: str, limit: RestartLimit, start: Callable[[], None], log_file: Path) -> bool:
        """A process has ended that should not have: start it again, or tell the user why not. True: it was started."""
        if not limit.on_end():
            why = f"it has ended {SHORT_LIVES} times in a row within {SHORT_LIFE:g} s. Its log is {log_file}"
            log.error("%s is not started again: %s", what, why)
            return False
        try:
            start()
        except Exception as error:
            log.error("%s has ended, and cannot be started again: %s: %s", what, type(error).__name__, error)
            return False
        self.done()
        return True

    def refuse(self) -> None:
        """The cluster is being stopped. Returns when no process is just being started again."""
        with self.lock:
            self.allowed = False


class RestartLimit:
    """Counts how many times in a row a process ended soon after its start."""

    def __init__(self) -> None:
        self._started = 0.0
        self._short_lives = 0

    def on_start(self) -> None:
        """The process is being started."""
        self._started = time.monotonic()

    def on_end(self) -> bool:
        """The process ended; returns whether it may be started again."""
        is_short = time.monotonic() - self._started < SHORT_LIFE
        self._short_lives = self._short_lives + 1 if is_short else 0
        return self._short_lives < SHORT_LIVES
