"""What must happen before this process ends: a channel hands over the tasks that were submitted last.

A program may submit its last tasks and end. Its I/O threads would end with it, wherever they are.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable


class AtProcessEnd:
    """Has a function called when this process ends, unless `forget` comes first."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._cancel: Callable[[], object] | None = None
        atexit.register(call)  # the last one registered is called first: before the cluster is stopped
        # A worker of multiprocessing that was forked ends without that, but has a list of its own.
        util = sys.modules.get("multiprocessing.util")
        if util is not None and sys.modules["multiprocessing.process"].parent_process() is not None:
            self._cancel = util.Finalize(None, call, exitpriority=0).cancel

    def forget(self) -> None:
        """It has happened."""
        atexit.unregister(self._call)
        if self._cancel is not None:
            self._cancel()


def was_interrupted() -> bool:
    """Whether Ctrl-C has ended the program."""
    last = getattr(sys, "last_type", None)
    return last is not None and issubclass(last, KeyboardInterrupt)
