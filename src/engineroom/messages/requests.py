"""What clients ask, and what they want done, beside tasks: each has one answer, a `Reply`."""

from typing import Any

import msgspec

from ..ids import EngineId, TaskId
from .structs import OptionChanges


class Body(msgspec.Struct, array_like=True, gc=False, tag=str.lower):
    """Base of the questions that have one answer."""


class FindRecords(Body):
    """Records that match a query; answers a list of dicts."""

    query: dict[str, Any]
    keys: list[str] | None = None
    sort: list[tuple[str, int]] | None = None
    limit: int | None = None
    skip: int = 0


class CountRecords(Body):
    """How many records match; answers an int."""

    query: dict[str, Any]


class PageRecords(Body):
    """A part of the records that match, by submission; answers {"records": …, "next": the next page's `after`}."""

    query: dict[str, Any]
    keys: list[str] | None
    limit: int
    #: where the page before ended: (seconds of submission, msg_id)
    after: tuple[float | None, str] | None = None


class DistinctValues(Body):
    """Each value of a key in the records that match, once."""

    key: str
    query: dict[str, Any]


class GroupRecords(Body):
    """The records that match, grouped by a key; answers a list of dicts."""

    key: str
    query: dict[str, Any]
    values: str | None = None
    percentiles: list[float] = []


class History(Body):
    """All msg_ids by time of submission."""


class ResultStatus(Body):
    """Which of these are pending, which completed; unknown ids are an error."""

    tasks: list[TaskId]


class HeldTasks(Body):
    """Which of this client's tasks engines have in hand; answers their ids."""


class LookAgain(Body):
    """Ask engines again what their properties allow."""


class QueueStatus(Body):
    """What each engine has done and has to do."""

    targets: list[EngineId] | None = None
    verbose: bool = False


class Resubmit(Body):
    """Run finished tasks again: `tasks[i]` under the new id `new[i]`, with the options they had but for `changes`."""

    tasks: list[TaskId]
    new: list[TaskId]
    changes: OptionChanges | None = None


class Purge(Body):
    """Forget finished tasks: by id, by engine, by query, or all. Answers how many."""

    tasks: list[TaskId] | None = None
    engines: list[EngineId] | None = None
    query: dict[str, Any] | None = None
    everything: bool = False


class Pin(Body):
    """Have retention leave records alone (or not any more): by id, or by query. Answers how many that changes."""

    tasks: list[TaskId] | None = None
    query: dict[str, Any] | None = None
    pinned: bool = True


class Abort(Body):
    """End tasks that have not started: by id, by engine, or (both None) all of this client's. Answers how many."""

    tasks: list[TaskId] | None = None
    engines: list[EngineId] | None = None
    #: those that have started, too: they are interrupted, and killed if that does not stop them
    running: bool = False


class Explain(Body):
    """What each of these waits for; answers a list of dicts."""

    tasks: list[TaskId]


class GetFunction(Body):
    """A function by the digest in its tasks' records; answers {"name": …, "source": …, "payload": …}."""

    digest: str


class GetEnvironment(Body):
    """An environment by its digest; answers a dict."""

    digest: str


class StopEngines(Body):
    """Let engines finish what they are doing, then leave."""

    targets: list[EngineId] | None = None


class StopController(Body):
    """Stop engines, then the controller."""


class SignalEngines(Body):
    """Send a signal to engine processes, also while they are busy."""

    signal: int
    targets: list[EngineId] | None = None


Question = (
    FindRecords
    | CountRecords
    | PageRecords
    | DistinctValues
    | GroupRecords
    | History
    | ResultStatus
    | QueueStatus
    | HeldTasks
    | LookAgain
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
)
