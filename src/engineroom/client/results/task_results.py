"""`client.results` and `client.metadata`: what is known of a client's tasks, by msg_id, fetched when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...ids import TaskId
from .result import AsyncResult


class TaskResults(Mapping[TaskId, Any]):
    """Values (or metadata) of tasks.

    Parameters
    ----------
    fetch : callable
        Makes the result of a msg_id.
    finished : callable
        Lists the client's tasks that have ended.
    """

    def __init__(
        self,
        fetch: Callable[[TaskId], AsyncResult],
        finished: Callable[[], Sequence[TaskId]],
        *,
        metadata: bool = False,
    ) -> None:
        self._fetch, self._finished, self._metadata = fetch, finished, metadata

    def __getitem__(self, id: TaskId) -> Any:
        result = self._fetch(id)
        if self._metadata:
            result.wait()
            return result.metadata
        return result.get()

    def __iter__(self) -> Iterator[TaskId]:
        return iter(self._finished())

    def __len__(self) -> int:
        return len(self._finished())
