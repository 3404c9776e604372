"""The thread that looks at a loop, and writes to the log what it sees."""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from .judge import Judge

log = logging.getLogger(__name__)

#: A loop that has not turned for so many seconds hangs: at rest it turns every second.
HANG_SECONDS = 10.0
#: How often a Watchdog looks, as a part of that.
LOOKS = 4


def to_log(text: str, is_hanging: bool) -> None:
    """Write to the log of this process what a Watchdog has seen."""
    log.log(logging.ERROR if is_hanging else logging.WARNING, "%s", text)


class Watchdog:
    """A thread that looks at the loop of the thread that makes this, as long as the `with` block lasts.

    Parameters
    ----------
    what : str
        What the loop is called in the log.
    turns : callable
        How often it has turned; 0: at present it need not turn.
    limit : float
        Seconds without a turn after which it hangs.
    alarm : bool
        Also have a thread of C print what each thread does where none of Python can run for so long: code in C holds
        the interpreter's lock. There is one such alarm in a process (`faulthandler`).
    say : callable
        Is called, in a thread of its own, with a text and True when the loop hangs, and with False when it goes on.
    """

    def __init__(
        self,
        what: str,
        turns: Callable[[], int],
        limit: float = HANG_SECONDS,
        *,
        alarm: bool = False,
        say: Callable[[str, bool], None] = to_log,
    ) -> None:
        self._what, self._turns, self._limit, self._alarm, self._say = what, turns, limit, alarm, say
        self._judge = Judge(limit)
        self._watched = threading.get_ident()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        if self._alarm:
            faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        while not self._end.wait(self._limit / LOOKS):
            if self._alarm:
                faulthandler.dump_traceback_later(self._limit)
            seconds = self._judge.look(self._turns(), time.monotonic())
            if seconds is None:
                continue
            if self._judge.is_hanging:
                where = _where(sys._current_frames().get(self._watched))
                self._say(f"{self._what} has not turned for {seconds:.0f} s: it is in {where}\n{stacks()}", True)
            else:
                self._say(f"{self._what} turns again, after {seconds:.0f} s", False)


def stacks() -> str:
    """What each thread of this process does, as text."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = []
    for number, frame in sys._current_frames().items():
        if number != threading.get_ident():
            found.append(f"thread {names.get(number, number)}:\n{''.join(traceback.format_stack(frame))}")
    return "".join(found)


def _where(frame: FrameType | None) -> str:
    """The innermost function of a thread."""
    if frame is None:
        return "no function: its thread has ended"
    code = frame.f_code
    return f"{code.co_qualname} ({code.co_filename}, line {frame.f_lineno})"
