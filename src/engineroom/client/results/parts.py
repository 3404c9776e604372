"""Results taken apart, and put together."""

from __future__ import annotations

from collections.abc import Sequence

from ...ids import TaskId
from .result import AsyncResult


class Part(AsyncResult):
    """One task of a larger AsyncResult."""

    def __init__(self, whole: AsyncResult, id: TaskId) -> None:
        super().__init__(
            whole._client,
            [id],
            single=True,
            name=whole._name,
            submitted=whole._submitted,
            label=whole.label,
            owner=whole.owner,
            return_exceptions=whole._return_exceptions,
        )
        whole._follow(id, self)


class Joined(AsyncResult):
    """The tasks of several AsyncResults, in order."""

    def __init__(self, results: Sequence[AsyncResult]) -> None:
        first = results[0]
        ids = [id for result in results for id in result.msg_ids]
        super().__init__(first._client, ids, single=False, name=first._name, submitted=first._submitted)
        for result in results:
            for id in result.msg_ids:
                result._follow(id, self)
