"""Results of tasks as arguments of other tasks: they arrive as their values, without passing through the client."""

from __future__ import annotations

from typing import Any

from ..ids import TaskId


class ResultOf:
    """Stands in the arguments of a call for the results of other tasks: of the single one, or a list of them."""

    def __init__(self, ids: tuple[TaskId, ...], single: bool) -> None:
        self.ids, self.single = ids, single

    def __reduce__(self) -> tuple[Any, ...]:
        return value_of, (self.ids, self.single)


def value_of(ids: tuple[TaskId, ...], single: bool) -> Any:
    """The values that a `ResultOf` stands for."""
    raise LookupError(f"the results of {', '.join(ids)} are not here")
