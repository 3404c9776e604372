"""What is known about a task besides its value: metadata, and times. The keys are those of IPython.parallel."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ...ids import EngineId, TaskId
from ...messages import TaskDone, TaskOptions
from ..notebook import show
from ..pictures.timeline import Ran, Timeline
from .ending import was_aborted
from .task_future import TaskFuture

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


def ran(
    node: Any,
    done: TaskDone | None,
    live: Mapping[str, Any] | None,
    label: str | None = None,
    function: str | None = None,
) -> Ran:
    """Where and when a task ran: see `Ran`. The other parameters are those of `metadata_of`."""
    if done is None:
        if live is None or live["started"] is None:
            return Ran(node, None, None, None, "pending", label, function)
        return Ran(node, live["engine"], instant(live["started"]), None, "running", label, function)
    state = {"ok": "completed", "error": "failed"}.get(done.status, "aborted")
    if done.started is None or done.engine < EngineId(0) or done.cached_from is not None:
        return Ran(node, None, None, None, state, label, function)
    return Ran(node, done.engine, instant(done.started), instant(done.completed), state, label, function)


class RecordedTimes:
    """What records say of the tasks of a result that was fetched: when they were submitted, and their labels.

    Parameters
    ----------
    find : callable
        Asks for the records: their msg_id, submitted, received, completed, label and function_name.
    """

    def __init__(self, find: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        self._find = find
        self._found: dict[TaskId, Mapping[str, Any]] = {}

    def of(self, id: TaskId) -> dict[str, Any]:
        """Metadata of a task that its record has. {}: there is no record."""
        record = self._record(id)
        return {key: record[key] for key in ("submitted", "received", "label") if record.get(key) is not None}

    def named(self, id: TaskId) -> tuple[str | None, str | None]:
        """The label and the function's name of a task."""
        record = self._record(id)
        return record.get("label"), record.get("function_name")

    def elapsed(self, ids: Sequence[TaskId]) -> float:
        """Seconds from the first submission to the last result; 0: there are no records."""
        records = [self._record(id) for id in ids]
        begins = [record["submitted"] for record in records if record.get("submitted")]
        ends = [record.get("received") or record["completed"] for record in records if record.get("completed")]
        return float((max(ends) - min(begins)).total_seconds()) if begins and ends else 0.0

    def since_submission(self, ids: Sequence[TaskId]) -> float:
        """Seconds from the first submission until now; 0: there are no records."""
        if any(id not in self._found for id in ids):
            self._ask()
        begins = [record["submitted"] for record in self._found.values() if record.get("submitted")]
        return max(0.0, time.time() - min(begins).timestamp()) if begins else 0.0

    def _ask(self) -> None:
        self._found = {record["msg_id"]: record for record in self._find()}

    def _record(self, id: TaskId) -> Mapping[str, Any]:
        if self._found.get(id, {}).get("completed") is None:  # not asked yet, or it had not ended then
            self._ask()
        return self._found.get(id, {})


