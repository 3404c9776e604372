"""What commands share that go on until they are stopped: how they wait, and the screen of a terminal with its keys."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import time
from collections.abc import Iterator
from typing import Any

#: One key: an arrow key, say, comes as a sequence that begins with Escape.
_KEY = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.S)


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


class Screen:
    """The alternate screen of the terminal. Lines are overwritten and not cleared first, so nothing flickers."""

    def __init__(self, keys: bool) -> None:
        self._keys = keys
        #: keys that were pressed, and not asked for yet
        self._typed = ""

    def draw(self, lines: list[str]) -> None:
        """Show these lines, and nothing else."""
        sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
        sys.stdout.flush()

    def key_within(self, seconds: float) -> str | None:
        """Wait; the key that was pressed, "" if the input has ended, None if no key was pressed."""
        if not self._keys:
            time.sleep(seconds)
            return None
        if not self._typed:
            if not select.select([sys.stdin], [], [], seconds)[0]:
                return None
            self._typed = os.read(sys.stdin.fileno(), 64).decode(errors="replace")
        found = _KEY.match(self._typed)
        key = found[0] if found else ""
        self._typed = self._typed[len(key) :]
        return key


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """The alternate screen without a cursor, which cuts long lines; at the end the terminal is restored."""
    keys = sys.stdin.isatty()
    before: list[Any] | None = None
    if keys:
        import termios
        import tty

        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
    sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[?7l")
    try:
        yield Screen(keys)
    finally:
        sys.stdout.write("\x1b[?7h\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        if before is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
