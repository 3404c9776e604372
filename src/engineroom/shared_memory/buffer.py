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
from collections.abc import Callable, Iterable, Iterator
from typing import Any

#: Smaller buffers are cheaper to copy than to hand over.
SHARED_FROM = 256 << 10
#: A process opens descriptors for such buffers up to this part of its limit, all of its buffers together. One message
#: may bring 250 more for a moment: with the usual limit of 1024 a quarter is left even then.
SHARE_OF_DESCRIPTORS = 0.5
#: It leaves so many to user code and to connections, also if its limit is small.
LEFT_DESCRIPTORS = 96
#: A shared buffer is in the memory of the host once, however many processes have it: it counts as one part in so many.
SHARED_COUNTS = 4
#: Linux reserves no memory for pages that are perhaps written to. (Python 3.11 has no name for it.)
_NORESERVE = 0x4000
#: The unit of `st_blocks`.
_BLOCK = 512
#: Bytes read at a time.
PIECE = 1 << 20
#: Bytes compared at a time: they fit into a processor's cache.
COMPARED = 128 << 10

#: The buffers of this process (Python's id of each), which take two descriptors: `mmap` has one of its own …
_buffers: set[int] = set()
#: … and what takes one: the copies of its own, the files of the pool, and their mappings.
single_descriptors: set[int] = set()


class SharedBuffer(mmap.mmap):
    """A buffer of `size` bytes in a file. It takes over the descriptor, and closes it in the end.

    Raises
    ------
    OSError, ValueError
        It cannot be mapped. The descriptor is still the caller's.
    """

    #: with the lock described above; of the process that has this object
    descriptor: int
    #: where the content was read from, if it is kept there: the store's name of it
    origin: str | None = None
    _key: tuple[int, int, int] | None = None

    def __new__(cls, descriptor: int, size: int) -> SharedBuffer:
        made = super().__new__(cls, descriptor, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        made.descriptor = descriptor
        _buffers.add(id(made))
        return made

    @property
    def key(self) -> tuple[int, int, int]:
        """Two buffers of this process with the same key have the same content, as long as both live."""
        if self._key is None:
            found = os.fstat(self.descriptor)
            self._key = found.st_dev, found.st_ino, len(self)
        return self._key

    def own_copy(self) -> mmap.mmap | bytearray:
        """The same content, which the caller may change: pages are copied when they are written to.

        It is copied at once if this process has too many descriptors.
        """
        if not are_descriptors_short():
            with contextlib.suppress(OSError):  # none is left
                return _OwnCopy(self.descriptor, len(self))
        return self.read_all()

    def holds(self, memory: memoryview) -> bool:
        """Whether this is the content, a memoryview of as many bytes. It costs about as much as a copy."""
        room = bytearray(min(COMPARED, len(self)))
        for start in range(0, len(self), COMPARED):
            piece = memory[start : start + COMPARED]
            if piece.nbytes < len(room):
                room = bytearray(piece.nbytes)
            room[:] = memoryview(self)[start : start + piece.nbytes]
            if room != piece:  # of a bytearray and a memoryview: as quick as C can
                return False
        return True

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
        return _read_all(self.descriptor, len(self))

    # At the end of the interpreter, names of modules may be gone: a destructor has what it needs in its defaults.
    def __del__(self, close: Callable[[int], None] = os.close, buffers: set[int] = _buffers) -> None:
        descriptor = self.__dict__.pop("descriptor", None)
        if descriptor is not None:
            buffers.discard(id(self))
            try:  # noqa: SIM105
                close(descriptor)
            except OSError:
                pass  # user code has closed it


class _OwnCopy(mmap.mmap):
    """A mapping of a file that this process may write to, without changing the file."""

    def __new__(cls, descriptor: int, size: int) -> _OwnCopy:
        flags = mmap.MAP_PRIVATE | _NORESERVE
        made = super().__new__(cls, descriptor, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        single_descriptors.add(id(made))
        return made

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """A task may get it as the value of a `PickleBuffer`: pickled, that is a bytearray."""
        return bytearray, (self[:],)

    def __del__(self, singles: set[int] = single_descriptors) -> None:
        singles.discard(id(self))


def _read_all(descriptor: int, size: int) -> bytearray:
    """The first bytes of a file."""
    content = bytearray(size)
    view, done = memoryview(content), 0
    while done < size:
        count = os.preadv(descriptor, [view[done:]], done)
        if not count:
            raise OSError("the file of a large buffer is shorter than it was")
        done += count
    return content


def key_of(buffer: Any) -> Any:
    """What two buffers have in common if they surely have the same content, as long as both live."""
    return buffer.key if isinstance(buffer, SharedBuffer) else id(buffer)


def weight(buffers: Iterable[Any]) -> int:
    """What buffers count for the limits on memory: their bytes, and of shared ones a part."""
    return sum(
        len(buffer) // SHARED_COUNTS if isinstance(buffer, SharedBuffer) else memoryview(buffer).nbytes
        for buffer in buffers
    )


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
    if limit == resource.RLIM_INFINITY:
        return False
    most = min(limit * SHARE_OF_DESCRIPTORS, limit - LEFT_DESCRIPTORS)
    return 2 * len(_buffers) + len(single_descriptors) >= most


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
        It cannot be read.
    """
    kept = False
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or not 0 < size <= found.st_size:
            raise ValueError(f"a buffer of {size} bytes comes in a regular file of as many bytes")
        if not is_trusted:
            _check_readable(descriptor, found, size)
        if size >= SHARED_FROM and not are_descriptors_short():
            with contextlib.suppress(OSError):  # `mmap` needs a descriptor more
                buffer = SharedBuffer(descriptor, size)
                kept = True
                return buffer
        return _read_all(descriptor, size)
    finally:
        if not kept:
            os.close(descriptor)


def _check_readable(descriptor: int, found: os.stat_result, size: int) -> None:
    """Refuse a file that could not be read to its end, or that takes memory when it is read.

    Raises
    ------
    ValueError
    """
    if not is_sealed(descriptor):
        raise ValueError("a buffer comes in a file that nobody can shorten")
    if os.fstatvfs(descriptor).f_bsize != mmap.PAGESIZE:  # where there is no such page left, reading ends a process
        raise ValueError("a buffer comes in a file of ordinary pages, not of huge ones")
    if found.st_blocks * _BLOCK < size:
        raise ValueError("a buffer comes in a file that was written to its end, without holes")


def is_sealed(descriptor: int) -> bool:
    """Whether a file is in memory, and nobody can shorten it.

    A process that reads mapped pages that have been cut off is killed by SIGBUS.
    """
    try:
        return bool(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:  # a file on a disk, a pipe …
        return False
