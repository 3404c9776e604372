"""The overview of a database as it was at an instant of its past: what ran, what waited, what had ended by then."""

from __future__ import annotations

from typing import Any

from ..reading.records import Records
from ..records.record import TaskRecord
from .overview import ENGINES, FAILURE_KEYS, FAILURES, LABELS, failure, moment

#: Tasks that were running, of which the page names so many.
RUNNING = ENGINES
_KEYS = ["label", "function_name", "engine_id", "started"]


def at(records: Records, seconds: float) -> dict[str, Any]:
    """What the overview shows, as it was at an instant.

    A task that was tried several times counts with its last attempt: the times of earlier ones cannot be asked for.

    Parameters
    ----------
    seconds : float
        Since the epoch.
    """
    then = moment(seconds)
    ended = {"completed": {"$lte": then}}
    unfinished = {"$and": [{"submitted": {"$lte": then}}, {"$or": [{"completed": None}, {"completed": {"$gt": then}}]}]}
    began = {"$and": [unfinished, {"started": {"$lte": then}}]}
    count, left = records.count(ended), records.count(unfinished)
    running = records.find(began, _KEYS, [("started", 1)], RUNNING)
    ran = len(running) if len(running) < RUNNING else records.count(began)
    states = {"pending": left - ran, "running": ran}
    states |= {state: records.count({"$and": [ended, {"state": state}]}) for state in ("failed", "aborted")}
    states["completed"] = count - states["failed"] - states["aborted"]
    labels = sorted(records.group("label", unfinished), key=lambda group: -group["count"])[:LABELS]
    failed = records.find({"$and": [ended, {"state": "failed"}]}, FAILURE_KEYS, [("completed", -1)], FAILURES)
    return {
        "at": seconds,
        "states": {state: number for state, number in states.items() if number > 0},
        "labels": [{"label": group["key"], "left": group["count"]} for group in labels],
        "failures": [failure(record) for record in failed],
        "then_running": [_running(record) for record in running],
    }


def _running(record: TaskRecord) -> dict[str, Any]:
    return {
        "id": record["engine_id"],
        "started": record["started"].timestamp(),
        "running": {"msg_id": record["msg_id"], "label": record["label"], "function": record["function_name"],
                    "code": None},
    }  # fmt: skip
