"""One line in the log for each request that changes something for others: who, what, which tasks, how many.

    INFO engineroom.controller.requests.audit: audit: client 3f9a… purged, query {"label": "test"}: 12

It names no arguments, results or code of tasks. A client that aborts or resubmits its own tasks leaves no line:
programs do so often.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from ...ids import ClientId, client_of
from ...messages import Abort, ErrorInfo, Pin, Purge, Resubmit, SignalEngines, StopController, StopEngines
from ...messages.requests import RequestBody
from ...printable import one_line

log = logging.getLogger(__name__)

#: What each of these requests does, for the log.
CHANGES: dict[type[RequestBody], str] = {
    Purge: "purged",
    Pin: "pinned",
    Abort: "aborted",
    Resubmit: "resubmitted",
    StopEngines: "stopped engines",
    StopController: "stopped the cluster",
    SignalEngines: "signalled engines",
}
#: Characters of a query in the log.
MOST_OF_QUERY = 500


def note(client: ClientId, body: RequestBody, outcome: Any) -> None:
    """A request was answered with `outcome`, a value or an ErrorInfo. Requests that change nothing leave no line."""
    done = CHANGES.get(type(body))
    if done is None:
        return
    if isinstance(body, Abort | Resubmit) and _is_own(body, client):
        return
    if isinstance(body, Pin) and not body.pinned:
        done = "unpinned"
    if isinstance(outcome, ErrorInfo):
        result = f"refused ({outcome.ename})"
    elif isinstance(outcome, int):
        result = str(outcome)
    else:
        result = "done"
    log.info("audit: client %s %s%s: %s", client, done, _which(body), result)


def _is_own(body: Abort | Resubmit, client: ClientId) -> bool:
    """Whether a request is about tasks of its client only."""
    if body.tasks is None:
        return isinstance(body, Abort) and body.engines is None
    return all(client_of(id) == client for id in body.tasks)


def _which(body: Any) -> str:
    """What a request names."""
    query = getattr(body, "query", None)
    if query is not None:
        return f", query {one_line(msgspec.json.encode(query).decode())[:MOST_OF_QUERY]}"
    if getattr(body, "everything", False):
        return ", all that have ended"
    tasks: list[str] | None = getattr(body, "tasks", None)
    if tasks is not None:
        first = f" from {one_line(tasks[0])[:80]}" if tasks else ""
        return f", {len(tasks)} tasks by id{first}"
    engines = getattr(body, "engines", getattr(body, "targets", None))
    if engines is not None:
        return f", of engines {str(list(engines))[:80]}"
    return ""
