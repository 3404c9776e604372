"""Signals as users name them, and as messages carry them: by number. None is sent here."""

from __future__ import annotations

import operator
import signal as signals


def signal_number(sig: int | str) -> int:
    """The number of a signal, which is given as that, or as a name: "SIGINT", "INT".

    Raises
    ------
    ValueError
        There is no such signal.
    TypeError
        It is neither a number nor a name.
    """
    if isinstance(sig, str):
        try:
            return int(signals.Signals[sig if sig.startswith("SIG") else f"SIG{sig}"])
        except KeyError:
            raise ValueError(f"there is no signal {sig!r}") from None
    if isinstance(sig, bool) or not hasattr(sig, "__index__"):
        raise TypeError(f"a signal is a number, or a name like 'SIGINT'; got {sig!r}")
    number = operator.index(sig)
    if not 0 < number < signals.NSIG:
        raise ValueError(f"there is no signal {number}")
    return number
