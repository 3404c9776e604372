"""What results need of the client that made them: a small port. A unit test can put a fake in its place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from ...config import ConnectionInfo
from ...ids import ClientId, EngineId, TaskId


class ResultPort(Protocol):
    """The client, as its results see it. `engineroom.client.port.ClientPort` is the real one."""

    @property
    def info(self) -> ConnectionInfo:
        """The connection file's content: which cluster this is."""

    @property
    def session(self) -> ClientId:
        """The id of this client's session: its msg_ids begin so."""

    @property
    def keeps(self) -> bool:
        """Whether the controller records results, so that they can be fetched again."""

    @property
    def growing(self) -> set[Any]:
        """The maps that submit further tasks as results come: each adds itself, and takes itself out."""

    def outstanding(self) -> int:
        """How many tasks of this client have no outcome yet."""

    def drive(self, ready: Callable[[], bool], limit: float | None) -> bool:
        """Take in results in this thread, until `ready()` or for `limit` seconds. False: the caller has to wait."""

    def interrupted(self, ids: Collection[TaskId]) -> str:
        """Ctrl-C came in a wait for these tasks. Returns "cancel" or "abort" if that has been done, else "leave"."""

    def engine_uuid(self, id: EngineId) -> str | None:
        """The uuid of the engine that has, or last had, this number."""

    def is_direct(self, id: TaskId) -> bool:
        """Whether a direct view of this client submitted the task."""

    def has_made(self, id: TaskId) -> bool:
        """Whether a msg_id of this client's session is one that this client has made so far."""

    def abort(self, ids: Sequence[TaskId], *, running: bool) -> None:
        """Ask the controller to end tasks; with `running` also those that have started."""
