"""Results of tasks as arguments of other tasks: they arrive as their values, without passing through the client."""

from __future__ import annotations

from typing import Any

from ..ids import TaskId


class ResultOf:
    """Stands in a call's pickle for the value of tasks.

    `kind` says how the value is made of those of the tasks: "single" (there is one), "list", or "joined" (they are
    parts of one sequence).
    """

    __slots__ = ("ids", "kind")

    def __init__(self, ids: tuple[TaskId, ...], kind: str) -> None:
        self.ids, self.kind = ids, kind

    def __reduce__(self) -> tuple[Any, ...]:
        return value_of, (self.ids, self.kind)


def value_of(ids: tuple[TaskId, ...], kind: str) -> Any:
    """The value of tasks, where their results are at hand."""
    raise LookupError(f"the results of {', '.join(ids)} are not here")
