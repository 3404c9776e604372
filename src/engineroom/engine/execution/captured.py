"""What C code and child processes write to file descriptors 1 and 2 of an engine: it goes to files in memory.

Files, not pipes: writing to a pipe that is full waits for a reader, and our reader needs the GIL, which the writer may
hold. The zygote makes the files before the fork, so that the last words of an engine that died are not lost.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import fcntl
import os
import tempfile
import threading

from ..shared_page import SharedPage

#: A file that has been read, and is larger than this, is emptied.
LARGEST = 4 << 20
#: Bytes of a dead engine's last words that go to the log.
LAST_WORDS = 64 << 10


class CaptureFiles:
    """The two files of an engine."""

    def __init__(self) -> None:
        self.descriptors = _memory_file("stdout"), _memory_file("stderr")

    def close(self) -> None:
        """Give them back."""
        for descriptor in self.descriptors:
            os.close(descriptor)

    def last_words(self, page: SharedPage) -> bytes:
        """What a dead engine has not read, from both files."""
        found = b""
        for index, descriptor in enumerate(self.descriptors):
            begin, size = page.output_read(index), os.lseek(descriptor, 0, os.SEEK_END)
            if size > begin:
                found += os.pread(descriptor, LAST_WORDS, max(begin, size - LAST_WORDS))
        return found


class Captured:
    """One file descriptor of this engine. Any thread may read."""

    def __init__(self, number: int, file: int, index: int, page: SharedPage, limit: int) -> None:
        self._file, self._index, self._page, self._limit = file, index, page, limit
        self._position = 0
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._lock = threading.Lock()
        #: where the descriptor led before: the engine's log
        self.log = os.fdopen(os.dup(number), "w", encoding="utf-8", errors="replace", buffering=1)
        os.dup2(file, number)

    def read(self) -> tuple[str, int]:
        """What has been written since the last call: the text (at most the limit), and how many bytes were left out."""
        with self._lock:
            size = os.lseek(self._file, 0, os.SEEK_END)
            if size < self._position:  # somebody has opened /dev/stdout, and so emptied the file
                self._position = 0
            new = size - self._position
            if new == 0:
                return "", 0
            data = os.pread(self._file, min(new, self._limit), self._position)
            if size > LARGEST:
                os.ftruncate(self._file, 0)
                size = 0
            self._position = size
            self._page.set_output_read(self._index, size)
            return self._decode(data), new - len(data)


def capture(files: CaptureFiles, page: SharedPage, limit: int) -> tuple[Captured, Captured]:
    """Have what is written to descriptors 1 and 2 of this process go to the files."""
    out, err = files.descriptors
    return Captured(1, out, 0, page, limit), Captured(2, err, 1, page, limit)


class CLibrary:
    """The buffers of C's own stdout and stderr."""

    def __init__(self) -> None:
        self._flush = None
        with contextlib.suppress(OSError, AttributeError):
            self._flush = ctypes.CDLL(None).fflush
            self._flush.argtypes = [ctypes.c_void_p]

    def flush(self) -> None:
        """Write out what C code has printed."""
        if self._flush is not None:
            self._flush(None)


def _memory_file(name: str) -> int:
    """A file in memory (without memfd: an unnamed one on disk), to which writers append. Child processes inherit it."""
    try:
        descriptor = os.memfd_create(f"engine-{name}", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
    return descriptor
