"""Live data of a running task: `publish_data({"loss": 0.1})` appears in `AsyncResult.data` at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_publish: Callable[[dict[str, Any]], None] | None = None


def bind(publish: Callable[[dict[str, Any]], None]) -> None:
    """Set the function that sends data to the controller. The engine calls this."""
    global _publish
    _publish = publish


def publish_data(data: dict[str, Any]) -> None:
    """Send data of the running task to its client, where it is merged into `AsyncResult.data`.

    Raises
    ------
    RuntimeError
        It was not called from a task on an engine.
    """
    if _publish is None:
        raise RuntimeError("publish_data works inside a task on an engine")
    _publish(data)
