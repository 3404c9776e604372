"""What a client with lesser rights may say: one table, looked at before a message is handled.

Engines and nannies need no table: `messages.FromEngine` and `FromNanny` hold all that they may say. A client with the
cluster's key may say everything. Messages of the others come through `Door.let_in`. It answers what is not allowed with
an error, and narrows what is allowed in part: a client that may only submit sees the tasks of its own session.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from ...errors import NotAllowed
from ...ids import ClientId, TaskId, client_of
from ...messages import (
    Abort,
    CountRecords,
    DistinctValues,
    ErrorInfo,
    Explain,
    FindRecords,
    GetEnvironment,
    GetFunction,
    Goodbye,
    GroupRecords,
    Hello,
    History,
    Message,
    PageRecords,
    Ping,
    QueueStatus,
    Rejected,
    Reply,
    Request,
    Resubmit,
    ResultStatus,
    ResultsUnavailable,
    Submit,
    Sync,
    TasksOnEngines,
    TaskSpec,
    Watch,
    Withdraw,
)
from ...messages.rights import Rights
from ...printable import one_line

log = logging.getLogger(__name__)

_SESSION = {Hello, Ping, Goodbye, Request, Watch, Sync, Withdraw}

#: The messages, and the bodies of requests, of clients whose key does not allow all of them.
MAY_SAY: dict[Rights, frozenset[type]] = {
    "readonly": frozenset(
        {
            *_SESSION,
            FindRecords,
            CountRecords,
            PageRecords,
            DistinctValues,
            GroupRecords,
            History,
            ResultStatus,
            TasksOnEngines,
            QueueStatus,
            Explain,
            GetFunction,
            GetEnvironment,
        }
    ),
    "submit": frozenset(
        {
            *_SESSION,
            Submit,
            Resubmit,
            Abort,
            FindRecords,
            CountRecords,
            PageRecords,
            DistinctValues,
            GroupRecords,
            ResultStatus,
            TasksOnEngines,
            Explain,
            GetFunction,
            GetEnvironment,
        }
    ),
}


class Sender(Protocol):
    """A client."""

    uuid: str
    rights: Rights


class Door:
    """Lets messages in, or answers that they are not allowed. `send` sends to a client that is connected."""

    def __init__(self, send: Callable[[ClientId, Message], None], may_log: Callable[[], bool]) -> None:
        self._send, self._may_log = send, may_log

    def let_in(self, peer: Sender, message: Any) -> Message | None:
        """The message, or as much of it as is allowed; None: it was refused."""
        rights, own = peer.rights, ClientId(peer.uuid)
        body = message.body if type(message) is Request else message
        try:
            if type(body) not in MAY_SAY[rights]:
                raise NotAllowed(f"a key with the rights {rights!r} does not allow {type(body).__name__}")
            if rights != "submit":
                return message  # type: ignore[no-any-return]
            narrowed = NARROWED.get(type(body), _as_it_is)(body, own)
        except NotAllowed as error:
            if self._may_log():
                log.warning("refused %s of client %s: %s", type(body).__name__, own, one_line(str(error)))
            self._refuse(own, message, error)
            return None
        return Request(message.number, narrowed) if body is not message else narrowed

    def _refuse(self, client: ClientId, message: Any, error: NotAllowed) -> None:
        info = ErrorInfo(type(error).__name__, str(error))
        if type(message) is Request:
            self._send(client, Reply(message.number, error=info))
        elif type(message) is Submit:
            self._send(client, Rejected(message.number, info))
        elif type(message) is Watch:
            self._send(client, ResultsUnavailable(list(message.tasks), info.evalue, info.ename))


# ---------------------------------------------------------------------------- of one's own session only


def _must_be_own(ids: Sequence[TaskId], own: ClientId) -> None:
    for id in ids:
        if client_of(id) != own:
            raise NotAllowed(
                f"a key with the rights 'submit' allows tasks of the client's own session only, and {id:.80} is "
                "of another one"
            )


def _named_by(spec: TaskSpec) -> list[TaskId]:
    """The tasks that a task names: itself, those that it waits for, and those whose results it takes."""
    options = spec.options
    if options is None:
        return [spec.id]
    graph = [id for graph in (options.after, options.follow) if graph is not None for id in graph.tasks]
    return [spec.id, *options.inputs, *graph]


def _submit(message: Submit, own: ClientId) -> Submit:
    for spec in message.tasks:
        _must_be_own(_named_by(spec), own)
    # Not answered from the database: an equal call may be another client's.
    return msgspec.structs.replace(message, cached=False)


def _named(body: Any, own: ClientId) -> Any:
    _must_be_own(body.tasks, own)
    return body


def _resubmit(body: Resubmit, own: ClientId) -> Resubmit:
    _must_be_own([*body.tasks, *body.new], own)
    return body


def _abort(body: Abort, own: ClientId) -> Abort:
    if body.tasks is None and body.engines is not None:
        raise NotAllowed("a key with the rights 'submit' does not allow to abort by engine: name tasks of your own")
    _must_be_own(body.tasks or (), own)
    return body


def _search(body: Any, own: ClientId) -> Any:
    mine = {"client_uuid": own}
    return msgspec.structs.replace(body, query={"$and": [body.query, mine]} if body.query else mine)


def _as_it_is(body: Any, own: ClientId) -> Any:
    return body


#: How each of these is narrowed to the session of its sender; others are about nothing else anyhow.
NARROWED: Mapping[type, Callable[[Any, ClientId], Any]] = {
    Submit: _submit,
    Watch: _named,
    ResultStatus: _named,
    Explain: _named,
    Resubmit: _resubmit,
    Abort: _abort,
    FindRecords: _search,
    CountRecords: _search,
    PageRecords: _search,
    DistinctValues: _search,
    GroupRecords: _search,
}
