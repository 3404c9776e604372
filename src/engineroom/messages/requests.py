"""Bodies of a client's `Request`: queries of records, actions on tasks, control of the cluster."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ..ids import TaskId
from .bounds import MOST_NAMED, Count, EngineNumbers, Integer, Number, Seconds, Signal, TaskIds
from .structs import OptionChanges


class RequestBody(msgspec.Struct, array_like=True, gc=False, tag=str.lower):
    """Base of the bodies. Each docstring says what the value of the `Reply` is, if it is not None."""


class FindRecords(RequestBody):
    """Records that match a query. Reply: frames; each has some records in columns, `{key: its values}`, as msgpack."""

    query: dict[str, Any]
    keys: list[str] | None = None
    sort: list[tuple[str, Integer]] | None = None
    limit: Integer | None = None
    skip: Integer = 0


class CountRecords(RequestBody):
    """How many records match. Reply: an int."""

    query: dict[str, Any]


class PageRecords(RequestBody):
    """One page of the matching records, by time of submission.

    Reply: `after` of the next page, or None if there is none; and frames as those of FindRecords.
    """

    query: dict[str, Any]
    keys: list[str] | None
    limit: Integer
    #: where the previous page ended: (seconds of submission, msg_id)
    after: tuple[Seconds | None, str] | None = None


class DistinctValues(RequestBody):
    """The distinct values of a key in the matching records. Reply: a list."""

    key: str
    query: dict[str, Any]


class GroupRecords(RequestBody):
    """The matching records, grouped by a key. Reply: a list of dicts."""

    key: str
    query: dict[str, Any]
    values: str | None = None
    percentiles: list[Number] = []


class History(RequestBody):
    """All msg_ids, by time of submission. Reply: a list."""


class ResultStatus(RequestBody):
    """Which of these tasks are pending, and which completed. Unknown ids are an error. Reply: a dict."""

    tasks: TaskIds


class TasksOnEngines(RequestBody, tag="heldtasks"):
    """Which of this client's tasks engines have been given and not finished. Reply: a list of ids."""


class RecheckProperties(RequestBody, tag="lookagain"):
    """Check again on all engines which functions their properties allow."""


class QueueStatus(RequestBody):
    """How many tasks each engine has finished and has been given. Reply: a dict."""

    targets: EngineNumbers | None = None
    verbose: bool = False


class Resubmit(RequestBody):
    """Run finished tasks again: `tasks[i]` under the new id `new[i]`, with its old options except for `changes`."""

    tasks: TaskIds
    new: TaskIds
    changes: OptionChanges | None = None
    #: see `Submit`
    former: bool = False


class Purge(RequestBody):
    """Delete the records of finished tasks: by id, by engine, by query, or all. Reply: how many."""

    tasks: TaskIds | None = None
    engines: EngineNumbers | None = None
    query: dict[str, Any] | None = None
    everything: bool = False


class Pin(RequestBody):
    """Pin records, so that retention keeps them, or unpin them: by id, or by query. Reply: how many have changed."""

    tasks: TaskIds | None = None
    query: dict[str, Any] | None = None
    pinned: bool = True


class Abort(RequestBody):
    """Abort tasks that have not started: by id, by engine, or (both None) all of this client. Reply: how many."""

    tasks: TaskIds | None = None
    engines: EngineNumbers | None = None
    #: also tasks that have started: they are interrupted, and their engine is killed if that does not stop them
    running: bool = False


class Explain(RequestBody):
    """What each of these tasks waits for. Reply: a list of dicts."""

    tasks: TaskIds


class GetFunction(RequestBody):
    """A function, by the digest in the records of its tasks. Reply: {"name": …, "source": …, "payload": …}."""

    digest: str


class GetEnvironment(RequestBody):
    """A client's environment, by its digest. Reply: a dict."""

    digest: str


class StopEngines(RequestBody):
    """Stop engines, each when it has finished its running task. With `restart`, a new one takes its number."""

    targets: EngineNumbers | None = None
    restart: bool = False


class StopController(RequestBody):
    """Stop all engines, then the controller."""


class Sync(RequestBody):
    """Nothing. The reply comes when everything that the client sent before has been handled."""


class Withdraw(RequestBody):
    """This client does not wait for the answers to these requests any more. Questions among them end with an error.

    Only to a controller that says `Welcome.takes_withdrawals`.
    """

    requests: Annotated[list[Count], Meta(max_length=MOST_NAMED)]


class SignalEngines(RequestBody):
    """Send a signal to engine processes, also while they run tasks."""

    signal: Signal
    targets: EngineNumbers | None = None


AnyRequestBody = (
    FindRecords
    | CountRecords
    | PageRecords
    | DistinctValues
    | GroupRecords
    | History
    | ResultStatus
    | QueueStatus
    | TasksOnEngines
    | RecheckProperties
    | Resubmit
    | Purge
    | Pin
    | Abort
    | Explain
    | GetFunction
    | GetEnvironment
    | StopEngines
    | StopController
    | SignalEngines
    | Sync
    | Withdraw
)

#: These say nothing about tasks: they do not wait for tasks that have no room.
URGENT = (StopEngines, StopController, SignalEngines)


#: Questions that records answer.
_ABOUT_RECORDS = (FindRecords, CountRecords, PageRecords, DistinctValues, GroupRecords, ResultStatus)


def tasks_in_question(body: RequestBody) -> list[TaskId] | None:
    """The tasks that a question about records names, if no other record can be in its answer; else None."""
    if not isinstance(body, _ABOUT_RECORDS):
        return None
    if isinstance(body, ResultStatus):
        return body.tasks
    named = body.query.get("msg_id")
    if isinstance(named, dict):
        named = [named["$eq"]] if "$eq" in named else named.get("$in")
    elif isinstance(named, str):
        named = [named]
    return named if isinstance(named, list) and {type(id) for id in named} <= {str} else None


def named_in(body: RequestBody) -> int:
    """How many tasks a request names, at least."""
    named = getattr(body, "tasks", None)
    if named is None and isinstance(query := getattr(body, "query", None), dict):
        named = query.get("msg_id")
        named = named.get("$in") if isinstance(named, dict) else None
    return len(named) if isinstance(named, list) else 0
