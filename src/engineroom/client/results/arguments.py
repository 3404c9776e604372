"""AsyncResults as arguments of load-balanced calls: the engine gets their values, which do not pass through here.

While the arguments of a call are pickled, each AsyncResult among them is replaced by a `ResultOf`, and added to the
list of results that the task waits for. A call without such arguments pays nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...errors import InvalidDependency, SerializationError
from ...ids import TaskId
from ...wire.frames import Buffer
from ...wire.payload import Keep, as_copy, describe_failure, dumps_call
from .port import ResultPort


class _Call(threading.local):
    """The call that this thread is pickling."""

    #: the AsyncResults found so far; None: no load-balanced call is being pickled
    results: list[Any] | None = None


_call = _Call()

_NO_RESULTS: tuple[Any, ...] = ()


def pickled_call(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], *, keep: Keep = as_copy, files: bool = False
) -> tuple[bytes, tuple[Buffer, ...], Sequence[Any]]:
    """The arguments of a load-balanced call as stream and frames, and the AsyncResults among them.

    `keep` and `files` are those of `payload.dumps`.

    Raises
    ------
    SerializationError
        Naming the argument, and the path inside it.
    InvalidDependency
        An AsyncResult among them has failed, and this controller keeps no results.
    """
    if not args and not kwargs:
        return *dumps_call(args, kwargs), _NO_RESULTS
    # Pickling a result may begin another call: a growing map then submits the rest of its chunks.
    before = _call.results
    found: list[Any] = []
    _call.results = found
    try:
        return *dumps_call(args, kwargs, keep=keep, files=files), found
    finally:
        _call.results = before


def pickled_items(
    call: tuple[tuple[Any, ...], Mapping[str, Any]],
    columns: Sequence[Sequence[Any]],
    begin: int,
    *,
    keep: Keep,
    files: bool,
) -> tuple[bytes, tuple[Buffer, ...], Sequence[Any]]:
    """The same for a call with some items of a map, given as columns; `begin`: the number of the first.

    Raises
    ------
    SerializationError
        Naming the item, and the path inside it.
    """
    try:
        return pickled_call(*call, keep=keep, files=files)
    except SerializationError as error:
        which = [""] if len(columns) == 1 else [f", argument {place}" for place in range(len(columns))]
        items = [
            (f"item {number}{column}", value)
            for number, values in enumerate(zip(*columns, strict=True), begin)
            for column, value in zip(which, values, strict=True)
        ]
        raise describe_failure(error, items) from error


def results_of_this_call() -> list[Any] | None:
    """The list of AsyncResults of the call that this thread is pickling; None: there is no such call."""
    return _call.results


def refuse_direct(ids: Iterable[TaskId], port: ResultPort) -> None:
    """Raise InvalidDependency if one of these tasks is a direct one of this client."""
    for id in ids:
        if port.is_direct(id):
            raise InvalidDependency(
                f"load-balanced tasks cannot depend on direct tasks, and {id} is one: wait for it and give its value, "
                "ar.get(), or submit it through a load-balanced view (with targets=)"
            )
