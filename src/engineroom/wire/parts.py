"""Values of tasks that are parts of one call: the chunks of a map, the pieces of a scattered sequence.

The engine returns such a value as a `Part`. So each value says how it is put together with the others, and a result
has the same shape whoever fetches it, and whenever. Splitting sequences is in `client/results/partition.py`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..cores import usable_cores
from ..messages import ErrorInfo

#: Arrays of so many bytes together are copied by several threads: most of the time goes into fresh pages.
COPIED_BY_THREADS = 16 << 20

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
    """The items of one part: the elements of a sequence or array. Any other value is one item: a str, set, frame."""
    if type(value) is list:
        return value
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return list(value) if is_sequence or _is_array(value) else [value]


def join(parts: Sequence[Any], dist: str) -> Any:
    """Put the parts of a sequence together again: arrays to one, tables to one, anything else to a list."""
    if list not in set(map(type, parts)):
        whole = _concatenated(parts)
        if whole is not None:
            if dist == "b":
                return whole
            return _reordered(whole, _round_robin([len(part) for part in parts]))
    lists = list(map(items_of, parts))
    if dist == "b":
        return list(itertools.chain.from_iterable(lists))
    missing = object()
    return [x for row in itertools.zip_longest(*lists, fillvalue=missing) for x in row if x is not missing]


def _is_array(value: Any) -> bool:
    """Whether this is an array with a first axis: no scalar, no sparse matrix, no data frame."""
    if not (hasattr(value, "dtype") and hasattr(value, "__array__") and getattr(value, "shape", None)):
        return False
    return not isinstance(value, _type_of("pandas", "DataFrame"))  # it may have a column "dtype"


#: Tables and their columns, and the function of their library that puts parts together.
_TABLES = (
    ("pandas", "DataFrame", "concat"),
    ("pandas", "Series", "concat"),
    ("polars", "DataFrame", "concat"),
    ("polars", "Series", "concat"),
    ("pyarrow", "Table", "concat_tables"),
)


def _type_of(library: str, name: str) -> Any:
    """For `isinstance`. While a library is not loaded, or is only partly so, no value is of this type."""
    return getattr(sys.modules.get(library), name, ())


def _concatenated(parts: Sequence[Any]) -> Any:
    """The parts one after another as one array or table; None if they are anything else."""
    for library, name, concatenate in _TABLES:
        if parts and all(isinstance(part, _type_of(library, name)) for part in parts):
            return getattr(sys.modules[library], concatenate)(parts)
    if not parts or not all(map(_is_array, parts)):
        return None
    import numpy

    if _are_alike(parts) and sum(part.nbytes for part in parts) >= COPIED_BY_THREADS:
        helpers = min(usable_cores(), len(parts)) - 1
        if helpers:
            return _concatenated_by_threads(parts, helpers)
    masked = any(isinstance(part, numpy.ma.MaskedArray) for part in parts)
    together: Any = numpy.ma.concatenate if masked else numpy.concatenate
    return together(parts)


def _are_alike(parts: Sequence[Any]) -> bool:
    """Whether these are ordinary arrays of numbers whose bytes, one after the other, are the whole array."""
    import numpy

    first = parts[0]
    return all(
        type(part) is numpy.ndarray
        and not part.dtype.hasobject
        and part.dtype == first.dtype
        and part.shape[1:] == first.shape[1:]
        and part.flags.c_contiguous
        for part in parts
    )


def _concatenated_by_threads(parts: Sequence[Any], helpers: int) -> Any:
    """What numpy.concatenate gives; so many threads help this one."""
    import numpy

    whole = numpy.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    ends = itertools.accumulate(map(len, parts))
    places = [whole[end - len(part) : end] for end, part in zip(ends, parts, strict=True)]
    try:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(helpers) as threads:  # numpy copies without the interpreter's lock
            others = threads.map(numpy.copyto, places[1:], parts[1:])
            numpy.copyto(places[0], parts[0])
            list(others)
    except RuntimeError:  # the interpreter ends: it begins no threads any more, and does not even import them
        return numpy.concatenate(parts)
    return whole


def _reordered(whole: Any, order: Any) -> Any:
    """An array or a table with its elements or rows in another order."""
    if hasattr(type(whole), "iloc"):
        return whole.iloc[order]
    return whole.take(order) if isinstance(whole, _type_of("pyarrow", "Table")) else whole[order]


def _round_robin(sizes: Sequence[int]) -> Any:
    """The order in which the elements of concatenated parts follow each other: the first of each part, the second, …"""
    import numpy

    ranks = [numpy.arange(size) for size in sizes]
    return numpy.argsort(numpy.concatenate(ranks), kind="stable")
