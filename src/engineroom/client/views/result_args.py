"""AsyncResults among the arguments of a load-balanced call: which tasks the call has to wait for."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import InvalidDependency
from ...ids import TaskId
from ..port import ClientPort
from ..results.arguments import refuse_direct
from ..results.result import AsyncResult


def inputs_of(results: Iterable[AsyncResult], port: ClientPort) -> tuple[TaskId, ...]:
    """The tasks whose values a call waits for, each once.

    Raises
    ------
    InvalidDependency
        One of the results is of direct tasks, or of another cluster.
    """
    ids: dict[TaskId, None] = {}
    for result in results:
        theirs = result._port.info
        if result._port is not port and theirs.key != port.info.key:
            raise InvalidDependency(f"{result!r} is of another cluster ({theirs.url}): give its value, ar.get()")
        refuse_direct(result._ids, result._port)
        ids |= dict.fromkeys(result._ids)
    return tuple(ids)
