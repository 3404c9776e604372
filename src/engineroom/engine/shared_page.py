"""A page of memory that an engine shares with its nanny: it tells what the engine was doing, even after kill -9."""

from __future__ import annotations

import mmap
import struct

from ..ids import EngineId, TaskId

_LEAVING, _ENGINE, _TOLD, _RESTART, _ENDED, _RUNNING, _LIMIT, _OUTPUT, _BEGUN = 0, 1, 5, 6, 7, 8, 1040, 1064, 1088
_LONGEST = 1024
_limit = struct.Struct("dd?")
_offset = struct.Struct("q")
#: how many bytes the ids of tasks that run at most once take, and whether there were more than fit
_begun = struct.Struct("<H?")


class SharedPage:
    """Made before the fork; the engine writes to it, the zygote reads it."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        #: whether the task has ended, the length of its id, its id
        self._task = struct.Struct("<BH0s")
        self.engine = EngineId(-1)

    def run(self, task: TaskId) -> None:
        """A task is about to be run."""
        data = task.encode()[:_LONGEST]
        if len(data) != self._task.size - 3:  # ids of one client are of equal length, mostly
            self._task = struct.Struct(f"<BH{len(data)}s")
        self._task.pack_into(self._page, _ENDED, 0, len(data), data)

    def begin(self, task: TaskId) -> None:
        """A task that runs at most once is about to be begun. It is noted until `delivered`."""
        length, is_full = _begun.unpack_from(self._page, _BEGUN)
        data = task.encode() + b"\n"
        start = _BEGUN + _begun.size + length
        if is_full or start + len(data) > len(self._page):
            _begun.pack_into(self._page, _BEGUN, length, True)
            return
        self._page[start : start + len(data)] = data
        _begun.pack_into(self._page, _BEGUN, length + len(data), False)

    @property
    def begun(self) -> list[TaskId] | None:
        """The tasks that run at most once and have begun since all results had arrived. None: too many to note."""
        length, is_full = _begun.unpack_from(self._page, _BEGUN)
        if is_full:
            return None
        start = _BEGUN + _begun.size
        return [TaskId(id.decode("utf-8", "replace")) for id in self._page[start : start + length].splitlines()]

    def rest(self) -> None:
        """No task is running. The last one's result has been sent, and may not have arrived."""
        self._page[_ENDED] = 1

    def delivered(self) -> None:
        """All results have arrived: if this engine dies now, no task is to blame."""
        self._page[_RUNNING : _RUNNING + 2] = b"\0\0"
        _begun.pack_into(self._page, _BEGUN, 0, False)

    @property
    def running(self) -> TaskId | None:
        """The task that is running."""
        return None if self._page[_ENDED] else self.suspect

    @property
    def suspect(self) -> TaskId | None:
        """The task to blame for a death: the one that is running, or the last one until its result has arrived."""
        length = int.from_bytes(self._page[_RUNNING : _RUNNING + 2], "little")
        return TaskId(self._page[_RUNNING + 2 : _RUNNING + 2 + length].decode("utf-8", "replace")) if length else None

    def limit(self, deadline: float, seconds: float = 0.0, *, is_run_timeout: bool = False) -> None:
        """Write the deadline of the running task (monotonic seconds; 0: none) and the limit that led to it."""
        _limit.pack_into(self._page, _LIMIT, deadline, seconds, is_run_timeout)

    @property
    def deadline(self) -> float:
        """When the running task is out of time (monotonic seconds); 0: never."""
        return float(_limit.unpack_from(self._page, _LIMIT)[0])

    @property
    def seconds(self) -> float:
        """The time limit that led to the deadline."""
        return float(_limit.unpack_from(self._page, _LIMIT)[1])

    @property
    def is_run_timeout(self) -> bool:
        """Whether the limit is a task's run_timeout; else it is that of a dependency function."""
        return bool(_limit.unpack_from(self._page, _LIMIT)[2])

    def output_read(self, index: int) -> int:
        """How much of captured stdout (0) or stderr (1) the engine has read, in bytes."""
        return int(_offset.unpack_from(self._page, _OUTPUT + 8 * index)[0])

    def set_output_read(self, index: int, offset: int) -> None:
        """Say how much of captured stdout or stderr has been read."""
        _offset.pack_into(self._page, _OUTPUT + 8 * index, offset)

    @property
    def leaving(self) -> bool:
        """Whether the engine means to exit."""
        return self._page[_LEAVING] == 1

    @leaving.setter
    def leaving(self, value: bool) -> None:
        self._page[_LEAVING] = int(value)

    @property
    def is_told(self) -> bool:
        """Whether the SIGTERM that the engine gets comes from its nanny."""
        return self._page[_TOLD] == 1

    @is_told.setter
    def is_told(self, value: bool) -> None:
        self._page[_TOLD] = int(value)

    @property
    def restart(self) -> bool:
        """Whether another engine is to be started once this one has left."""
        return self._page[_RESTART] == 1

    @restart.setter
    def restart(self, value: bool) -> None:
        self._page[_RESTART] = int(value)

    @property
    def engine(self) -> EngineId:
        """The number the controller gave it; -1 before."""
        return EngineId(int.from_bytes(self._page[_ENGINE : _ENGINE + 4], "little", signed=True))

    @engine.setter
    def engine(self, value: EngineId) -> None:
        self._page[_ENGINE : _ENGINE + 4] = value.to_bytes(4, "little", signed=True)

    def close(self) -> None:
        """Give the page back."""
        self._page.close()
