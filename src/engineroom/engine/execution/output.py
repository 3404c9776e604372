"""What a task prints: kept for its record, up to a limit, and readable while it runs.

`TaskStream` takes the place of sys.stdout and sys.stderr. What C code and child processes print comes through
`captured.py`, and is put among the rest.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from .captured import Captured

#: A stream that is written to looks for what C code and child processes have printed, unless it did this recently.
LOOK_SECONDS = 50e-6


def sendable(text: str) -> str:
    """Text that can be encoded: lone surrogates become "?"."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class TaskStream(io.TextIOBase):
    """Takes the place of sys.stdout (or stderr) on an engine.

    Outside tasks, what is written goes to `beneath`: the engine's log. In a process that a task has forked, it goes to
    the file descriptor.
    """

    encoding = "utf-8"
    errors = "replace"
    newlines = None
    line_buffering = True
    write_through = True
    mode = "w"

    def __init__(self, limit: int, beneath: Any, name: str = "<stdout>", captured: Captured | None = None) -> None:
        self._limit = limit
        self._beneath = beneath
        self._captured = captured
        self.name = name
        self._descriptor = 2 if name == "<stderr>" else 1
        #: what the task has printed
        self.parts: list[str] = []
        self._kept = 0
        self._dropped = 0
        self._streamed = 0  # how many parts have been streamed
        self._looked = 0.0
        self._is_forked = False
        self.in_task = False
        self.buffer = _Binary(self)

    @property
    def log(self) -> Any:
        """The engine's log."""
        return self._beneath

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._descriptor

    def reconfigure(self, **options: Any) -> None:
        """As of io.TextIOWrapper. Text stays text here, so no option changes anything."""
        unknown = set(options) - {"encoding", "errors", "newline", "line_buffering", "write_through"}
        if unknown:
            raise TypeError(f"reconfigure() got an unexpected keyword argument {min(unknown)!r}")

    def close(self) -> None:
        """Nothing happens: the tasks that come later print here, too."""

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self.in_task:
            if self._captured is not None:
                now = time.perf_counter()
                if now - self._looked > LOOK_SECONDS:
                    self._looked = now
                    self.collect()
            self._add(text)
        elif self._is_forked:
            os.write(self._descriptor, text.encode("utf-8", "replace"))
        else:
            self._beneath.write(text)
        return len(text)

    def _add(self, text: str) -> None:
        room = self._limit - self._kept
        if len(text) <= room:
            self.parts.append(text)
            self._kept += len(text)
        else:
            if room > 0:
                self.parts.append(text[:room])
                self._kept += room
            self._dropped += len(text) - max(room, 0)

    def flush(self) -> None:
        if not self.in_task and not self._is_forked:
            self._beneath.flush()

    def collect(self) -> bool:
        """Take in what C code and child processes have printed; returns whether there was any."""
        if self._captured is None:
            return False
        text, left_out = self._captured.read()
        if not text and not left_out:
            return False
        if self.in_task:
            self._add(text)
            self._dropped += left_out
        else:
            self._beneath.write(text)
        return True

    def forked(self) -> None:
        """This is a process that a task has forked: what it prints is read by the engine."""
        self._is_forked, self.in_task, self._captured = True, False, None
        self.parts = []

    def suspend(self) -> Callable[[], None]:
        """Another task prints from now on, until the returned function is called."""
        kept = self.parts, self._kept, self._dropped, self._streamed
        self.parts, self._kept, self._dropped, self._streamed = [], 0, 0, 0
        self.in_task = False

        def resume() -> None:
            self.parts, self._kept, self._dropped, self._streamed = kept
            self.in_task = True

        return resume

    def take(self) -> str:
        """All that the task printed; starts anew."""
        text = sendable("".join(self.parts))
        if self._dropped:
            text += f"\n[... {_human(self._dropped)} more dropped: the limit is {_human(self._limit)} per task ...]\n"
        self.parts, self._kept, self._dropped, self._streamed = [], 0, 0, 0
        return text

    def unstreamed(self) -> str:
        """What has been printed since this was last asked."""
        self.collect()
        count = len(self.parts)
        text = sendable("".join(self.parts[self._streamed : count]))
        self._streamed = count
        return text


class _Binary(io.RawIOBase):
    """sys.stdout.buffer: bytes written here are text of the task."""

    mode = "wb"

    def __init__(self, stream: TaskStream) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self.name = stream.name

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def close(self) -> None:
        """Nothing happens: a TextIOWrapper around this that is forgotten closes it."""

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._stream.write(self._decode(raw))
        return len(raw)


class NoInput(io.TextIOBase):
    """Takes the place of sys.stdin on an engine: reading is an error that says why."""

    name = "<stdin>"
    mode = "r"
    encoding = "utf-8"

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 0

    def isatty(self) -> bool:
        return False

    def read(self, size: int | None = -1) -> str:
        raise no_input()

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        raise no_input()

    def close(self) -> None:
        """Nothing happens: `exit()` closes sys.stdin."""


def no_input() -> io.UnsupportedOperation:
    """The error of whoever wants to read what a user types."""
    return io.UnsupportedOperation(
        "a task cannot read input: an engine has no terminal. Pass what the task needs as an argument; to debug a "
        "call, run it again here with rc.replay(msg_id)"
    )


def no_breakpoint(*args: Any, **kwargs: Any) -> None:
    """Takes the place of sys.breakpointhook, unless the user has set PYTHONBREAKPOINT."""
    raise no_input()


class Streams:
    """sys.stdin, sys.stdout and sys.stderr of an engine's tasks."""

    def __init__(self, stdout: TaskStream, stderr: TaskStream) -> None:
        self.stdout, self.stderr, self.stdin = stdout, stderr, NoInput()

    def restore(self) -> None:
        """Put them in their places again, whatever a task has put there."""
        sys.stdin, sys.stdout, sys.stderr = self.stdin, self.stdout, self.stderr

    def collect(self) -> bool:
        """Take in what C code and child processes have printed; returns whether there was any."""
        found = self.stdout.collect()
        return self.stderr.collect() or found

    def forked(self) -> None:
        """This is a process that a task has forked."""
        self.stdout.forked()
        self.stderr.forked()


def install(limit: int, captured: tuple[Captured, Captured] | None = None) -> Streams:
    """Put task streams in the places of sys.stdin, sys.stdout and sys.stderr."""
    out, err = captured or (None, None)
    sys.stdout.flush()
    sys.stderr.flush()
    streams = Streams(
        TaskStream(limit, out.log if out else sys.stdout, "<stdout>", out),
        TaskStream(limit, err.log if err else sys.stderr, "<stderr>", err),
    )
    streams.restore()
    if not os.environ.get("PYTHONBREAKPOINT"):
        sys.breakpointhook = no_breakpoint
    return streams


def _human(count: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}characters"
    return f"{count} characters"
