"""The states of a task's record. In messages an outcome has a status instead: "ok", "error" or "aborted"."""

from __future__ import annotations

from typing import Literal

#: "pending" covers queued and running.
PENDING, COMPLETED, FAILED, ABORTED = "pending", "completed", "failed", "aborted"

STATES = (PENDING, COMPLETED, FAILED, ABORTED)
#: The states of a task that has ended.
ENDED_STATES = (COMPLETED, FAILED, ABORTED)

STATE_OF_STATUS: dict[str, str] = {"ok": COMPLETED, "error": FAILED, "aborted": ABORTED}
STATUS_OF_STATE: dict[str, Literal["ok", "error", "aborted"]] = {
    COMPLETED: "ok",
    FAILED: "error",
    ABORTED: "aborted",
}
