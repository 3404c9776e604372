"""How a result shows itself in a notebook: its state, and its errors with closed tracebacks. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ... import markup
from ...errors import RemoteError, folded
from ...ids import TaskId
from ...messages import TaskDone
from .ending import Ending, succeeded, was_aborted

#: msg_ids that are named.
NAMED = 20


def result_html(
    ids: Sequence[TaskId], outcomes: Mapping[TaskId, Ending], facts: Iterable[tuple[str, Any]], title: str, unit: str,
    done: int, total: int,
) -> str:  # fmt: skip
    """A result as HTML.

    Parameters
    ----------
    outcomes : mapping
        How those tasks ended that have ended.
    facts : iterable of (name, value)
        What else is to be said; values of None are left out.
    unit : str
        What `done` and `total` count: "task" or "item".
    """
    endings = list(dict(outcomes).values())
    failed = [ending for ending in endings if not succeeded(ending) and not was_aborted(ending)]
    aborted = sum(map(was_aborted, endings))
    if len(endings) < len(ids):
        state = "pending"
    elif failed:
        state = "failed"
    else:
        state = "aborted" if aborted and aborted == len(endings) else "finished"
    counts = [f"{done:,} of {markup.plural(total, unit)}"]
    if failed:
        counts.append(f"{len(failed):,} failed")
    if aborted:
        counts.append(f"{aborted:,} aborted")
    more = ", …" if len(ids) > NAMED else ""
    named = markup.details(markup.quiet("msg_ids"), markup.code(", ".join(ids[:NAMED]) + more)) if ids else ""
    rows = [(name, value) for name, value in facts if value is not None]
    bar = markup.bar(done, total)
    return markup.block(
        markup.block(markup.bold(title), " ", state, " ", bar, " ", markup.quiet(", ".join(counts))),
        markup.facts(rows) if rows else "",
        folded([_entry(ending) for ending in failed]),
        named,
    )


def _entry(ending: Ending) -> tuple[str, str, str, Any]:
    """An error as in `CompositeError.elist`; nothing is unpickled."""
    if isinstance(ending, TaskDone):
        error = ending.error
        if error is None:
            return ending.status, "", "", {}
        info = {"engine_id": error.engine_id, "method": error.method, "msg_id": ending.id, "index": error.index,
                "host": error.host, "arguments": error.arguments}  # fmt: skip
        return error.ename, error.evalue, error.traceback, info
    if isinstance(ending, RemoteError):
        return ending.ename, ending.evalue, ending.traceback, ending.engine_info
    return type(ending).__name__, str(ending), "", {}
