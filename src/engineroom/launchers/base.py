"""The seam between a cluster and what starts its processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Launcher(Protocol):
    """One process, or one job: the controller, or a nanny with its engines."""

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""

    @property
    def pid(self) -> int | None:
        """Its process on this host, if it has one."""

    def start(self) -> None:
        """Start it."""

    def stop(self) -> None:
        """End it: politely, then by force. Returns when it has ended."""

    def signal(self, number: int) -> None:
        """Send it a signal."""

    def join(self, timeout: float | None = None) -> bool:
        """Wait for its end; returns whether it has ended."""

    def on_stop(self, callback: Callable[[int], None]) -> None:
        """Have a function called with the exit code when it ends. It may be called from another thread."""

    def get_output(self) -> str:
        """The end of its log."""

    def to_dict(self) -> Mapping[str, Any]:
        """What another process needs to find it."""
