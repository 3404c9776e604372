"""The states of a task's record. In messages an outcome has a status instead: "ok", "error" or "aborted"."""

from __future__ import annotations

from typing import Literal

#: "running": an engine has announced that it runs the task. Engines announce a task that takes longer than a moment
#: (20 ms); a shorter one is "pending" until its end. `{"completed": None}` finds both.
PENDING, RUNNING, COMPLETED, FAILED, ABORTED = "pending", "running", "completed", "failed", "aborted"

STATES = (PENDING, RUNNING, COMPLETED, FAILED, ABORTED)
#: The states of a task that has ended.
ENDED_STATES = (COMPLETED, FAILED, ABORTED)

STATE_OF_STATUS: dict[str, str] = {"ok": COMPLETED, "error": FAILED, "aborted": ABORTED}
STATUS_OF_STATE: dict[str, Literal["ok", "error", "aborted"]] = {
    COMPLETED: "ok",
    FAILED: "error",
    ABORTED: "aborted",
}
