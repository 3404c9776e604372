"""The states of a task's record. In messages an outcome has a status instead: "ok", "error" or "aborted"."""

from __future__ import annotations

#: "pending" covers queued and running.
PENDING, COMPLETED, FAILED, ABORTED = "pending", "completed", "failed", "aborted"

STATES = (PENDING, COMPLETED, FAILED, ABORTED)
#: The states of a task that has ended.
ENDED_STATES = (COMPLETED, FAILED, ABORTED)

STATE_OF_STATUS = {"ok": COMPLETED, "error": FAILED, "aborted": ABORTED}
STATUS_OF_STATE = {state: status for status, state in STATE_OF_STATUS.items()}
