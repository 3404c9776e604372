"""What has become of a task, as the user meets it: errors in the place of values."""

from __future__ import annotations

from typing import Any

from ...errors import OUTCOMES, EngineError, RemoteError
from ...messages import ErrorInfo, TaskDone

#: An outcome, or the error that stands for it.
Outcome = TaskDone | Exception


class Failed:
    """Stands among values for a task that has none. (An exception may itself be a value: a task can return one.)"""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def unwrapped(value: Any) -> Any:
    """The value, or the error that stands in its place."""
    return value.error if isinstance(value, Failed) else value


def task_error(error: ErrorInfo, *, made_by_engine: bool) -> Exception:
    """The exception for a failed task."""
    info = {"engine_id": error.engine_id, "engine_uuid": error.engine_uuid, "method": error.method}
    if error.ename == "EngineError" and not made_by_engine:
        return EngineError(error.evalue, error.traceback, info)  # type: ignore[arg-type]
    if error.ename in OUTCOMES and (error.stopped or not made_by_engine):
        outcome = OUTCOMES[error.ename](error.evalue)
        if error.traceback:
            outcome.add_note(f"It was stopped here, on engine {error.engine_id}:\n{error.traceback}")
        return outcome
    return RemoteError(error.ename, error.evalue, error.traceback, info)  # type: ignore[arg-type]
