"""Files and folders that no other user of the host can change.

Sockets, connection files and configuration are trusted because of where they lie. This module makes such places, and
refuses others. The superuser is trusted.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from pathlib import Path

#: Others may neither read, write nor enter.
_PRIVATE = 0o700
_OTHERS = 0o077
#: The bits that let others change a file, or what lies in a folder.
_GROUP_WRITE, _ALL_WRITE = 0o020, 0o002
#: The files of a cluster have some hundred bytes, or some hundred for each of its sets of engines.
SMALL_BYTES = 16 << 20


def make_private_folder(path: Path) -> None:
    """Make a folder and the missing folders above it, all with mode 0700 whatever the umask is."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=_PRIVATE)  # a umask only takes bits away
            folder.chmod(_PRIVATE)


def why_not_private(found: os.stat_result) -> str:
    """Why a folder is not ours alone; "": it is."""
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a folder"
    if found.st_uid != os.geteuid():
        return f"it belongs to the user with the number {found.st_uid}, not to you"
    if found.st_mode & _OTHERS:
        return f"others have access to it (mode {found.st_mode & 0o777:04o}, not 0700)"
    return ""


def open_private_folder(path: Path) -> int:
    """A file descriptor of a folder that is ours, with mode 0700.

    The descriptor names this very folder. A path may name another one a moment later.

    Raises
    ------
    PermissionError
        The folder is not ours alone; the text says why.
    OSError
        It cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    why = why_not_private(os.fstat(handle))
    if why:
        os.close(handle)
        raise PermissionError(why)
    return handle


def read_small(path: Path) -> bytes:
    """The content of a small file, such as a connection file.

    Raises
    ------
    OSError
        It cannot be read. Or it is no file: a pipe would keep us waiting, a device may have no end. Or it has more than
        `SMALL_BYTES`.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a file", os.fspath(path))
        if found.st_size > SMALL_BYTES:
            raise OSError(errno.EFBIG, f"it has {found.st_size:,} bytes", os.fspath(path))
        return file.read(SMALL_BYTES)


def _is_alone_in(gid: int) -> bool:
    """Whether a group is the one that many systems make for each user, and nobody else is in it."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def why_not_trusted(path: Path) -> str:
    """Why another user of the host may have written this file, or put it there; "": only we (or root) can have."""
    return _why_others_may_write(path) or _why_others_may_write(path.parent)


def why_not_trusted_folder(path: Path) -> str:
    """Why another user of the host may have put files into this folder; "": only we (or root) can have.

    The folder above it may be one like /tmp, where others can make files, but cannot replace ours.
    """
    why = _why_others_may_write(path)
    return why or ("" if path.parent.stat().st_mode & stat.S_ISVTX else _why_others_may_write(path.parent))


def _why_others_may_write(place: Path) -> str:
    found = place.stat()
    if found.st_uid not in (os.geteuid(), 0):
        return f"{place} belongs to the user with the number {found.st_uid}"
    if found.st_mode & _ALL_WRITE or (found.st_mode & _GROUP_WRITE and not _is_alone_in(found.st_gid)):
        return f"others may write to {place} (mode {found.st_mode & 0o777:04o})"
    return ""
