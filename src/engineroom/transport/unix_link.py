"""The link on one host: `ipc://PATH`, a Unix stream socket.

A link connects only to a socket in a folder of ours with mode 0700, and asks the kernel whose process listens there:
it must be ours.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from ..errors import ConnectionFileError
from ..private import open_private_folder
from .connection import Socket
from .stream_link import StreamLink
from .unix_socket import PlainSocket, new_chunk, why_not_ours


class UnixLink(StreamLink):
    """A link through a Unix socket.

    Raises
    ------
    ConnectionFileError
        The folder of the socket is not ours alone, or another user's process listens there.
    """

    shares_memory = True

    def __init__(self, url: str) -> None:
        super().__init__()
        self._chunk = new_chunk()
        self._folder, self._path = _pinned(Path(url.removeprefix("ipc://")))
        try:
            self._connect()
        except PermissionError as error:
            self._stop_waiting()
            os.close(self._folder)
            raise ConnectionFileError(
                f"the socket that the connection file names cannot be trusted: {error}. Start the cluster anew"
            ) from None
        except OSError:  # the controller may come, or come again
            with self._lock:
                self._need_helper()

    def _open(self) -> Socket:
        new = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection = PlainSocket(new, self._chunk)
            new.connect(self._path)
            if why := why_not_ours(new):
                raise PermissionError(why)
        except BaseException:
            new.close()
            raise
        return connection

    def close(self, linger: float = 0.0) -> None:
        if not self._closed.is_set() and self._pid == os.getpid():
            super().close(linger)
            os.close(self._folder)


def _pinned(path: Path) -> tuple[int, str]:
    """The folder of a socket, checked and held open, and the path of the socket in it.

    A link connects again by itself. If the folder was removed meanwhile, another user may have made one of its name.
    On Linux the path leads to the folder that we hold, and to no other.
    """
    try:
        if not path.is_absolute():  # an abstract socket has no folder that keeps others out
            raise PermissionError("a socket is named by its absolute path")
        folder = open_private_folder(path.parent)
    except OSError as error:
        why = "it does not exist (any more)" if isinstance(error, FileNotFoundError) else error.strerror or error
        raise ConnectionFileError(
            f"the connection file names a socket in the folder {path.parent}, which cannot be trusted: {why}. "
            "The controller makes this folder, for you alone: start the cluster anew"
        ) from None
    held = Path(f"/proc/self/fd/{folder}")
    return folder, str(held / path.name if held.exists() else path)
