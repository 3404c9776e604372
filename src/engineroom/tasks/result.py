"""The results of classic tasks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from ..client.results.ending import Failure, task_error
from ..client.results.result import AsyncResult
from ..errors import PendingTask
from ..messages import ErrorInfo
from ..wire import payload

#: Keys of a record from which a result is made.
KEYS = (
    "msg_id",
    "state",
    "metadata",
    "submitted",
    "started",
    "completed",
    "engine_id",
    "result_content",
    "result_buffers",
)


class TaskResult:
    """The outcome of a finished task.

    Attributes
    ----------
    taskid : int or None
        The task's id; None where the record is not of a classic task.
    msg_id : str
        The msg_id of the task; of its recovery task, if that made the result.
    engineid : int or None
        The engine that ran it.
    failure : Exception or None
        Why it failed: RemoteError, EngineError, TaskAborted …
    """

    def __init__(
        self,
        taskid: int | None,
        msg_id: str,
        values: Any,
        failure: Exception | None,
        engineid: int | None,
        submitted: float,
        completed: float,
    ) -> None:
        self.taskid, self.msg_id, self.engineid = taskid, msg_id, engineid
        self._submitted, self._completed = submitted, completed
        self.failure = failure
        # Classic tasks return a dict of what they pull; other tasks any value.
        self._values: dict[str, Any] = values if taskid is not None and failure is None else {"result": values}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> TaskResult:
        """The result of a recorded task, of this session or any other.

        Parameters
        ----------
        record : dict
            From `db_query`, with the keys in `engineroom.tasks.result.KEYS`.

        Raises
        ------
        KeyError
            A key is missing.
        PendingTask
            The task has not finished.
        """
        missing = [key for key in KEYS if key not in record]
        if missing:
            raise KeyError(f"the record lacks {', '.join(missing)}: name them as keys of db_query")
        if record["completed"] is None:
            raise PendingTask(f"task {record['msg_id']} has not finished")
        failure, values = None, None
        if record["state"] == "completed":
            stream, *frames = record["result_buffers"]
            values = payload.loads(stream, frames)
        else:
            content = record["result_content"]
            where = content["engine_info"]
            error = ErrorInfo(content["ename"], content["evalue"], content["traceback"], **where)
            # An engine that died while the task ran has left a start, and no traceback.
            by_engine = record["started"] is not None and bool(error.traceback)
            failure = task_error(error, made_by_engine=by_engine, id=record["msg_id"])
        return cls(
            record["metadata"].get("task"),
            record["msg_id"],
            values,
            failure,
            record["engine_id"],
            record["submitted"].timestamp(),
            record["completed"].timestamp(),
        )

    @classmethod
    def _of(cls, taskid: int, result: AsyncResult) -> TaskResult:
        """The result of a task whose AsyncResult is ready."""
        [values] = result._all_values()
        failure = values.error if isinstance(values, Failure) else None
        id, submitted = result._ids[0], result._submitted or 0.0
        done = result._outcomes[id]
        if isinstance(done, Exception):  # no engine has reported
            return cls(taskid, id, values, failure, None, submitted, submitted)
        engineid = int(done.engine) if done.engine >= 0 else None
        return cls(taskid, id, values, failure, engineid, submitted, done.completed)

    @property
    def submitted(self) -> datetime:
        """When it was submitted, in UTC."""
        return datetime.fromtimestamp(self._submitted, UTC)

    @property
    def completed(self) -> datetime:
        """When it ended, in UTC."""
        return datetime.fromtimestamp(self._completed, UTC)

    @property
    def duration(self) -> float:
        """Seconds from its submission to its end."""
        return self._completed - self._submitted

    @property
    def results(self) -> dict[str, Any]:
        """The pulled values, by name. Raises the task's failure."""
        self.raise_exception()
        return self._values

    @property
    def ns(self) -> SimpleNamespace:
        """The same, as attributes."""
        return SimpleNamespace(**self.results)

    @property
    def result(self) -> Any:
        """The value that the function of a MapTask returned.

        Raises
        ------
        AttributeError
            It is the result of a Task, which is made of code.
        """
        if "result" not in self.results:
            raise AttributeError(f"{self!r} has no result of a function: it has {', '.join(self.results) or 'nothing'}")
        return self.results["result"]

    def raise_exception(self) -> None:
        """Raise the task's failure, if it failed."""
        if self.failure is not None:
            raise self.failure

    def __repr__(self) -> str:
        failure = self.failure
        kind = "RemoteError" if type(failure).__name__.startswith("Remote") else type(failure).__name__
        what = repr(self._values) if failure is None else f"{kind}: {failure}"
        return f"TaskResult[ID:{self.taskid}]:{what}"