class DescribedFuture(TaskFuture):
    """A future that tells what is known about its tasks: metadata, and times."""

    _single: bool
    _name: str
    #: seconds since the epoch; None: submitted elsewhere
    _submitted: float | None
    _options: TaskOptions | None = None
    #: of a map with labels or metadata for each item, and of several results joined: the options of each task
    _each: Mapping[TaskId, TaskOptions] | None = None
    #: of several results joined: what each task calls; None: `_name`
    _names: Mapping[TaskId, str] | None = None
    #: of tasks that were fetched: what their records say
    _recorded: RecordedTimes | None = None
    label: str | None = None

    def _metadata_of(self, id: TaskId) -> Metadata:
        ending = self._outcomes.get(id)
        done = ending if isinstance(ending, TaskDone) else None
        live = self._news_of(id)
        options, label = self._options, self.label
        if self._each is not None:
            options = self._each[id]
            label = options.label
        metadata = metadata_of(id, self._submitted, label, done, self._received, options, live)
        if self._recorded is not None:
            metadata.update(self._recorded.of(id))
        if metadata["engine_id"] is not None:
            metadata["engine_uuid"] = self._port.engine_uuid(metadata["engine_id"])
        return metadata

    @property
    def metadata(self) -> Any:
        """What is known about the task (a dict), or a list of those. Output comes while tasks run."""
        all_of_them = [self._metadata_of(id) for id in self._ids]
        return all_of_them[0] if self._single else all_of_them

    def _metadata_list(self, key: str) -> Any:
        if key not in KEYS:
            raise KeyError(f"there is no metadata {key!r}; there is {', '.join(KEYS)}")
        values = [self._metadata_of(id)[key] for id in self._ids]
        return values[0] if self._single else values

    def __getattr__(self, name: str) -> Any:
        if name in KEYS:
            return self._metadata_list(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *KEYS]

    @property
    def progress(self) -> int:
        """How many tasks have ended."""
        return len(self._outcomes)

    @property
    def elapsed(self) -> float:
        """Seconds from the submission until now; once all tasks have ended, until the last result came."""
        if self._submitted is None:
            if self._recorded is None:
                return 0.0
            return (self._recorded.elapsed if self.done() else self._recorded.since_submission)(self._ids)
        end = self._received if self.done() and self._received is not None else time.time()
        return end - self._submitted

    @property
    def serial_time(self) -> float:
        """Seconds of computing, summed over the tasks. Raises TimeoutError before they have ended."""
        return sum(done.completed - done.started for done in self._reports() if done.started is not None)

    @property
    def wall_time(self) -> float:
        """Seconds from the submission to the last result. Raises TimeoutError before the tasks have ended."""
        self._reports()
        return self.elapsed

    def timedelta(
        self, start: Any, end: Any, start_key: Callable[..., Any] = min, end_key: Callable[..., Any] = max
    ) -> float:
        """Seconds between two sets of datetimes: from `start_key(start)` to `end_key(end)`.

        Raises
        ------
        ValueError
            One of the times is None: it is not known, or not yet.
        """
        times = [one for moments in (start, end) for one in (moments if isinstance(moments, Iterable) else [moments])]
        if None in times:
            raise ValueError("one of these times is None: the task has not come that far, or has never begun")
        begin = start if isinstance(start, datetime) else start_key(start)
        finish = end if isinstance(end, datetime) else end_key(end)
        return float((finish - begin).total_seconds())

    def timeline(self, by: str | None = None) -> Timeline:
        """When and where the tasks ran: rows by start, which a notebook shows as a picture.

        Parameters
        ----------
        by : {"label", "function", "state"}, optional
            What gives a bar its colour. Default: the label, if there are labels; else the function.

        Returns
        -------
        Timeline
            A list of `Ran(node, engine, started, completed, state, label, function)`; `node` is the msg_id. Tasks that
            run have no `completed` yet; tasks that did not run, or whose result is another task's (cached), have no
            `started`. `save("….svg")` writes the picture to a file.
        """
        return Timeline(map(self._ran, self._ids), by, now=datetime.now(UTC))

    def _ran(self, id: TaskId) -> Ran:
        ending = self._outcomes.get(id)
        label = self.label if self._each is None else self._each[id].label
        function: str | None = self._name if self._names is None else self._names[id]
        if self._recorded is not None:
            recorded, named = self._recorded.named(id)
            label, function = recorded or label, named or function
        if isinstance(ending, Exception):
            return ran(id, None, None, label, function)._replace(
                state="aborted" if was_aborted(ending) else "failed"
            )
        return ran(id, ending, self._news_of(id) if ending is None else None, label, function)

    def _describe(self, results: Sequence[DescribedFuture]) -> None:
        """Keep what several results say of their tasks: this one has them all."""
        each, names = {}, {}
        for result in results:
            common = result._options or TaskOptions(label=result.label)
            for id in result._ids:
                each[id] = common if result._each is None else result._each[id]
                names[id] = result._name if result._names is None else result._names[id]
        self._each, self._names = each, names

    def _reports(self) -> list[TaskDone]:
        """What engines have reported about the tasks, once all have ended."""
        if not self.done():
            raise TimeoutError(f"{self!r} is not ready: its times are known at the end")
        return [ending for ending in self._outcomes.values() if isinstance(ending, TaskDone)]


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
        if name.startswith("__") or name == "_task":
            raise AttributeError(name)
        return getattr(self._task, name)

    def __repr__(self) -> str:
        text = self.data.get("text/plain", "")
        if len(text) > 64:
            text = text[:64] + "..."
        return f"<ExecuteReply[{self.execution_count}]: {text}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.data, self.metadata

    def _as(self, mime: str) -> Any:
        """The value as one type: its data, or (data, metadata) if it has metadata; None: it has no such type."""
        if mime not in self.data or mime not in self.metadata:
            return self.data.get(mime)
        return self.data[mime], self.metadata[mime]

    _repr_html_ = functools.partialmethod(_as, "text/html")
    _repr_markdown_ = functools.partialmethod(_as, "text/markdown")
    _repr_latex_ = functools.partialmethod(_as, "text/latex")
    _repr_json_ = functools.partialmethod(_as, "application/json")
    _repr_javascript_ = functools.partialmethod(_as, "application/javascript")
    _repr_png_ = functools.partialmethod(_as, "image/png")
    _repr_jpeg_ = functools.partialmethod(_as, "image/jpeg")
    _repr_svg_ = functools.partialmethod(_as, "image/svg+xml")

    def display(self) -> None:
        """Show the value in IPython."""
        show(self.data, self.metadata)
