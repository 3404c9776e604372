"""`client.results` and `client.metadata`: the tasks of a client by msg_id, fetched when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...ids import TaskId

if TYPE_CHECKING:
    from .queries import HubClient


class TaskResults(Mapping[TaskId, Any]):
    """Values (or metadata) of tasks, fetched from the controller when asked for."""

    def __init__(self, client: HubClient, metadata: bool = False) -> None:
        self._client, self._metadata = client, metadata

    def __getitem__(self, id: TaskId) -> Any:
        result = self._client.get_result(id)
        if self._metadata:
            result.wait()
            return result.metadata
        return result.get()

    def __iter__(self) -> Iterator[TaskId]:
        outstanding = self._client.outstanding
        return iter([id for id in self._client.history if id not in outstanding])

    def __len__(self) -> int:
        return len(list(iter(self)))
