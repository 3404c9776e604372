"""Results of tasks as arguments of other tasks: they arrive as their values, without passing through the client."""

from __future__ import annotations

from typing import Any

from ..ids import TaskId


class ResultOf:
    """Stands in a call's pickle for the value of one task ("single"), or for the list of those of several ("list")."""

    __slots__ = ("ids", "kind")

    def __init__(self, ids: tuple[TaskId, ...], kind: str) -> None:
        self.ids, self.kind = ids, kind

    def __reduce__(self) -> tuple[Any, ...]:
        return value_of, (self.ids, self.kind)


def value_of(ids: tuple[TaskId, ...], kind: str) -> Any:
    """The value of tasks, where their results are at hand."""
    raise LookupError(f"the results of {', '.join(ids)} are not here")
