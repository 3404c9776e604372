"""What commands share that go on until they are stopped: they wait, and notice that nobody reads any more."""

from __future__ import annotations

import os
import select
import sys
import time


def pause(seconds: float) -> None:
    """Wait, as long as somebody reads what is printed.

    Raises
    ------
    BrokenPipeError
        The reader of a pipe has ended: `engineroom watch | head`. Without this, the command would notice when it prints
        the next time, which may be never.
    """
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file, in a test say
        time.sleep(seconds)
        return
    poll = select.poll()
    poll.register(output, 0)  # errors and a reader that is gone are told in any case
    if sys.stdout.isatty():
        poll.unregister(output)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(1000 * left):
            os.dup2(os.open(os.devnull, os.O_WRONLY), output)
            raise BrokenPipeError
