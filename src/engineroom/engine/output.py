"""What a task prints: kept for its record, up to a limit, and readable while it runs."""

from __future__ import annotations

import io
import sys
from typing import Any


def sendable(text: str) -> str:
    """Text that can be encoded: lone surrogates become "?"."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class TaskStream(io.TextIOBase):
    """Takes the place of sys.stdout (or stderr) on an engine."""

    def __init__(self, limit: int, beneath: Any) -> None:
        self._limit = limit
        self._beneath = beneath
        self._parts: list[str] = []
        self._kept = 0
        self._dropped = 0
        self._told = 0  # how many parts have been streamed
        self.in_task = False
        self.buffer = _Binary(self)

    encoding = "utf-8"
    errors = "replace"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return int(self._beneath.fileno())  # what C code and child processes print goes to the engine's log

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if not self.in_task:
            self._beneath.write(text)
            return len(text)
        room = self._limit - self._kept
        if len(text) <= room:
            self._parts.append(text)
            self._kept += len(text)
        else:
            if room > 0:
                self._parts.append(text[:room])
                self._kept += room
            self._dropped += len(text) - max(room, 0)
        return len(text)

    def flush(self) -> None:
        if not self.in_task:
            self._beneath.flush()

    @property
    def is_empty(self) -> bool:
        return not self._parts

    def take(self) -> str:
        """All that the task printed; starts anew."""
        text = sendable("".join(self._parts))
        if self._dropped:
            text += f"\n[... {_human(self._dropped)} more dropped: the limit is {_human(self._limit)} per task ...]\n"
        self._parts, self._kept, self._dropped, self._told = [], 0, 0, 0
        return text

    def news(self) -> str:
        """What has been printed since this was last asked."""
        count = len(self._parts)
        text = sendable("".join(self._parts[self._told : count]))
        self._told = count
        return text


class _Binary(io.RawIOBase):
    """sys.stdout.buffer: bytes written here are text of the task."""

    def __init__(self, stream: TaskStream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._stream.write(raw.decode("utf-8", "replace"))
        return len(raw)


def install(limit: int) -> tuple[TaskStream, TaskStream]:
    """Put task streams in the place of sys.stdout and sys.stderr."""
    stdout, stderr = TaskStream(limit, sys.stdout), TaskStream(limit, sys.stderr)
    sys.stdout, sys.stderr = stdout, stderr
    return stdout, stderr


def _human(count: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}characters"
    return f"{count} characters"
