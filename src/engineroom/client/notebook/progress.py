"""Waits for results, and shows how many tasks have ended meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...config import check_optional_switches
from ...errors import TimeoutError
from .bars import progress_bar


class Progressing(Protocol):
    """A result, as the bar sees it."""

    @property
    def progress(self) -> int:
        """How many tasks have ended."""

    def __len__(self) -> int: ...

    def done(self) -> bool:
        """Whether all tasks have ended."""

    def wait(self, timeout: float) -> Any:
        """Wait for the end."""


def show_progress(
    results: Sequence[Progressing],
    *,
    interval: float = 0.1,
    timeout: float | None = None,
    name: str = "tasks",
    enough: Callable[[], bool] = lambda: False,
    widget: bool | None = None,
) -> None:
    """Show a bar until all results are ready, or `enough()` is true. `widget`: see `progress_bar`."""
    check_optional_switches(widget=widget)
    if not hasattr(interval, "__float__"):
        raise TypeError(f"interval is a number of seconds; got {interval!r:.60}")
    deadline = None if timeout is None else time.monotonic() + timeout
    total = sum(len(result) for result in results)
    with progress_bar(total, name, "task", widget) as bar:
        while True:
            pending = [result for result in results if not result.done()]
            done = sum(result.progress for result in results)
            bar.move(done)
            if not pending or enough():
                break
            wait = interval if deadline is None else min(interval, deadline - time.monotonic())
            if wait <= 0:
                raise TimeoutError(f"not ready after {timeout:g} s: {done} of {total}; the tasks go on")
            pending[0].wait(wait)
