"""With what a task was made: its function, arguments, environment, engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ...errors import UnknownTask
from ...ids import TaskId, digest_of


class Recorded(Protocol):
    """Records with their functions and environments: of a cluster, or of a file."""

    def find(self, query: Mapping[str, Any], keys: Sequence[str]) -> list[Any]:
        """Records that match."""

    def function(self, digest: str) -> Mapping[str, Any]:
        """A function's `name` and `source`."""

    def environment(self, digest: str) -> dict[str, Any]:
        """A client's environment."""


def provenance(records: Recorded, id: TaskId) -> dict[str, Any]:
    """With what a task was made.

    Returns
    -------
    dict
        `function`: its `digest`, `name`, `source` (None for cells); `arguments`: the digest of the recorded
        arguments' bytes; `environment`: Python, platform, packages, cwd, argv … of the client, or None;
        `engines`: the hosts of its attempts; `cached_from`.
    """
    keys = ["function", "environment", "buffers", "attempts", "cached_from"]
    found = records.find({"msg_id": id}, keys)
    if not found:
        raise UnknownTask(f"no such task: {id}")
    record, function, environment = found[0], None, None
    if record["function"]:
        known = records.function(record["function"])
        function = {"digest": record["function"], "name": known["name"], "source": known["source"] or None}
    if record["environment"]:
        environment = records.environment(record["environment"])
    return {
        "function": function,
        "arguments": digest_of(b"".join(record["buffers"])).hex() if record["buffers"] else None,
        "environment": environment,
        "engines": [attempt["host"] for attempt in record["attempts"] or ()],
        "cached_from": record["cached_from"],
    }
