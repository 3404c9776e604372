"""Signals held back, while the main thread does what must not be cut off in the middle.

Handlers of signals may raise, as that of Ctrl-C does: anywhere in the main thread.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from operator import is_
from types import FrameType
from typing import Any

# CPython's own module, where there is one: `signal` converts to enums, which takes ten times as long.
_plain: Any = sys.modules.get("_signal", signal)
_set: Callable[..., Any] = _plain.signal
_get: Callable[..., Any] = _plain.getsignal

_NAMES = "SIGINT SIGALRM SIGTERM SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGVTALRM SIGPROF SIGURG"
_SIGNALS = tuple(int(getattr(signal, name)) for name in _NAMES.split() if hasattr(signal, name))


#: the handlers that were seen last, in the order of `_SIGNALS`; and those among them that are in Python
_seen: tuple[list[Any], list[tuple[int, Any]]] = [], []


def _handled() -> list[tuple[int, Any]]:
    """The signals that have handlers in Python, with these. They hardly ever change."""
    global _seen
    handlers = list(map(_get, _SIGNALS))
    if not (_seen[0] and all(map(is_, handlers, _seen[0]))):
        _seen = handlers, [pair for pair in zip(_SIGNALS, handlers, strict=True) if callable(pair[1])]
    return _seen[1]


class HeldSignals:
    """Until `end`, signals that have handlers in Python only call `wake`. `end` has their handlers called."""

    __slots__ = ("_held", "_wake", "came")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        #: signals that are held back, and their handlers
        self._held: list[tuple[int, Any]] = []
        #: the signals that came
        self.came: list[int] = []
        # Handlers run in the main thread, and in no other.
        if threading.get_ident() != threading.main_thread().ident:
            return
        self._held = _handled()
        try:
            for number, _ in self._held:
                _set(number, self._note)
        except BaseException:  # the handler of one that is not held back yet
            self._restore()
            raise

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came.append(number)
        self._wake()

    def end(self) -> None:
        """Hold nothing back any more."""
        if self._held:
            self._restore()
            for number in self.came:
                signal.raise_signal(number)

    def _restore(self) -> None:
        try:
            for number, handler in self._held:
                _set(number, handler)
        except BaseException:  # of a handler that is in its place again
            self._restore()
            raise
