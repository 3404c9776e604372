"""What a user may set for a whole client, and the link of its dashboard. `Client` has these attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import ConnectionInfo, dashboard_url
from ..errors import ConfigError
from .port import ClientPort
from .views.flags import yes_or_no


class ClientSettings:
    """Settings of a client; its views and results read them from its port."""

    _port: ClientPort
    connection: ConnectionInfo
    cluster: Any
    _block = False

    @property
    def dashboard_url(self) -> str | None:
        """The link of the cluster's dashboard: whoever has it can use it. None: none runs on this host."""
        found: str | None = getattr(self.cluster, "dashboard_url", None)
        return found or dashboard_url(Path(self.connection.profile_dir), self.connection.cluster_id)

    @property
    def block(self) -> bool:
        """Whether calls wait for their result: of the client's own methods, and of views that are made from now on."""
        return self._block

    @block.setter
    def block(self, value: bool) -> None:
        self._block = yes_or_no("block", value)

    def _blocks(self, block: bool | None) -> bool:
        """Whether a call waits: what it was given, else `block`. Raises ConfigError."""
        return self._block if block is None else yes_or_no("block", block)

    @property
    def record_arguments(self) -> bool:
        """Whether the record of a task, and its error, have its arguments as a short text (at most 200 characters).

        True from the start. Set it to False where arguments are secret, or their `repr` does something.
        """
        return self._port.record_arguments

    @record_arguments.setter
    def record_arguments(self, value: bool) -> None:
        self._port.record_arguments = yes_or_no("record_arguments", value)

    @property
    def on_interrupt(self) -> str:
        """What Ctrl-C in a wait (in a notebook: interrupting the cell) does to the tasks that are waited for.

        "leave", from the start: they go on, and the KeyboardInterrupt says how to end them. "abort" ends those that
        have not started, "cancel" the others, too.
        """
        return self._port.on_interrupt

    @on_interrupt.setter
    def on_interrupt(self, value: str) -> None:
        if value not in ("leave", "abort", "cancel"):
            raise ConfigError(f"on_interrupt is 'leave', 'abort' or 'cancel'; got {value!r}")
        self._port.on_interrupt = value
