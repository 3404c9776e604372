"""Makes shared buffers, and uses their pages again.

Memory that is sent again and has not changed is copied once: the pool keeps its latest copies for some seconds, and
compares.

A fresh page costs several times as much as the copy into it. So the pool keeps the pages of a buffer that nobody uses
any more, for some seconds. It knows that nobody uses them when it gets an exclusive lock on the file: each buffer that
it gives out has a shared one (see `buffer.py`), which the kernel ends with the last process that has it.

There is no thread here. A process that was killed leaves nothing: the files have no names.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from ..cores import usable_memory
from .buffer import SHARED_FROM, SharedBuffer, are_descriptors_short, single_descriptors

#: Bytes that are kept for later: a share of the memory, and at most so many.
SHARE_OF_MEMORY = 1 / 8
MOST_KEPT = 2 << 30
#: Pages that have not been used for so many seconds go back to the system.
KEPT_SECONDS = 10.0
#: … and after so few seconds, if they are more than so many bytes.
MANY_KEPT_SECONDS, MANY = 2.0, 256 << 20
#: So many files are tried for their lock at most, to find one that is free.
TRIED = 32
#: Bytes that are copied without letting other threads run.
COPIED_AT_ONCE = 1 << 20
#: A file may have so many times the bytes that are needed.
LARGEST_FIT = 2.0

#: Errors that say that this system has no such files. Others pass.
_NEVER = {errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP}


class _File:
    """A file in memory without a name, which the pool may write to when nobody else has it."""

    __slots__ = ("_filled", "_mapping", "constant", "descriptor", "place", "since", "size")

    def __init__(self, size: int) -> None:
        self.size, self.descriptor = size, -1
        #: so many bytes at its beginning have pages; they are mapped when they are used again
        self._filled = 0
        self._mapping: mmap.mmap | None = None
        #: id of the bytes object that was copied last; 0: it was something else
        self.constant = 0
        #: where the memory was that was copied last: id of the object, and how many bytes
        self.place = 0, 0
        #: when the pool's own process had no use for it any more
        self.since = 0.0
        self.descriptor = os.memfd_create("engineroom", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        single_descriptors.add(id(self))
        try:
            os.ftruncate(self.descriptor, size)
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        except BaseException:
            self.close()
            raise

    def is_free(self) -> bool:
        """Whether no process has a buffer in it."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return True

    def fill(self, memory: memoryview) -> SharedBuffer:
        """Copy memory into it; returns the buffer. Raises OSError."""
        size = memory.nbytes
        if size <= self._filled:
            self._fill_mapped(memory)
        else:  # page faults, one for each page, would double the cost of fresh pages
            done = 0
            while done < size:
                done += os.pwrite(self.descriptor, memory[done:], done)
            self._filled = size
            self._unmap()
        return self.give(size)

    def room(self, size: int) -> memoryview:
        """Its first so many bytes, to be written to. Raises OSError if there is no memory for them."""
        if size > self._filled:
            os.posix_fallocate(self.descriptor, 0, size)  # else a page that cannot be had would end this process
            self._filled = size
            self._unmap()
        return memoryview(self._mapped())[:size]

    def give(self, size: int) -> SharedBuffer:
        """The buffer: its first so many bytes. Raises OSError."""
        held = os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return SharedBuffer(held, size)
        except BaseException:
            os.close(held)
            raise

    def _fill_mapped(self, memory: memoryview) -> None:
        """Copy into pages that there are: through a mapping that stays, which is twice as fast as a system call."""
        mapping = self._mapped()
        for start in range(0, memory.nbytes, COPIED_AT_ONCE):  # other threads may run in between
            piece = memory[start : start + COPIED_AT_ONCE]
            mapping[start : start + piece.nbytes] = piece

    def _mapped(self) -> mmap.mmap:
        if self._mapping is None:
            self._mapping = mmap.mmap(self.descriptor, self._filled, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
            single_descriptors.add(id(self._mapping))
        return self._mapping

    def _unmap(self, singles: set[int] = single_descriptors) -> None:
        singles.discard(id(self._mapping))
        self._mapping = None

    def close(self, close: Callable[[int], None] = os.close, singles: set[int] = single_descriptors) -> None:
        """Nobody writes to it any more. Buffers in it live on."""
        if self.descriptor >= 0:
            self._unmap()
            singles.discard(id(self))
            close(self.descriptor)
            self.descriptor = -1

    __del__ = close


class Blank:
    """Pages of a pool that are written bit by bit: first to `room`, then `finish`. Made by `Pool.blank`."""

    def __init__(self, file: _File, size: int, finish: Callable[[_File, int], SharedBuffer]) -> None:
        #: what is to be written to
        self.room = file.room(size)
        self._file, self._finish = file, finish

    def finish(self) -> SharedBuffer | memoryview:
        """What was written, which nobody changes any more: a buffer, or, without a descriptor for it, only memory."""
        try:
            return self._finish(self._file, self.room.nbytes)
        except OSError:
            return self.room


class Pool:
    """The shared buffers that a process makes. Any thread may use it.

    Parameters
    ----------
    most : int
        Bytes that are kept for later; never more than an eighth of the memory.
    held : int
        Bytes of copies that are kept because the same memory may be sent again.
    """

    def __init__(self, most: int = MOST_KEPT, held: int = 0) -> None:
        self._most_held = held
        self._most = min(most, int(usable_memory() * SHARE_OF_MEMORY))
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._is_possible = hasattr(os, "memfd_create")  # Linux
        #: buffers of this process that live
        self._given: dict[weakref.ref[SharedBuffer], _File] = {}
        #: files whose buffer has just died in this process. A destructor appends here: it may not take the lock.
        self._returned: deque[_File] = deque()
        #: files without a buffer in this process, the one that came last at the end; other processes may have them
        self._kept: list[_File] = []
        #: id of a bytes object → (the object, a reference to its buffer): bytes do not change
        self._constants: dict[int, tuple[bytes, weakref.ref[SharedBuffer]]] = {}
        #: place of memory (see `_File.place`) → its last copy. Memory that has not changed since is not copied again.
        self._last: dict[tuple[int, int], weakref.ref[SharedBuffer]] = {}
        #: the latest of these copies, which may have no other user: (the copy, when it was made or used again)
        self._held: OrderedDict[tuple[int, int], tuple[SharedBuffer, float]] = OrderedDict()

    @property
    def kept_bytes(self) -> int:
        """Bytes that are kept for later, or that other processes have."""
        with self._lock:
            self._take_back()
            return sum(file.size for file in self._kept)

    def copy(self, memory: Any) -> Any:
        """A copy of contiguous memory: in shared memory if that is worth while and possible, else bytes."""
        view = memoryview(memory)
        view = view if view.format == "B" and view.ndim == 1 else view.cast("B")
        if not self._may_share(view.nbytes):
            return bytes(view)
        owner: Any = view.obj
        constant = owner if type(owner) is bytes and len(owner) == view.nbytes else None
        if constant is not None and (known := self._constants.get(id(constant))) is not None:
            living = known[1]()
            if living is not None:
                return living
        place = id(owner), view.nbytes
        last = self._last.get(place)
        before = None if last is None else last()
        if before is not None and before.holds(view):
            self._hold(place, before)
            return before
        before = None
        file: _File | None = None
        try:
            with self._lock:
                self._held.pop(place, None)
                file = self._free_file(view.nbytes) or self._free_file_of_held(view.nbytes)
            file = file or _File(_rounded(view.nbytes))
            buffer = file.fill(view)
        except BaseException as error:
            if file is not None:
                file.close()
            if not isinstance(error, OSError):
                raise
            self._is_possible = error.errno not in _NEVER  # else too few descriptors, no memory …
            return bytes(view)
        self._last[place] = reference = self._note_given(buffer, file, place)
        self._hold(place, buffer)
        if constant is not None:
            file.constant = id(constant)
            self._constants[file.constant] = constant, reference
        return buffer

    def blank(self, size: int) -> Blank | None:
        """Room for a buffer of so many bytes, which somebody writes; None: it is not worth while, or not possible."""
        if not self._may_share(size):
            return None
        try:
            with self._lock:
                file = self._free_file(size)
            return Blank(file or _File(_rounded(size)), size, self._finished)
        except OSError as error:
            self._is_possible = error.errno not in _NEVER
            return None

    def _finished(self, file: _File, size: int) -> SharedBuffer:
        buffer = file.give(size)
        self._note_given(buffer, file, (0, 0))
        return buffer

    def _may_share(self, size: int) -> bool:
        """Whether a buffer of so many bytes in shared memory is worth while, and possible."""
        is_large = size >= SHARED_FROM
        return is_large and self._is_possible and os.getpid() == self._pid and self._has_room()

    def _note_given(self, buffer: SharedBuffer, file: _File, place: tuple[int, int]) -> weakref.ref[SharedBuffer]:
        """A buffer is given out, with its content from a place (see `_File.place`)."""
        reference = weakref.ref(buffer, self._on_death)
        self._given[reference] = file
        file.constant, file.place = 0, place
        return reference

    def tidy(self) -> None:
        """Give back what has not been used for some seconds."""
        if self._returned or self._kept or self._held:
            since = time.monotonic() - KEPT_SECONDS
            with self._lock:
                self._take_back()
                while self._held and next(iter(self._held.values()))[1] < since:
                    self._held.popitem(last=False)
                while self._returned:  # these have been kept for so long already
                    self._returned.popleft().close()
                self._drop(self._most, since)
                while self._kept and self._kept[0].since < since + KEPT_SECONDS - MANY_KEPT_SECONDS:
                    if sum(file.size for file in self._kept) <= MANY:
                        break
                    self._kept.pop(0).close()

    def close(self) -> None:
        """Keep nothing. Buffers that were given out live on."""
        with self._lock:
            self._most = self._most_held = 0
            self._held.clear()
            self._take_back()

    def _hold(self, place: tuple[int, int], buffer: SharedBuffer) -> None:
        """Keep a copy for a while: the same memory may be sent again soon, unchanged."""
        if not self._most_held:
            return
        with self._lock:
            self._held.pop(place, None)
            self._held[place] = buffer, time.monotonic()
            total = sum(len(held) for held, _ in self._held.values())
            while total > self._most_held:
                _, (held, _) = self._held.popitem(last=False)
                total -= len(held)

    def _free_file_of_held(self, size: int) -> _File | None:
        """Give up copies that are kept only because their memory may be sent again, if room is needed for others."""
        total = sum(len(held) for held, _ in self._held.values())
        while self._held and total + size > self._most_held:
            _, (held, _) = self._held.popitem(last=False)
            total -= len(held)
            del held
            file = self._free_file(size)
            if file is not None:
                return file
        return None

    def _has_room(self) -> bool:
        """Whether this process may open descriptors for a buffer. Files that are kept for later are closed for it."""
        if not are_descriptors_short():
            return True
        with self._lock:
            self._held.clear()
            self._take_back()
        return not are_descriptors_short()

    def _on_death(self, reference: weakref.ref[SharedBuffer]) -> None:
        file = self._given.pop(reference, None)
        if file is not None:
            if self._last.get(file.place) is reference:
                del self._last[file.place]
            known = self._constants.get(file.constant)
            if known is not None and known[1] is reference:
                del self._constants[file.constant]
            self._returned.append(file)

    def _take_back(self) -> None:
        now = time.monotonic()
        with contextlib.suppress(IndexError):
            while True:
                file = self._returned.popleft()
                file.since = now
                self._kept.append(file)
        self._drop(self._most, float("-inf"))

    def _free_file(self, size: int) -> _File | None:
        """A kept file with room for so many bytes that nobody has."""
        self._take_back()
        fitting = [file for file in reversed(self._kept) if size <= file.size <= LARGEST_FIT * _rounded(size)]
        for file in fitting[:TRIED]:
            if file.is_free():
                self._kept.remove(file)
                return file
        return None

    def _drop(self, most: int, since: float) -> None:
        """Close the oldest kept files: those from before a moment, those beyond so many bytes or descriptors."""
        total = sum(file.size for file in self._kept)
        while self._kept and (total > most or self._kept[0].since < since or are_descriptors_short()):
            file = self._kept.pop(0)
            total -= file.size
            file.close()


def _rounded(size: int) -> int:
    """The size of a file for so many bytes: a little larger, so that it fits the next one, too."""
    step = max(4096, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step
