"""The entrance on one host: `ipc://PATH`, a Unix stream socket.

The socket lies in a folder of ours with mode 0700, and the kernel is asked whose process connects: it must be ours.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from pathlib import Path

from ..private import open_private_folder
from .connection import Often, Socket, accept
from .unix_socket import PlainSocket, new_chunk, why_not_ours

log = logging.getLogger(__name__)


class UnixEntrance:
    """An entrance at a Unix socket.

    Parameters
    ----------
    url : str
        `ipc://PATH`, in a folder that is ours alone. A socket that an earlier process left there is replaced.

    Raises
    ------
    PermissionError
        Others have access to the folder of the socket.
    """

    def __init__(self, url: str) -> None:
        self.url, self._path = url, Path(url.removeprefix("ipc://"))
        os.close(open_private_folder(self._path.parent))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)
            self._path.unlink(missing_ok=True)
            self._socket.bind(str(self._path))
            self._inode = self._path.stat().st_ino
            self._socket.listen(4096)
        except BaseException:
            self._socket.close()
            raise
        self._chunk = new_chunk()
        self._refusals = Often()

    def fileno(self) -> int:
        return self._socket.fileno()

    def enter(self) -> Socket | None:
        while (accepted := accept(self._socket)) is not None:
            if not (why := why_not_ours(accepted)):
                return PlainSocket(accepted, self._chunk)
            if self._refusals.may_log():
                log.warning("a connection is refused: %s", why)
            accepted.close()
        return None

    def close(self) -> None:
        self._socket.close()
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:  # else another controller listens here
                self._path.unlink()
