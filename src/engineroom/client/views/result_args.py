"""AsyncResults among the arguments of a load-balanced call: they arrive as their values, which never come here.

While a call's arguments are pickled, each AsyncResult in them leaves a `ResultOf` in its place, and a note that the
task has to wait for it. Whether there were any is looked at afterwards: a call without them pays nothing.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import InvalidDependency, SerializationError
from ...ids import TaskId
from ...wire.frames import Buffer
from ...wire.payload import dumps_call

if TYPE_CHECKING:
    from ..client import Client
    from ..results.result import AsyncResult


class _Call(threading.local):
    """The call that this thread is pickling."""

    #: the AsyncResults met; None: there is no such call
    results: list[AsyncResult] | None = None


_call = _Call()

_NO_RESULTS: tuple[AsyncResult, ...] = ()


def pickled_call(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[bytes, tuple[Buffer, ...], Sequence[AsyncResult]]:
    """The arguments of a load-balanced call as stream and frames, and the AsyncResults among them.

    Raises
    ------
    SerializationError
        Naming the argument, and the path inside it.
    InvalidDependency
        An AsyncResult among them has failed, and nobody keeps its outcome.
    """
    if not args and not kwargs:
        return *dumps_call(args, kwargs), _NO_RESULTS
    before = _call.results  # a map may have to submit the rest of its tasks while it is pickled
    met = _call.results = []
    try:
        return *dumps_call(args, kwargs), met
    finally:
        _call.results = before


def as_argument(result: AsyncResult) -> tuple[Any, ...]:
    """What stands for an AsyncResult in a pickle.

    Raises
    ------
    SerializationError
        It is not among the arguments of a load-balanced call.
    """
    met = _call.results
    if met is None:
        raise SerializationError(
            f"{result!r} is not a value, so nothing was sent: give its value, ar.get(). Only calls through a "
            "load-balanced view take AsyncResults as arguments"
        )
    if result.done() and not result._client._channel.keeps:
        return operator.getitem, ((_value_of(result),), 0)  # unpickles as the value
    met.append(result)
    return result._value_from(tuple(result._all_ids()))


def inputs_of(results: Iterable[AsyncResult], client: Client) -> tuple[TaskId, ...]:
    """The tasks whose values a call waits for, each once.

    Raises
    ------
    InvalidDependency
        One of the results is of direct tasks, or of another cluster.
    """
    ids: dict[TaskId, None] = {}
    for result in results:
        if result._client is not client:
            _refuse_strangers(result, client)
        refuse_direct(result._ids, result._client)
        ids |= dict.fromkeys(result._ids)
    return tuple(ids)


def refuse_direct(ids: Sequence[TaskId], client: Client) -> None:
    """Raise InvalidDependency if one of these tasks is a direct one of this client."""
    for id in ids:
        if id in client._direct:
            raise InvalidDependency(
                f"load-balanced tasks cannot depend on direct tasks, and {id} is one: wait for it and give its value, "
                "ar.get(), or submit it through a load-balanced view (with targets=)"
            )


def _refuse_strangers(result: AsyncResult, client: Client) -> None:
    theirs, ours = result._client.connection, client.connection
    if theirs.key != ours.key:
        raise InvalidDependency(f"{result!r} is of another cluster ({theirs.url}): give its value, ar.get()")


def _value_of(result: AsyncResult) -> Any:
    """The value itself: nobody keeps it for us."""
    refuse_direct(result._ids, result._client)
    try:
        return result.get(return_exceptions=False)
    except Exception as error:
        raise InvalidDependency(f"an argument is the result of a task that has failed: {error}") from error
