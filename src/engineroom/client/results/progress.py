"""Progress bars, with tqdm."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

from ...errors import TimeoutError


class Progressing(Protocol):
    """A result, as the bar sees it."""

    @property
    def progress(self) -> int:
        """How many tasks have ended."""

    def __len__(self) -> int: ...

    def done(self) -> bool:
        """Whether all tasks have ended."""

    def successful(self) -> bool:
        """Whether none has failed."""

    def wait(self, timeout: float) -> Any:
        """Wait for the end."""


def show_progress(
    results: Sequence[Progressing],
    *,
    interval: float = 0.1,
    timeout: float | None = None,
    name: str = "tasks",
    until_error: bool = False,
) -> None:
    """Show a bar until all results are ready.

    `IPP_NONINTERACTIVE=1` in the environment waits without a bar.
    """
    from tqdm.auto import tqdm

    deadline = None if timeout is None else time.monotonic() + timeout
    total = sum(len(result) for result in results)
    quiet = os.environ.get("IPP_NONINTERACTIVE", "0") not in ("0", "")
    with tqdm(total=total, desc=name, unit="task", file=sys.stdout, disable=quiet or None) as bar:
        while True:
            pending = [result for result in results if not result.done()]
            bar.update(sum(result.progress for result in results) - bar.n)
            if not pending or (until_error and any(r.done() and not r.successful() for r in results)):
                break
            wait = interval if deadline is None else min(interval, deadline - time.monotonic())
            if wait <= 0:
                raise TimeoutError(f"not ready after {timeout:g} s: {bar.n} of {total}; the tasks go on")
            pending[0].wait(wait)
