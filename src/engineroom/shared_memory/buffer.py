"""A buffer in memory that several processes of a host can map: a file without a name, known by its descriptor.

A `SharedBuffer` can stand wherever bytes stand in a message. It is only read. Who wants to change the content takes a
copy by `own_copy`: its pages are copied when they are written to, each by itself.

The holder of a descriptor keeps others from changing the content. The descriptor was opened for this buffer alone, and
has a shared lock (flock). The lock lasts as long as any process has the descriptor or a mapping made with it, or the
descriptor is on its way. The kernel ends it when the last of them is gone, however they end. The pool writes to these
pages again only when nobody has such a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import resource
import stat
from collections.abc import Callable, Iterator
from typing import Any

#: Smaller buffers are cheaper to copy than to hand over.
SHARED_FROM = 256 << 10
#: A process opens descriptors for such buffers up to this part of its limit.
SHARE_OF_DESCRIPTORS = 0.5
#: A buffer takes two: `mmap` has one of its own.
DESCRIPTORS_EACH = 2
#: Bytes read at a time.
PIECE = 256 << 10

#: Descriptors of the buffers that this process has.
_descriptors: set[int] = set()


class SharedBuffer(mmap.mmap):
    """A buffer of `size` bytes in a file. It takes over the descriptor, and closes it in the end.

    Raises
    ------
    OSError, ValueError
        It cannot be mapped. The descriptor is still the caller's.
    """

    #: with the lock described above; of the process that has this object
    descriptor: int

    def __new__(cls, descriptor: int, size: int) -> SharedBuffer:
        made = super().__new__(cls, descriptor, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        made.descriptor = descriptor
        _descriptors.add(descriptor)
        return made

    def own_copy(self) -> mmap.mmap:
        """The same content, which the caller may change: pages are copied when they are written to."""
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000)
        return mmap.mmap(self.descriptor, len(self), flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)

    def pieces(self) -> Iterator[memoryview]:
        """The content, piece by piece, without a page of it in our address space. The next piece overwrites the last.

        Raises
        ------
        OSError
            The file cannot be read, or is shorter than it was.
        """
        room, done = memoryview(bytearray(min(PIECE, len(self)))), 0
        while done < len(self):
            count = os.preadv(self.descriptor, [room[: len(self) - done]], done)
            if not count:
                raise OSError("the file of a large buffer is shorter than it was")
            done += count
            yield room[:count]

    def read_all(self) -> bytearray:
        """The content as a copy in our own memory."""
        content = bytearray(len(self))
        view, done = memoryview(content), 0
        while done < len(content):
            count = os.preadv(self.descriptor, [view[done:]], done)
            if not count:
                raise OSError("the file of a large buffer is shorter than it was")
            done += count
        return content

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        descriptor = self.__dict__.pop("descriptor", None)
        if descriptor is not None:
            _descriptors.discard(descriptor)
            with contextlib.suppress(OSError):  # user code has closed it
                close(descriptor)


def own(buffer: Any) -> Any:
    """A buffer that the caller may give to user code: what that does to it, nobody else sees."""
    return buffer.own_copy() if isinstance(buffer, SharedBuffer) else buffer


def pieces(buffer: Any) -> Iterator[memoryview]:
    """The content of any buffer, piece by piece. Use a piece before you take the next."""
    if isinstance(buffer, SharedBuffer):
        yield from buffer.pieces()
        return
    view = memoryview(buffer)
    view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
    for start in range(0, view.nbytes, PIECE):
        yield view[start : start + PIECE]


def are_descriptors_short() -> bool:
    """Whether this process should open no more descriptors for buffers."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit != resource.RLIM_INFINITY and DESCRIPTORS_EACH * len(_descriptors) > limit * SHARE_OF_DESCRIPTORS


def received(descriptor: int, size: int, *, is_trusted: bool = False) -> SharedBuffer | bytearray:
    """The buffer that another process has handed over. The descriptor is ours to close, also if this raises.

    It is copied, and the descriptor closed, if it is small, or this process has too many of them.

    Parameters
    ----------
    is_trusted : bool
        The sender may hand over any regular file: it does not shorten it. Else only one that nobody can shorten.

    Raises
    ------
    ValueError
        It is not such a file, or has fewer bytes.
    OSError
        It cannot be mapped.
    """
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or not 0 < size <= found.st_size:
            raise ValueError(f"a buffer of {size} bytes comes in a regular file of as many bytes")
        if not is_trusted and not is_sealed(descriptor):
            raise ValueError("a buffer comes in a file that nobody can shorten")
        buffer = SharedBuffer(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return buffer.read_all() if size < SHARED_FROM or are_descriptors_short() else buffer


def is_sealed(descriptor: int) -> bool:
    """Whether a file is in memory, and nobody can shorten it.

    A process that reads mapped pages that have been cut off is killed by SIGBUS.
    """
    try:
        return bool(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:  # a file on a disk, a pipe …
        return False
