"""The files of a cluster: where they are, what they say, and how a user names the cluster. Starts and stops nothing."""

from __future__ import annotations

import re
import socket
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..config import (
    ConnectionInfo,
    as_options,
    connection_file,
    did_you_mean,
    naming,
    read_connection_file,
    socket_dir,
)
from ..config import cluster_file as file_of_cluster
from ..errors import ConnectionFileError
from ..messages.rights import Rights
from ..records.database_urls import file_of

#: The rights of connection files that are written on request.
LESSER: tuple[Rights, ...] = ("readonly", "submit")

#: How alike two names of profiles are of which one may be a slip of the other: from 0 to 1.
NEAR = 0.85

#: Seconds after which a socket that nobody listens on is asked again.
ASK_AGAIN_SECONDS = 0.05


class ClusterFiles:
    """The files of one cluster of one profile; they need not exist."""

    def __init__(self, profile_dir: Path, cluster_id: str = "", cluster_file: Path | None = None) -> None:
        self.profile_dir, self.cluster_id = profile_dir, cluster_id
        middle = f"-{cluster_id}" if cluster_id else ""
        security = profile_dir / "security"
        self.cluster_file = cluster_file or file_of_cluster(profile_dir, cluster_id)
        #: the one for clients, and the one for engines
        self.connection_files = [connection_file(profile_dir, cluster_id, role) for role in ("client", "engine")]
        #: those that `engineroom key` has written
        self.lesser = {rights: connection_file(profile_dir, cluster_id, rights) for rights in LESSER}
        self.secret_file = security / f"ipcontroller{middle}-secret.key"
        #: which engines are connected: for the controller, if it is started again
        self.roster_file = security / f"ipcontroller{middle}-engines.jsonl"
        #: written by `ipcluster start`
        self.pid_file = profile_dir / "pid" / f"ipcluster{middle}.pid"

    @classmethod
    def all_of(cls, profile_dir: Path) -> list[ClusterFiles]:
        """The clusters of a profile that have files, running or not."""
        security = profile_dir / "security"
        ids = {path.stem.removeprefix("cluster").removeprefix("-") for path in security.glob("cluster*.json")}
        for path in security.glob("ipcontroller*-client.json"):
            ids.add(path.name.removeprefix("ipcontroller").removesuffix("-client.json").removeprefix("-"))
        for path in security.glob("ipcontroller*-engine.json"):
            ids.add(path.name.removeprefix("ipcontroller").removesuffix("-engine.json").removeprefix("-"))
        for path in (profile_dir / "pid").glob("ipcluster*.pid"):
            ids.add(path.stem.removeprefix("ipcluster").removeprefix("-"))
        return [cls(profile_dir, id) for id in sorted(ids)]

    def log_of(self, process: str) -> Path:
        """The log of a process: "ipcluster", "ipcontroller", "ipengine-<engine_set_id>"."""
        middle = f"-{self.cluster_id}" if self.cluster_id else ""
        return self.profile_dir / "log" / f"{process}{middle}.log"

    def file_with(self, rights: Rights) -> Path:
        """The connection file with these rights."""
        return connection_file(self.profile_dir, self.cluster_id, "client" if rights == "full" else rights)

    # ------------------------------------------------------------------------------------------ names

    @property
    def profile(self) -> str:
        """The name of the profile, or its folder if that has no profile's name."""
        name = self.profile_dir.name
        return name.removeprefix("profile_") if name.startswith("profile_") else str(self.profile_dir)

    def __str__(self) -> str:
        of = f"cluster {self.cluster_id!r} of " if self.cluster_id else "the cluster of "
        return f"{of}profile {self.profile}"

    def client_arguments(self) -> str:
        """What to write in `engineroom.Client(…)`."""
        return ", ".join(f"{name}={value!r}" for name, value in naming(self.profile_dir, self.cluster_id).items())

    def options(self) -> str:
        """The command-line options that name this cluster, each with a space before it."""
        return as_options(naming(self.profile_dir, self.cluster_id))

    # ------------------------------------------------------------------------------------------ contents

    @property
    def connection(self) -> ConnectionInfo | None:
        """What the connection file for clients says; None if there is none that can be read."""
        try:
            return read_connection_file(self.connection_files[0])
        except ConnectionFileError:
            return None

    def warn_of_database(self) -> None:
        """Say so if the profile's database belongs to another cluster, so that this one has another beside it."""
        info = self.connection
        path = None if info is None else file_of(info.database)
        if path is None:
            return
        first = path.with_name(re.sub(r"-\d+(\.\w+)$", r"\1", path.name))
        if first != path and first.exists():
            warnings.warn(
                f"another cluster of this profile is running and has its database {first.name}; this one records its "
                f"tasks in {path.name}. Clients of this one: Client(cluster_id={self.cluster_id!r})",
                stacklevel=5,
            )

    def warn_of_new_profile(self) -> None:
        """Say so if the profile is new, and another has nearly its name: a misspelt name makes a new profile."""
        if question := did_you_mean(self.profile_dir, NEAR):
            name = self.profile_dir.name.removeprefix("profile_")
            told = f"there was no profile {name!r}: its folder {self.profile_dir} is made now. {question}"
            warnings.warn(told, stacklevel=6)

    def existing(self) -> list[Path]:
        """Those of its files that exist, and its socket."""
        paths = [self.cluster_file, *self.connection_files, *self.lesser.values(), self.secret_file, self.roster_file]
        paths.append(self.pid_file)
        if (socket := self.socket) is not None:
            paths.append(socket)
        return [path for path in paths if path.exists()]

    @property
    def socket(self) -> Path | None:
        """That of its controller; None if it has none, or its connection file is not there."""
        info = self.connection
        return None if info is None else info.socket

    def remove(self) -> list[Path]:
        """Remove its files, and its socket if nobody listens on that; returns which."""
        found = [path for path in self.existing() if not path.is_socket() or is_dead(path)]
        for path in found:
            path.unlink(missing_ok=True)
        return found


