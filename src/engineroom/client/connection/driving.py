"""Which thread drives a client's connection: sends, receives, and hands outcomes to results.

It is the I/O thread, but for two cases in which waking it would cost more than the work. While it sleeps, a thread that
submits the only task sends it, and a thread that waits for a result takes its place until the result is there. One lock
says who drives. What is to be done is the channel's matter (`Driven`).

Ctrl-C, and other signals that the program handles, are held back while the main thread drives: they end its wait, and
cut nothing off in the middle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from ...system.held_signals import HeldSignals
from ...transport import Link
from .waiters import delivering
from .wakeup import Wakeup

#: Messages taken in at a time.
RECEIVED_MOST = 64
#: How long a thread waits to take the place of the I/O thread while that is busy.
TAKE_SECONDS = 0.01
#: The longest sleep.
SLEEP_SECONDS = 1.0


class Driven(Protocol):
    """A channel. Everything but `has_work` and `is_closing` is called by the thread that drives."""

    #: whether only the I/O thread may drive
    is_closing: bool

    def has_work(self) -> bool:
        """Whether `flush` would send something."""

    def turn(self) -> int:
        """Take in what has arrived, and send what has gathered.

        Returns how many messages have arrived, or any other number than 0 if it must be called again before a sleep.
        """

    def flush(self) -> None:
        """Send what has gathered."""

    def pause(self) -> tuple[float, bool]:
        """There is nothing to do: how long to sleep, and whether whoever has something to do wakes us."""

    def next_sign(self) -> float:
        """When the next sign of life is due (monotonic seconds)."""

    def broken(self, error: Exception) -> None:
        """A bug, which must not leave anybody waiting."""

    def cut_off(self) -> None:
        """The work was cut off in the middle, by an exception such as KeyboardInterrupt: forget what is half done."""


class Driver:
    """Lets one thread at a time drive."""

    def __init__(self, driven: Driven, link: Link) -> None:
        self._driven = driven
        self._wakeup = Wakeup(link.fileno())
        self.wake = self._wakeup.wake
        #: whether other threads than the I/O thread may drive
        self._is_shared = True
        self._lock = threading.Lock()
        self._is_ending = False
        #: whether another thread has taken the place of the I/O thread
        self._is_taken = False
        #: whether whoever drives may sleep: who has something to do for it wakes it
        self.is_asleep = False

    # ------------------------------------------------------------------------------------------ the I/O thread

    def turn(self) -> None:
        """Drive once, and sleep until there is something to do."""
        driven, pause = self._driven, 0.0
        with self._lock:
            self.is_asleep = False
            self._wakeup.clear()
            if not (driven.turn() or driven.has_work()):
                pause, self.is_asleep = driven.pause()
        # Looked at after `is_asleep` was set: what was queued before that wakes nobody.
        if pause > 0 and not driven.has_work() and (self._is_ending or not driven.is_closing):
            self._wakeup.sleep(min(pause, SLEEP_SECONDS))

    def stop_sharing(self) -> None:
        """Let no other thread drive any more."""
        self._is_shared, self._is_ending = False, True
        with self._lock:  # until the one that does has left
            pass

    def close(self) -> None:
        """Give the descriptors back."""
        self._wakeup.close()

    # ------------------------------------------------------------------------------------------ other threads

    def send_now(self) -> bool:
        """Send what is queued. False: the I/O thread has to."""
        held = self._hold()
        if held is None:
            return False
        try:
            return self._lock.acquire(blocking=False) and self._send()
        finally:
            held.end()

    def _send(self) -> bool:
        driven, me = self._driven, threading.get_ident()
        delivering.add(me)
        try:
            if not self._is_shared or driven.is_closing:
                return False
            driven.flush()
        except Exception as error:
            driven.broken(error)
        except BaseException:
            driven.cut_off()
            self.wake()
            raise
        finally:
            delivering.discard(me)
            self._lock.release()
        return True

    def drive(self, ready: Callable[[], bool], limit: float | None) -> bool:
        """Drive in this thread until `ready()`, for `limit` seconds at most.

        Returns whether the wait is over. False: another thread drives, or nobody does any more.
        """
        deadline = None if limit is None else time.monotonic() + limit
        while (held := self._hold()) is not None:
            try:
                # The I/O thread has it for a moment only; often it has just told this thread of its last result.
                is_over = self._lock.acquire(timeout=TAKE_SECONDS) and self._drive(ready, deadline, held)
            finally:
                held.end()
            if is_over and (ready() or (deadline is not None and time.monotonic() >= deadline)):
                return True
            if not is_over:
                break
            # A signal has come, and its handler has returned.
        if self._driven.has_work():
            self.wake()
        return False

    def _hold(self) -> HeldSignals | None:
        """Hold signals back, if this thread may try to drive; the caller ends that. None: it may not."""
        if self._is_taken or not self._is_shared or threading.get_ident() in delivering:
            return None
        return HeldSignals(self.wake)

    def _drive(self, ready: Callable[[], bool], deadline: float | None, held: HeldSignals) -> bool:
        driven, wakeup, me, arrived = self._driven, self._wakeup, threading.get_ident(), 0
        if not self._is_shared or driven.is_closing:
            self._lock.release()
            return False
        wakeup.take()
        delivering.add(me)
        self.is_asleep = self._is_taken = True
        try:
            if driven.has_work():
                driven.flush()
            while not (ready() or held.came or driven.is_closing):
                if not (arrived or driven.has_work()):
                    now = time.monotonic()
                    if deadline is not None and now >= deadline:
                        break
                    wait = min(max(0.0, driven.next_sign() - now), SLEEP_SECONDS)
                    wakeup.wait(wait if deadline is None else min(wait, deadline - now))
                arrived = driven.turn()
            return ready() or not driven.is_closing
        except Exception as error:
            driven.broken(error)
            return False
        except BaseException:
            arrived = RECEIVED_MOST  # the I/O thread has to look
            driven.cut_off()
            raise
        finally:
            delivering.discard(me)
            self._is_taken = False
            wakeup.give_back()
            if arrived >= RECEIVED_MOST or driven.has_work() or driven.is_closing:
                self.wake()
            self._lock.release()
