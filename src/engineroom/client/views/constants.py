"""Constants of a map: a large object that is in every item, as in `map(f, items, itertools.repeat(table))`.

Arrays and bytes need nothing of this: their memory is sent once for all tasks of a call (`wire.payload.once`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...wire.payload import Constant, as_is
from ..results.arguments import pickled_call

#: Types of values that are small, or whose memory is sent once in any case.
_PLAIN = {int, float, bool, complex, type(None), bytes, bytearray}

#: Columns of arguments, each a sequence of items.
Chunk = Sequence[Sequence[Any]]


def with_constants(chunks: Sequence[Chunk], *, files: bool) -> Sequence[Chunk]:
    """The chunks of a map, with a `Constant` in place of a large object that is every item of a column."""
    if len(chunks) < 2:
        return chunks
    for number, column in enumerate(chunks[0]):
        value = column[0]
        if type(value) in _PLAIN or chunks[-1][number][-1] is not value:
            continue
        if not all(item is value for chunk in chunks for item in chunk[number]):
            continue
        constant = _constant(value, files)
        if constant is not None:
            chunks = [
                [*chunk[:number], [constant] * len(chunk[number]), *chunk[number + 1 :]] for chunk in chunks
            ]
    return chunks


def _constant(value: Any, files: bool) -> Constant | None:
    """None: the value is small, holds results of other tasks, or cannot be pickled (the call itself says so best)."""
    try:
        stream, frames, results = pickled_call((value,), {}, keep=as_is, files=files)
    except Exception:
        return None
    constant = Constant((stream, frames))
    return constant if constant.is_large and not results else None
