"""What is known about a task besides its value. The keys are those of IPython.parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ...ids import EngineId, TaskId
from ...messages import TaskDone, TaskOptions
from ..notebook import show

KEYS = (
    "msg_id",
    "submitted",
    "started",
    "completed",
    "received",
    "engine_uuid",
    "engine_id",
    "follow",
    "after",
    "status",
    "execute_input",
    "execute_result",
    "error",
    "stdout",
    "stderr",
    "outputs",
    "data",
    "label",
    "cached_from",
)


class Metadata(dict[str, Any]):
    """A dict with a fixed set of keys, which are attributes too."""

    def __init__(self, **values: Any) -> None:
        super().__init__(dict.fromkeys(KEYS) | {"stdout": "", "stderr": "", "outputs": [], "data": {}} | values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in KEYS:
            raise AttributeError(f"metadata has no key {name!r}")
        self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in KEYS:
            raise KeyError(f"metadata has no key {name!r}; it has {', '.join(KEYS)}")
        super().__setitem__(name, value)


def instant(seconds: float | None) -> datetime | None:
    """Seconds since the epoch as an aware datetime."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def metadata_of(
    id: TaskId,
    submitted: float | None,
    label: str | None,
    done: TaskDone | None,
    received: float | None,
    options: TaskOptions | None = None,
    live: Mapping[str, Any] | None = None,
) -> Metadata:
    """The metadata of a task.

    Parameters
    ----------
    done : TaskDone or None
        The engine's report; None: the task has not ended.
    submitted, received : float or None
        Seconds since the epoch.
    live : mapping, optional
        What the task has printed and published while it ran, and where it ran.
    """
    metadata = Metadata(msg_id=id, submitted=instant(submitted), label=label)
    if done is not None:
        metadata.update(_reported(done), received=instant(received))
    if options is not None:
        metadata["after"] = None if options.after is None else list(options.after.tasks)
        metadata["follow"] = None if options.follow is None else list(options.follow.tasks)
    if live is not None:
        metadata["data"] = dict(live["data"])
        if done is None:
            metadata.update(
                stdout="".join(live["stdout"]),
                stderr="".join(live["stderr"]),
                engine_id=live["engine"],
                started=instant(live["started"]),
            )
        elif done.error is not None and done.started == live["started"]:
            # Its engine may have died: then the outcome has no more than the end of what we have heard.
            for stream in ("stdout", "stderr"):
                heard = "".join(live[stream])
                if len(heard) > len(metadata[stream]):
                    metadata[stream] = heard
    return metadata


def _reported(done: TaskDone) -> dict[str, Any]:
    content, error = done.content or {}, done.error
    return {
        "started": instant(done.started),
        "completed": instant(done.completed),
        "status": done.status,
        "stdout": done.stdout,
        "stderr": done.stderr,
        "engine_id": done.engine if done.engine >= EngineId(0) else None,
        "execute_input": content.get("execute_input"),
        "execute_result": content.get("execute_result"),
        "outputs": content.get("outputs") or [],
        "cached_from": done.cached_from,
        "error": None
        if error is None
        else {"ename": error.ename, "evalue": error.evalue, "traceback": error.traceback},
    }


class RecordedTimes:
    """What records say of the tasks of a result that was fetched: when they were submitted, and their labels.

    Parameters
    ----------
    find : callable
        Asks for the records: their msg_id, submitted, received, completed and label.
    """

    def __init__(self, find: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        self._find = find
        self._found: dict[TaskId, Mapping[str, Any]] = {}

    def of(self, id: TaskId) -> dict[str, Any]:
        """Metadata of a task that its record has. {}: there is no record."""
        record = self._record(id)
        return {key: record[key] for key in ("submitted", "received", "label") if record.get(key) is not None}

    def elapsed(self, ids: Sequence[TaskId]) -> float:
        """Seconds from the first submission to the last result; 0: there are no records."""
        records = [self._record(id) for id in ids]
        begins = [record["submitted"] for record in records if record.get("submitted")]
        ends = [record.get("received") or record["completed"] for record in records if record.get("completed")]
        return float((max(ends) - min(begins)).total_seconds()) if begins and ends else 0.0

    def _record(self, id: TaskId) -> Mapping[str, Any]:
        if self._found.get(id, {}).get("completed") is None:  # not asked yet, or it had not ended then
            self._found = {record["msg_id"]: record for record in self._find()}
        return self._found.get(id, {})


class ExecuteReply:
    """The value of `execute` for one engine.

    Attributes
    ----------
    execution_count : int or None
    source : str
    data, metadata : dict
        The value of the last expression as a mime bundle; empty if silent.
    """

    def __init__(self, content: dict[str, Any], task: Metadata) -> None:
        self.execution_count: int | None = content["execution_count"]
        self.source: str = content["source"]
        self.data: dict[str, Any] = content["data"]
        self.metadata: dict[str, Any] = content["metadata"]
        self.msg_id: TaskId = task["msg_id"]
        self._task = task

    def __getitem__(self, key: str) -> Any:
        return self._task[key]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_repr_") or name.startswith("__") or name == "_task":
            raise AttributeError(name)
        return getattr(self._task, name)

    def __repr__(self) -> str:
        text = self.data.get("text/plain", "")
        if len(text) > 64:
            text = text[:64] + "..."
        return f"<ExecuteReply[{self.execution_count}]: {text}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.data, self.metadata

    def display(self) -> None:
        """Show the value in IPython."""
        show(self.data, self.metadata)
