"""A page of memory that an engine shares with its nanny: what it was doing is known even after kill -9."""

from __future__ import annotations

import mmap
import struct

from ..ids import EngineId, TaskId

_LEAVING, _ENGINE, _ENDED, _RUNNING, _LIMIT, _OUTPUT = 0, 1, 7, 8, 1040, 1064
_LONGEST = 1024
_limit = struct.Struct("dd?")
_offset = struct.Struct("q")


class SharedPage:
    """Made before the fork; written by the engine, read by the nanny's side."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self.engine = EngineId(-1)

    def run(self, task: TaskId) -> None:
        """A task is about to be run."""
        data = task.encode()[:_LONGEST]
        self._page[_ENDED : _RUNNING + 2 + len(data)] = b"\0" + len(data).to_bytes(2, "little") + data

    def rest(self) -> None:
        """No task is running. The last one's result has been sent, and may not have arrived."""
        self._page[_ENDED] = 1

    def delivered(self) -> None:
        """All results have arrived: if this engine dies now, no task is to blame."""
        self._page[_RUNNING : _RUNNING + 2] = b"\0\0"

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
        """Until when (monotonic seconds; 0: for ever) what is running may run, and how long that is."""
        _limit.pack_into(self._page, _LIMIT, deadline, seconds, is_run_timeout)

    @property
    def deadline(self) -> float:
        """Until when what is running may run; 0: for ever."""
        return float(_limit.unpack_from(self._page, _LIMIT)[0])

    @property
    def seconds(self) -> float:
        """The limit behind the deadline."""
        return float(_limit.unpack_from(self._page, _LIMIT)[1])

    @property
    def is_run_timeout(self) -> bool:
        """Whether it is a task's run_timeout, rather than the time of a dependency function."""
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
    def engine(self) -> EngineId:
        """The number the controller gave it; -1 before."""
        return EngineId(int.from_bytes(self._page[_ENGINE : _ENGINE + 4], "little", signed=True))

    @engine.setter
    def engine(self, value: EngineId) -> None:
        self._page[_ENGINE : _ENGINE + 4] = value.to_bytes(4, "little", signed=True)

    def close(self) -> None:
        """Give the page back."""
        self._page.close()
