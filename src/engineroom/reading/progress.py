"""How far the tasks of each label are, as the records of a running cluster tell."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from ..client import Client
from ..errors import EngineroomError

#: How many labels are shown.
LABELS = 5
#: Seconds between two looks at the progress of labels, at least; and in times of how long a look takes.
LOOK_SECONDS, RARELY = 1.0, 10
#: The remaining time follows from the tasks that ended within so many seconds, and from at most so many tasks.
RATE_SECONDS, RECENT = 60.0, 2000


class Progress:
    """How far the tasks of each label are, and how long the rest may take.

    The tasks of a label are those of the sessions that have unfinished ones under it. The remaining time follows from
    how many ended within the last minute.
    """

    def __init__(self, client: Client, labels: int = LABELS) -> None:
        self._client, self._labels = client, labels
        self._found: list[dict[str, Any]] = []
        self._due = 0.0

    def look(self) -> list[dict[str, Any]]:
        """For each label its `ended` and `total` tasks and `seconds_left`; the labels with most to do, first."""
        began = time.monotonic()
        if began >= self._due:
            try:
                self._found = self._ask()
            except EngineroomError:  # a cluster without records, or a query that takes too long
                self._found = []
            took = time.monotonic() - began
            self._due = began + max(LOOK_SECONDS, RARELY * took)  # a large database is not kept busy
        return self._found

    def _ask(self) -> list[dict[str, Any]]:
        client, unfinished = self._client, {"completed": None}
        groups = sorted(client.db_group("label", unfinished), key=lambda group: -group["count"])
        return [self._progress_of(group["key"], group["count"]) for group in groups[: self._labels]]

    def _progress_of(self, label: str | None, left: int) -> dict[str, Any]:
        client = self._client
        sessions = client.db_distinct("client_uuid", {"completed": None, "label": label})
        of_label = {"label": label, "client_uuid": {"$in": sessions}}
        since = datetime.now(UTC) - timedelta(seconds=RATE_SECONDS)
        recent = client.db_query({**of_label, "completed": {"$gt": since}}, ["completed", "started"], limit=RECENT,
                                 sort=[("completed", 1)])  # fmt: skip
        ended = client.db_count({**of_label, "completed": {"$ne": None}})
        return {
            "label": label,
            "ended": ended,
            "total": ended + left,
            "seconds_left": seconds_left(left, [(r["started"], r["completed"]) for r in recent], datetime.now(UTC)),
        }


def seconds_left(left: int, recent: list[tuple[datetime | None, datetime]], now: datetime) -> float | None:
    """How long so many tasks may take, if they go on as those (start, end) that have ended lately; None: unknown."""
    if not recent:
        return None
    begun = min(started or completed for started, completed in recent)
    began = max(begun, now - timedelta(seconds=RATE_SECONDS))
    last = recent[-1][1] if len(recent) == RECENT else now  # there were more than we have read
    passed = (last - began).total_seconds()
    return left * passed / len(recent) if passed > 0 else None
