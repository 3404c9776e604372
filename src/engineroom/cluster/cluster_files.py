"""Which clusters there are: what their files tell, and what of them runs. Only `forget` changes anything."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..cli.text import plural
from ..client import Client
from ..config import ConnectionInfo, connection_file, ipython_dir, read_connection_file, socket_dir
from ..errors import ConfigError, ConnectionFileError, EngineroomError
from ..launchers import FoundProcess
from . import cluster as clusters


class Known:
    """A cluster as its files tell it: which there are, and what runs."""

    def __init__(self, profile_dir: Path, cluster_id: str = "") -> None:
        self.profile_dir, self.cluster_id = profile_dir, cluster_id
        middle = f"-{cluster_id}" if cluster_id else ""
        security = profile_dir / "security"
        self.cluster_file = security / f"cluster{middle}.json"
        self.connection_files = [connection_file(profile_dir, cluster_id, role) for role in ("client", "engine")]
        self.secret_file = security / f"ipcontroller{middle}-secret.key"
        self.pid_file = profile_dir / "pid" / f"ipcluster{middle}.pid"
        self.log_file = profile_dir / "log" / f"ipcluster{middle}.log"

    @classmethod
    def all_of(cls, profile_dir: Path) -> Iterator[Known]:
        """All clusters of a profile, running or not."""
        security = profile_dir / "security"
        ids = {path.stem.removeprefix("cluster").removeprefix("-") for path in security.glob("cluster*.json")}
        for path in security.glob("ipcontroller*-client.json"):
            ids.add(path.name.removeprefix("ipcontroller").removesuffix("-client.json").removeprefix("-"))
        for path in security.glob("ipcontroller*-engine.json"):
            ids.add(path.name.removeprefix("ipcontroller").removesuffix("-engine.json").removeprefix("-"))
        for path in (profile_dir / "pid").glob("ipcluster*.pid"):
            ids.add(path.stem.removeprefix("ipcluster").removeprefix("-"))
        return (cls(profile_dir, id) for id in sorted(ids))

    @property
    def profile(self) -> str:
        """The profile's name, or its folder where it has none."""
        name = self.profile_dir.name
        return name.removeprefix("profile_") if name.startswith("profile_") else str(self.profile_dir)

    def __str__(self) -> str:
        of = f"cluster {self.cluster_id!r} of " if self.cluster_id else "the cluster of "
        return f"{of}profile {self.profile}"

    @property
    def connection(self) -> ConnectionInfo | None:
        """What its connection file says; None if there is none."""
        try:
            return read_connection_file(self.connection_files[0])
        except ConnectionFileError:
            return None

    @property
    def controller(self) -> FoundProcess | None:
        """The controller, where it runs on this host."""
        info = self.connection
        if info is None or _is_other_host(info):
            return None
        found = FoundProcess(info.pid, "controller")
        return found if found.running else None

    @property
    def is_elsewhere(self) -> bool:
        """Whether its controller is on another host, so that we cannot see whether it runs."""
        info = self.connection
        return info is not None and self.controller is None and _is_other_host(info)

    @property
    def supervisor(self) -> FoundProcess | None:
        """`ipcluster start`, while it runs."""
        try:
            found = FoundProcess(int(self.pid_file.read_text()), "ipcluster")
        except (OSError, ValueError):
            return None
        return found if found.running else None

    def open(self) -> clusters.Cluster | None:
        """The cluster; None if it has no (readable) cluster file."""
        try:
            return clusters.Cluster.from_file(self.cluster_file)
        except (FileNotFoundError, ConfigError):
            return None

    @property
    def processes(self) -> list[Any]:
        """Those of its processes that run on this host: controller, then nannies."""
        cluster = self.open()
        found = [] if cluster is None else [p for p in (cluster.controller, *cluster.engines.values()) if p is not None]
        by_hand = self.controller
        if by_hand is not None and all(p.pid != by_hand.pid for p in found):
            found.insert(0, by_hand)
        return [process for process in found if process.running]

    @property
    def running(self) -> bool:
        """Whether its controller runs here, or is just being started."""
        if self.controller is not None:
            return True
        cluster = self.open()
        return cluster is not None and cluster.controller is not None and cluster.controller.running

    def files(self) -> list[Path]:
        """Its files and its socket, as far as they are there."""
        paths = [self.cluster_file, *self.connection_files, self.secret_file, self.pid_file]
        info = self.connection
        if info is not None and info.url.startswith("ipc://") and not _is_other_host(info):
            paths.append(Path(info.url.removeprefix("ipc://")))
        return [path for path in paths if path.exists()]

    def forget(self) -> list[Path]:
        """Remove its files; returns which."""
        found = self.files()
        for path in found:
            path.unlink(missing_ok=True)
        return found

    def client_arguments(self) -> str:
        """What stands in `engineroom.Client(…)`."""
        name = self.profile_dir.name
        parts = []
        if self.profile_dir.parent != ipython_dir().absolute() or not name.startswith("profile_"):
            parts.append(f"profile_dir={str(self.profile_dir)!r}")
        elif name != "profile_default":
            parts.append(f"profile={self.profile!r}")
        if self.cluster_id:
            parts.append(f"cluster_id={self.cluster_id!r}")
        return ", ".join(parts)

    def options(self) -> str:
        """The options that name it, for messages."""
        parts = (
            self.client_arguments().replace("profile_dir=", "--profile-dir=").replace("cluster_id=", "--cluster-id=")
        )
        return "".join(
            f" {part}".replace("'", "").replace(" profile=", " --profile=") for part in parts.split(", ") if part
        )

    def unfinished(self) -> tuple[int, int] | None:
        """How many tasks engines hold, and how many wait for one; None if the controller does not say."""
        info = self.connection
        if info is None:
            return None
        counts: list[tuple[int, int]] = []

        def ask() -> None:
            with contextlib.suppress(EngineroomError, TimeoutError), Client(info, timeout=3) as client:
                status = client.queue_status()
                waiting = int(status.pop("unassigned"))
                counts.append((sum(engine["queue"] + engine["tasks"] for engine in status.values()), waiting))

        asking = threading.Thread(
            target=ask, daemon=True
        )  # a controller that is stuck must not keep us from stopping it
        asking.start()
        asking.join(4.0)
        return counts[0] if counts else None

    def left(self) -> str:
        """What a stop now will leave undone, as a sentence; "": nothing, as far as one can tell."""
        counts = self.unfinished()
        if not counts or not sum(counts):
            return ""
        held, waiting = counts
        return (
            f"{plural(held + waiting, 'task')} had not finished ({held:,} at engines, {waiting:,} waiting): "
            "recorded as aborted."
        )


def _is_other_host(info: ConnectionInfo) -> bool:
    # An ipc socket is of this host by its nature. Where --location= names this host by another name, the connection
    # file lies in the same folder as the pid of a controller we can see.
    if info.url.startswith("ipc://") or info.location in ("", socket.gethostname()):
        return False
    return not FoundProcess(info.pid, "controller").running


def dead_sockets() -> Iterator[Path]:
    """Sockets of this user's clusters that nobody listens on."""
    for path in socket_dir().iterdir():
        if not path.is_socket():
            continue
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                yield path
            except OSError:
                continue
