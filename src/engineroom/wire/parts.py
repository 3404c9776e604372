"""Values of tasks that are parts of one call: the chunks of a map, the pieces of a scattered sequence.

The engine returns such a value as a `Part`. So each value says how it is put together with the others, and a result
has the same shape whoever fetches it, and whenever. Splitting sequences is in `client/results/partition.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ..messages import ErrorInfo

_NO_ERRORS: Mapping[int, ErrorInfo] = {}


class Part:
    """The value of a task that is one part of a call.

    Parameters
    ----------
    value : object
        For a chunk of a map, the list of its items' values. An item that failed has None there.
    dist : {"b", "r"}
        How the sequence was split: contiguous blocks, or round robin.
    errors : mapping
        Index in the list → error, of the items that failed.
    """

    __slots__ = ("dist", "errors", "value")

    def __init__(self, value: Any, dist: str = "b", errors: Mapping[int, ErrorInfo] = _NO_ERRORS) -> None:
        self.value, self.dist, self.errors = value, dist, errors

    def __reduce__(self) -> tuple[Any, ...]:
        if self.errors:
            return Part, (self.value, self.dist, dict(self.errors))
        return Part, ((self.value,) if self.dist == "b" else (self.value, self.dist))


def plain(value: Any) -> Any:
    """The value of one task: of a `Part` what it holds."""
    return value.value if type(value) is Part else value


def combine(values: Sequence[Any]) -> Any:
    """The values of several tasks as one value: parts of a call are put together, other values are items of a list."""
    if set(map(type, values)) == {Part} and len({value.dist for value in values}) == 1:
        return join([value.value for value in values], values[0].dist)  # as in most cases
    runs = [
        list(values) if dist is None else join([part.value for part in values], dist)
        for dist, values in itertools.groupby(values, lambda value: value.dist if type(value) is Part else None)
    ]
    return runs[0] if len(runs) == 1 else list(itertools.chain.from_iterable(runs))


def items_of(value: Any) -> list[Any]:
    """The items of one part: of a sequence its elements; any other value is one item."""
    if type(value) is list:
        return value
    return list(value) if hasattr(value, "__len__") and not isinstance(value, str | bytes | dict) else [value]


def join(parts: Sequence[Any], dist: str) -> Any:
    """Put the parts of a sequence together again: arrays to one array, anything else to a list."""
    arrays: list[Any] = []
    if list not in set(map(type, parts)):
        arrays = [part for part in parts if hasattr(part, "dtype") and hasattr(part, "shape") and part.shape]
    if arrays and len(arrays) == len(parts):
        import numpy

        if dist == "b":
            return numpy.concatenate(arrays)
        whole = numpy.empty((sum(len(a) for a in arrays), *arrays[0].shape[1:]), dtype=arrays[0].dtype)
        for start, part in enumerate(arrays):
            whole[start :: len(arrays)] = part
        return whole
    lists = list(map(items_of, parts))
    if dist == "b":
        return list(itertools.chain.from_iterable(lists))
    missing = object()
    return [x for row in itertools.zip_longest(*lists, fillvalue=missing) for x in row if x is not missing]
