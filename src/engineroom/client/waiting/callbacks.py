"""Runs done-callbacks of results, in a thread of their own: there they may wait for other results.

All callbacks of this process run in one thread, in the order in which their results became ready. The thread ends
when there is nothing to do for a while.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

log = logging.getLogger("concurrent.futures")  # which reports callbacks that fail, too

#: Seconds without work after which the thread ends.
IDLE_SECONDS = 1.0


class CallbackThread:
    """Calls callbacks in order."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Any, Callable[[Any], Any]]] = deque()
        self._changed = threading.Condition()
        self._is_running = False

    def run(self, future: Any, callbacks: Sequence[Callable[[Any], Any]]) -> None:
        """Have callbacks called with a future."""
        with self._changed:
            self._queue.extend((future, callback) for callback in callbacks)
            self._changed.notify()
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._work, name="engineroom-callbacks", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._queue, IDLE_SECONDS):
                    self._is_running = False
                    return
                future, callback = self._queue.popleft()
            try:
                callback(future)
            except BaseException:  # SystemExit too: the callbacks of other results are to be called
                log.exception("exception calling callback for %r", future)
            del future, callback  # else the last ones would live as long as this thread


_thread = CallbackThread()


def run_callbacks(future: Any, callbacks: Sequence[Callable[[Any], Any]]) -> None:
    """Have the callbacks of a future called soon."""
    _thread.run(future, callbacks)


def _in_child() -> None:
    global _thread
    _thread = CallbackThread()


os.register_at_fork(after_in_child=_in_child)
