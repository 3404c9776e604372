"""A client's port without a network, for tests of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engineroom.config import ConnectionInfo
from engineroom.ids import EngineId, TaskId
from engineroom.messages import ErrorInfo, TaskDone
from engineroom.wire.payload import dumps


class FakePort:
    """What results need of a client. It remembers what it is asked to abort."""

    def __init__(self, *, keeps: bool = True, direct: Sequence[str] = ()) -> None:
        self.info = ConnectionInfo(url="ipc:///nowhere", key="k")
        self.keeps = keeps
        self.direct = set(direct)
        self.aborted: list[tuple[list[TaskId], bool]] = []
        self.growing: set[object] = set()

    def drive(self, ready: Callable[[], bool], limit: float | None) -> bool:
        return False

    def engine_uuid(self, id: EngineId) -> str | None:
        return f"uuid{id}"

    def is_direct(self, id: TaskId) -> bool:
        return id in self.direct

    def abort(self, ids: Sequence[TaskId], *, running: bool) -> None:
        self.aborted.append((list(ids), running))


def done(id: str, value: object, *, engine: int = 0, started: float = 0.0, completed: float = 1.0) -> TaskDone:
    """The report of a task that has succeeded."""
    stream, _ = dumps(value)
    return TaskDone(TaskId(id), 1, "ok", started, completed, stream, EngineId(engine))


def failed(id: str, error: str = "ValueError") -> TaskDone:
    """The report of a task that has raised."""
    info = ErrorInfo(error, "no good", "Traceback …")
    return TaskDone(TaskId(id), 1, "error", 0.0, 1.0, b"", EngineId(0), error=info)


def arrive(result: object, *reports: TaskDone, now: float = 10.0) -> None:
    """Hand reports to a result, as the I/O thread does."""
    for report in reports:
        if result._arrived(report, (), now):  # type: ignore[attr-defined]
            result._announce()  # type: ignore[attr-defined]
