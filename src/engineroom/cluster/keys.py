"""The keys of a cluster: connection files with lesser rights, and new keys in the place of old ones."""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path

import msgspec

from ..config import ConnectionInfo, is_local, read_connection_file, with_rights, write_connection_file
from ..errors import ConfigError, ControllerLost
from ..launchers import FoundProcess
from ..messages.rights import Rights
from ..system.processes import age_of
from .cluster_files import ClusterFiles
from .processes.restarts import SHORT_LIFE

#: A controller is started again within a second or two, if what has started it still runs.
AGAIN_SECONDS = 30.0
LOOK_SECONDS = 0.02
#: What starts a controller counts its life from a moment after it has begun.
NOTICED_SECONDS = 0.5

#: Databases that hold unfinished tasks while the controller is away.
_DURABLE = ("sqlite:", "mongodb")


def write_key(files: ClusterFiles, rights: Rights) -> Path:
    """Write the connection file with these rights; returns its path.

    Raises
    ------
    ConnectionFileError
        The cluster has no connection file: it does not run.
    ConfigError
        There are no other files to make from it.
    """
    path = files.file_with(rights)
    write_connection_file(path, with_rights(read_connection_file(files.connection_files[0]), rights))
    return path


def rotate_keys(files: ClusterFiles) -> list[Path]:
    """Give a cluster new keys; returns the connection files that were written. The old ones let nobody in any more.

    The controller is killed, and what has started it starts it again: so it takes up its unfinished tasks from the
    database, and every old link has to show a new key.

    Raises
    ------
    ConnectionFileError
        The cluster has no connection file: it does not run.
    ConfigError
        Its controller runs on another host or not at all, or its database would not keep its tasks.
    ControllerLost
        It has new keys, but nothing has started its controller again within `AGAIN_SECONDS`.
    """
    info = read_connection_file(files.connection_files[0])
    controller = FoundProcess(info.pid, "controller")
    if not is_local(info.location) or not controller.running:
        raise ConfigError(f"{files} has no controller that runs on this host: its keys end with it anyway")
    if not info.database.startswith(_DURABLE):
        raise ConfigError(
            f"the tasks of {files} are in {info.database} only, and would be lost with its controller. Wait until they "
            "have ended, then stop the cluster: the next one has new keys"
        )
    _let_grow_old(info.pid)
    fresh = msgspec.structs.replace(info, key=secrets.token_hex(32))
    written = _write_all(files, fresh)
    os.kill(info.pid, signal.SIGKILL)  # a controller that ends in good order aborts its tasks
    _wait_for_next(files, info.pid)
    return written


def _let_grow_old(pid: int) -> None:
    """Wait until a controller is so old that its end is no sign of one that cannot start."""
    time.sleep(max(0.0, SHORT_LIFE + NOTICED_SECONDS - age_of(pid)))


def _wait_for_next(files: ClusterFiles, pid: int) -> None:
    deadline = time.monotonic() + AGAIN_SECONDS
    while (info := files.connection) is None or info.pid == pid or not FoundProcess(info.pid, "controller").running:
        if time.monotonic() >= deadline:
            raise ControllerLost(
                f"{files} has new keys, and its controller was killed; within {AGAIN_SECONDS:g} s nothing has started "
                "it again. Its tasks are in its database: start a controller as you did before"
            )
        time.sleep(LOOK_SECONDS)


def _write_all(files: ClusterFiles, info: ConnectionInfo) -> list[Path]:
    """Write those files that exist. The one with all rights is the last: the next controller reads it."""
    written = []
    for rights in ("engine", "readonly", "submit", "full"):
        path = files.file_with(rights)
        if path.exists():
            write_connection_file(path, with_rights(info, rights))
            written.append(path)
    return written