def is_other_host(info: ConnectionInfo) -> bool:
    """Whether the controller of this connection file runs on another host."""
    # An ipc socket is always on this host. `--location=` may name this host by another name: then the process id in
    # the file is that of a controller that we can see.
    if info.url.startswith("ipc://") or info.location in ("", socket.gethostname()):
        return False
    from ..launchers import FoundProcess  # a controller, which imports this module, starts no processes

    return not FoundProcess(info.pid, "controller").running


def is_dead(path: Path) -> bool:
    """Whether a socket is one on which nobody listens. If that cannot be told, it is not."""
    before = _inode(path)
    if before is None or not _refuses(path):
        return False
    # A controller that is being started has a socket that refuses, for a moment, before it listens: ask again.
    time.sleep(ASK_AGAIN_SECONDS)
    return _refuses(path) and _inode(path) == before


def dead_sockets(profile_dirs: Iterable[Path], of: Path | None = None, *, nobodys: bool) -> Iterator[tuple[Path, str]]:
    """Sockets of this user's clusters on which nobody listens, and whose they were.

    All profiles have their sockets in one folder. A socket that a connection file of one of these profiles names is
    left out while its controller runs.

    Parameters
    ----------
    of : Path, optional
        The profile whose sockets are wanted; default: of all.
    nobodys : bool
        Also those that no connection file names.
    """
    from ..launchers import FoundProcess

    owners = {info.socket: (files, info) for files, info in _connections(profile_dirs)}
    for path in socket_dir().iterdir():
        files, info = owners.get(path, (None, None))
        is_wanted = nobodys if files is None else of in (None, files.profile_dir)
        if not is_wanted or (info is not None and FoundProcess(info.pid, "controller").running):
            continue
        if is_dead(path):
            yield path, "a cluster whose connection file is gone" if files is None else str(files)


def _connections(profile_dirs: Iterable[Path]) -> Iterator[tuple[ClusterFiles, ConnectionInfo]]:
    for folder in profile_dirs:
        for files in ClusterFiles.all_of(folder):
            if (info := files.connection) is not None:
                yield files, info


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino if path.is_socket() else None
    except OSError:
        return None


def _refuses(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a listener that is busy does not hold us up
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
