"""What a cluster needs from the thing that starts its processes. A new kind of launcher has these methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

#: Seconds between SIGTERM and SIGKILL.
STOP_SECONDS = 8.0


class Launcher(Protocol):
    """Starts and stops one process or one batch job: the controller, or a nanny with its engines."""

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""

    @property
    def pid(self) -> int | None:
        """Its process on this host, if it has one."""

    def start(self) -> None:
        """Start it."""

    def stop(self) -> None:
        """Ask it to end; kill it if it has not ended after `STOP_SECONDS`. Returns when it has ended."""

    def signal(self, number: int) -> None:
        """Send it a signal."""

    def join(self, timeout: float | None = None) -> bool:
        """Wait for its end; returns whether it has ended."""

    def on_stop(self, callback: Callable[[int], None]) -> None:
        """Call a function with the exit code when it ends, from a thread of the launcher."""

    def get_output(self) -> str:
        """The end of its log."""

    def to_dict(self) -> Mapping[str, Any]:
        """What another process needs to find it, as JSON-able values."""
