"""An argument that is pickled once and sent many times."""

from __future__ import annotations

import pickle
from typing import Any

from ...wire import payload


class PrePickled:
    """An argument that is pickled now, once: a function that gets it gets the object.

    >>> table = PrePickled(big_table)                          # doctest: +SKIP
    >>> view.map(lookup, keys, [table] * len(keys))            # doctest: +SKIP

    Raises
    ------
    SerializationError
        The object cannot be pickled.
    """

    def __init__(self, obj: Any) -> None:
        try:
            self._stream, self._frames = payload.dumps(obj)
        except Exception as error:
            raise payload.describe_failure(error, [("the object", obj)]) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._stream, [pickle.PickleBuffer(frame) for frame in self._frames])


def _unpickled(stream: bytes, frames: list[Any]) -> Any:
    return payload.loads(stream, frames)
