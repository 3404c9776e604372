"""Waits for engines, and shows how many are there if that takes its time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from . import shell_here

#: In IPython a bar is shown after so many seconds of waiting.
AFTER = 1.0


def wait_showing(
    wait_for: Callable[..., None], n: int, timeout: float | None, *, interactive: bool | None, widget: bool | None
) -> None:
    """Wait until `n` engines are there, by `wait_for(n, timeout, tell)`, which calls `tell` with how many there are.

    Parameters
    ----------
    interactive : bool, optional
        Whether a bar is shown, from the start. Default: in IPython, after `AFTER` seconds.
    """
    if not (shell_here() is not None if interactive is None else interactive):
        wait_for(n, timeout)
        return
    from .bars import Bar, progress_bar

    shown_from = time.monotonic() + (0.0 if interactive else AFTER)
    with contextlib.ExitStack() as stack:
        bars: list[Bar] = []

        def tell(here: int) -> None:
            if not bars and time.monotonic() >= shown_from:
                bars.append(stack.enter_context(progress_bar(n, "engines", "engine", widget)))
            for bar in bars:
                bar.move(min(here, n))

        if interactive:
            tell(0)
        wait_for(n, timeout, tell)
        for bar in bars:
            bar.move(n)


