"""Files beside an SQLite database: each holds one large buffer, and never changes.

They lie in the folder `<database>-payloads`, which is ours alone. A file is written before the transaction that names
it commits. Files that no row names are left by a process that was killed: the next owner of the database removes them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from ...errors import StoreError, StoreFull
from ...private import make_private_folder
from ...shared_memory.buffer import PIECE, SharedBuffer, are_descriptors_short, pieces, received

#: A buffer of at least so many bytes is a file. A smaller one costs less inside the database.
FILE_FROM = 256 << 10


class Written(msgspec.Struct, frozen=True):
    """A file that was written."""

    name: str
    size: int
    #: CRC-32
    sum: int


class _NoFile(OSError):
    """What a database names is no file that a database has written."""


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names of the files in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class PayloadFiles:
    """The files beside one database."""

    def __init__(self, database: Path, *, syncs: bool = False) -> None:
        """`syncs`: wait until the disk has what is written."""
        real = database.resolve()  # a link to a database is the same database
        self.folder = real.with_name(f"{real.name}-payloads")
        self._syncs = syncs
        #: names of files that were as they were written when we looked, or that we wrote
        self._checked: set[str] = set()

    # ------------------------------------------------------------------------------------------ writing

    def write(self, buffer: Any) -> Written:
        """Write a buffer to a new file.

        Raises
        ------
        StoreFull, StoreError
            It cannot be written; there is no such file.
        """
        name = secrets.token_hex(16)
        path = self.folder / name
        size = total = 0
        try:
            is_first = self._syncs and not self.folder.exists()
            make_private_folder(self.folder)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
            try:
                for piece in pieces(buffer):
                    total = crc32(piece, total)
                    size += piece.nbytes
                    while piece:
                        piece = piece[os.write(descriptor, piece) :]
                if self._syncs:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if self._syncs:
                sync_folder(self.folder)
            if is_first:
                sync_folder(self.folder.parent)
        except OSError as error:
            self.remove([name])
            text = f"the task database could not write {path}: {error.strerror}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise StoreFull(f"{text}. Free some space: it goes on by itself.") from error
            raise StoreError(text) from error
        self._checked.add(name)
        return Written(name, size, total)

    def remove(self, names: Collection[str]) -> None:
        """Remove files. Those that are not there are left out."""
        for name in names:
            self._checked.discard(name)
            with contextlib.suppress(OSError):
                self._path(name).unlink()
        if names:
            with contextlib.suppress(OSError):  # it is not empty
                self.folder.rmdir()

    # ------------------------------------------------------------------------------------------ reading

    def names(self) -> set[str]:
        """The files that there are."""
        try:
            return {entry.name for entry in os.scandir(self.folder)}
        except OSError:
            return set()

    def load(self, name: str, size: int, sum: int) -> Any:
        """The content, mapped or as bytes. None: it is missing, or not as it was written."""
        try:
            if name not in self._checked and not self.is_whole(name, size, sum):
                return None
            self._checked.add(name)
            if are_descriptors_short():
                return b"".join(self._pieces(name))
            loaded = received(self._open(name), size, is_trusted=True)
            if isinstance(loaded, SharedBuffer):
                loaded.origin = str(self.folder / name)
            return loaded
        except (OSError, ValueError):
            return None

    def is_whole(self, name: str, size: int, sum: int, tick: Callable[[], None] = lambda: None) -> bool:
        """Whether a file is as it was written. `tick` is called now and then."""
        found = total = 0
        try:
            for piece in self._pieces(name):
                total = crc32(piece, total)
                found += len(piece)
                tick()
                if found > size:
                    return False
        except OSError:
            return False
        return found == size and total == sum

    def holds(self, name: str, buffer: Any) -> bool:
        """Whether a file has this very content."""
        try:
            theirs = self._pieces(name)
            # bytes, because comparing memoryviews looks at each item
            return all(next(theirs, b"") == bytes(piece) for piece in pieces(buffer)) and next(theirs, None) is None
        except OSError:
            return False

    def _pieces(self, name: str) -> Iterator[bytes]:
        with open(self._open(name), "rb", buffering=0) as file:
            while piece := file.read(PIECE):
                yield piece

    def _path(self, name: Any) -> Path:
        """Where a file of the database lies: in the folder, whatever the database says.

        Raises
        ------
        _NoFile
            This is no name of a file.
        """
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
            raise _NoFile(errno.EINVAL, "no name of a file of the database", name)
        return self.folder / name

    def _open(self, name: str) -> int:
        """A descriptor to read a file. What is no file, or a link to one elsewhere, was not written by a database.

        Raises
        ------
        OSError
            There is no such file.
        """
        # without O_NONBLOCK the opening of a pipe that nobody writes to would never end
        descriptor = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _NoFile(errno.EINVAL, "not a regular file", name)
        return descriptor

    def name_of(self, buffer: Any) -> str | None:
        """The file that a buffer was loaded from; None: it is from elsewhere."""
        if not isinstance(buffer, SharedBuffer) or buffer.origin is None:
            return None
        path = Path(buffer.origin)
        return path.name if path.parent == self.folder else None

    # ------------------------------------------------------------------------------------------ copies

    def copy_to(self, other: PayloadFiles, names: Collection[str]) -> None:
        """Give another database these files, too: as links where that is possible. Missing ones are left out.

        Raises
        ------
        OSError
            One cannot be written.
        """
        if names:
            make_private_folder(other.folder)
        for name in names:
            with contextlib.suppress(FileNotFoundError, FileExistsError, _NoFile):
                source, target = self._path(name), other._path(name)
                if not stat.S_ISREG(source.lstat().st_mode):
                    continue
                try:
                    os.link(source, target)
                except (FileNotFoundError, FileExistsError):
                    raise
                except OSError:  # on another file system, or on one without links
                    import shutil

                    shutil.copy(source, target)
