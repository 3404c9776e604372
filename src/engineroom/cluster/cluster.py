"""A cluster: one controller and sets of engines, started and stopped together."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from .. import resources as named_resources
from .._version import __version__
from ..client import Client
from ..config import (
    ConnectionInfo,
    connection_file,
    make_profile_dir,
    profile_dir,
    read_connection_file,
    retention_settings,
    write_private,
)
from ..cores import usable_cores
from ..errors import ConfigError, ConnectionFileError, EngineroomError, StoreBusy, TimeoutError
from ..ids import new_uuid
from ..launchers import FoundProcess, Launcher, LocalProcess

T = TypeVar("T")

#: Exit code of a controller whose task database belongs to another one.
STORE_BUSY = 12

#: Short names of databases, and the flag of `ipcontroller` that chooses each.
DATABASES = {"sqlite": "--sqlitedb", "mongodb": "--mongodb", "memory": "--dictdb", "none": "--nodb"}

#: A controller or a nanny whose lives are this short (seconds), so often in a row, is not started again.
SHORT_LIFE, SHORT_LIVES = 2.0, 5


class Cluster:
    """A controller and engines on this machine.

    Parameters
    ----------
    n : int, optional
        Number of engines; default: one for each core that this process may use (CPU affinity, cgroup quota).
    profile, profile_dir : str, optional
        Whose configuration, connection files and task database.
    cluster_id : str, optional
        Distinguishes clusters of one profile; default: random.
    database : {"sqlite", "memory", "none"} or url, optional
        Where tasks are recorded; default: what the profile's configuration says, else SQLite in the profile's folder.
    controller_ip : str
        Address to listen on for other hosts ("*": all), encrypted; default: this host only.
    controller_args, engine_args : list of str
        More arguments for `ipcontroller` and `ipengine`.
    resources : dict, optional
        What this host has for tasks to ask for: `{"gpu": 4, "license": 1}`. The first set of engines shares it; for
        others say so in `start_engines_sync`.
    retention : dict, optional
        What is kept in the database: `{"age": "30d", "payload_age": "7d", "count": 10**6, "bytes": "10GB"}`, `rules`
        and `min_free`, as in docs/records.md. Default: what the configuration says, else everything.
    engine_timeout : float
        Seconds to wait for the engines.
    shutdown_atexit : bool
        Whether the cluster ends with this process, however this process ends.

    Examples
    --------
    >>> with Cluster(n=4) as rc:                               # doctest: +SKIP
    ...     rc.load_balanced_view().map_sync(abs, range(-4, 0))
    [4, 3, 2, 1]
    """

    def __init__(
        self,
        *,
        n: int | None = None,
        profile: str = "",
        profile_dir: str | os.PathLike[str] = "",
        cluster_id: str | None = None,
        cluster_file: str | None = None,
        database: str | None = None,
        controller_ip: str = "",
        controller_location: str = "",
        controller_args: Sequence[str] = (),
        engine_args: Sequence[str] = (),
        resources: Mapping[str, int] | None = None,
        retention: Mapping[str, Any] | None = None,
        engines: str = "local",
        controller: str = "local",
        engine_timeout: float = 60.0,
        shutdown_atexit: bool = True,
        load_profile: bool = True,
    ) -> None:
        if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 0):
            raise ConfigError(f"n is a number of engines, got {n!r}")
        for kind, name in (("engines", engines), ("controller", controller)):
            if name.lower() != "local":
                raise ConfigError(f"{kind}={name!r}: the launchers there are: local")
        self.n = n
        self.profile = profile
        self.profile_dir = _profile_dir(profile, profile_dir)
        self.cluster_id = new_uuid()[:8] if cluster_id is None else cluster_id
        name = f"cluster-{self.cluster_id}.json" if self.cluster_id else "cluster.json"
        self.cluster_file = Path(cluster_file or self.profile_dir / "security" / name)
        self.database = database
        self.controller_ip, self.controller_location = controller_ip, controller_location
        self.controller_args, self.engine_args = list(controller_args), list(engine_args)
        self.resources = named_resources.check(resources or {})
        self.retention = dict(retention or {})
        retention_settings(self.retention)
        self.engine_timeout = engine_timeout
        self.shutdown_atexit = shutdown_atexit
        self.load_profile = load_profile
        #: the controller's launcher; None if it is not running
        self.controller: Launcher | None = None
        #: engine_set_id → launcher of its nanny
        self.engines: dict[str, Launcher] = {}
        self._sizes: dict[str, int] = {}
        self._shares: dict[str, dict[str, int]] = {}  # what of the host's resources each set has
        self._client: Client | None = None
        self._stopping = False
        self._born = 0.0  # when the controller was started
        self._short_lives = 0
        self._short_sets: dict[str, int] = {}  # … and for engine sets
        self._lock = threading.Lock()

    # ------------------------------------------------------------------------------------------ starting

    def start_cluster_sync(self, n: int | None = None) -> Self:
        """Start the controller and `n` engines (default: `self.n`, else one per core)."""
        if n is not None:
            self.n = n
        self._launch_controller()  # both come up at the same time
        try:
            if self._wanted():
                self.start_engines_sync(self._wanted())
            self._wait_for_connection_file()
        except BaseException:
            self.stop_cluster_sync()
            raise
        self.write_cluster_file()
        return self

    def start_controller_sync(self) -> None:
        """Start the controller, and wait until it can be connected to.

        Raises
        ------
        RuntimeError
            It is running.
        """
        self._launch_controller()
        self._wait_for_connection_file()
        self.write_cluster_file()

    def start_engines_sync(
        self, n: int | None = None, engine_set_id: str | None = None, resources: Mapping[str, int] | None = None
    ) -> str:
        """Start a set of engines; returns the set's id.

        Parameters
        ----------
        n : int, optional
            How many; default: `self.n`, else one per core.
        engine_set_id : str, optional
            What to call the set.
        resources : dict, optional
            What they share: `{"gpu": 2}`. Default: `self.resources` for the first set, nothing for others.
        """
        count = self._wanted() if n is None else n
        set_id = engine_set_id or f"{int(time.time())}-{new_uuid()[:4]}"
        if set_id in self.engines:
            raise KeyError(f"there is an engine set {set_id!r} already")
        if resources is None:
            resources = {} if any(self._shares.values()) else self.resources
        shares = named_resources.check(resources)
        self._stopping = False
        self._shares[set_id] = shares
        self._launch_engines(set_id, count)
        if self.controller is not None and self._connection_file().exists():
            self.write_cluster_file()
        return set_id

    def _launch_engines(self, set_id: str, count: int) -> None:
        args = [
            sys.executable,
            "-m",
            "engineroom.engine",
            f"--n={count}",
            f"--file={self._connection_file('engine')}",
            f"--profile-dir={self.profile_dir}",
            *self.engine_args,
        ]
        if self._shares.get(set_id):
            args.append(f"--resources={named_resources.spell(self._shares[set_id])}")
        launcher = LocalProcess(args, self._log_file(f"ipengine-{set_id}"), environment=_import_path())
        born = time.monotonic()
        launcher.on_stop(lambda code: self._engines_ended(set_id, launcher, code, born))
        self.engines[set_id] = launcher
        self._sizes[set_id] = count
        launcher.start()

    def _engines_ended(self, set_id: str, launcher: Launcher, code: int, born: float) -> None:
        """Start a set of engines again whose nanny was killed, and the engines with it."""
        with self._lock:
            short = time.monotonic() - born < SHORT_LIFE
            self._short_sets[set_id] = self._short_sets.get(set_id, 0) + 1 if short else 0
            again = code != 0 and self._short_sets[set_id] < SHORT_LIVES
            if again and not self._stopping and self.engines.get(set_id) is launcher:
                with contextlib.suppress(Exception):
                    self._launch_engines(set_id, self._sizes[set_id])
                    self.write_cluster_file()

    def _wanted(self) -> int:
        return usable_cores() if self.n is None else self.n

    def _launch_controller(self, *, reuse: bool = False) -> None:
        if self.controller is not None and self.controller.running:
            raise RuntimeError("the controller of this cluster is running already")
        make_profile_dir(self.profile_dir)
        path = self._connection_file()
        if path.exists() and not reuse:
            self._complain_if_running(path)
            path.unlink()
        args = [
            sys.executable,
            "-m",
            "engineroom.controller",
            f"--profile-dir={self.profile_dir}",
            f"--cluster-id={self.cluster_id}",
        ]
        environment = {}
        if self.database is not None and self.database.startswith("mongodb"):
            args.append("--mongodb")
            if self.database != "mongodb":  # a url may hold a password, and everybody sees command lines
                environment["ENGINEROOM_MONGODB_URL"] = self.database
        elif self.database is not None:
            args.append(DATABASES.get(self.database, f"--db-url={self.database}"))
        if self.retention:
            args.append(f"--retain={json.dumps(self.retention)}")
        if self.controller_ip:
            args.append(f"--ip={self.controller_ip}")
        if self.controller_location:
            args.append(f"--location={self.controller_location}")
        if self.shutdown_atexit:
            args.append("--lifeline")
        if not self.load_profile:
            args.append("--no-config")
        if reuse:
            args.append("--reuse")
        launcher = LocalProcess(
            [*args, *self.controller_args],
            self._log_file("ipcontroller"),
            environment=environment,
            lifeline=self.shutdown_atexit,
        )
        launcher.on_stop(lambda code: self._controller_ended(launcher, code))
        launcher.start()
        self._born = time.monotonic()
        self.controller = launcher
        self._stopping = False
        if self.shutdown_atexit:
            atexit.register(self.stop_cluster_sync)

    def _complain_if_running(self, path: Path) -> None:
        with contextlib.suppress(ConnectionFileError):
            info = read_connection_file(path)
            if FoundProcess(info.pid, "controller").running:
                raise RuntimeError(
                    f"cluster {self.cluster_id!r} of {self.profile_dir.name} is running already (controller "
                    f"pid {info.pid}): connect with Client(profile=…, cluster_id={self.cluster_id!r}), or stop it with "
                    "`ipcluster stop`"
                )

    def _wait_for_connection_file(self) -> None:
        path = self._connection_file()
        deadline = time.monotonic() + self.engine_timeout
        while not path.exists():
            if self.controller is None or not self.controller.running:
                output = self.controller.get_output().strip() if self.controller is not None else ""
                busy = isinstance(self.controller, LocalProcess) and self.controller.exit_code == STORE_BUSY
                kind = StoreBusy if busy else EngineroomError
                hint = " From Python: Cluster(profile=…), or Cluster(database='memory')." if busy else ""
                raise kind(f"the controller did not start. {_last_words(output)}{hint}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the controller wrote no connection file within {self.engine_timeout:g} s: {path}")
            time.sleep(0.005)

    def _controller_ended(self, launcher: Launcher, code: int) -> None:
        """Start a controller that was killed again: engines and clients reconnect, and go on."""
        with self._lock:
            if self._stopping or self.controller is not launcher or code == 0 or not self._connection_file().exists():
                return
            self._short_lives = self._short_lives + 1 if time.monotonic() - self._born < SHORT_LIFE else 0
            if self._short_lives >= SHORT_LIVES:
                return
            with contextlib.suppress(Exception):
                self._launch_controller(reuse=True)
                self.write_cluster_file()

    # ------------------------------------------------------------------------------------------ connecting

    def connect_client_sync(self, **kwargs: Any) -> Client:
        """A client of this cluster."""
        self._wait_for_connection_file()
        return Client(self.connection, cluster=self, profile=self.profile or None, **kwargs)

    @property
    def connection(self) -> ConnectionInfo:
        """What clients need to connect."""
        return read_connection_file(self._connection_file())

    def start_and_connect_sync(self, n: int | None = None) -> Client:
        """Start the cluster, connect, and wait for the engines."""
        self.start_cluster_sync(n)
        try:
            client = self.connect_client_sync()
            self._client = client
            client.wait_for_engines(self._wanted(), timeout=self.engine_timeout)
        except BaseException:
            self.stop_cluster_sync()
            raise
        return client

    # ------------------------------------------------------------------------------------------ stopping

    def stop_cluster_sync(self) -> None:
        """Stop engines and controller. What had not finished is recorded as aborted. May be called twice."""
        with self._lock:
            self._stopping = True
        if self._client is not None:
            self._client.close()
            self._client = None
        self.stop_controller_sync()
        for set_id in list(self.engines):
            self.stop_engines_sync(set_id)
        self.remove_cluster_file()
        atexit.unregister(self.stop_cluster_sync)

    def stop_controller_sync(self) -> None:
        """Stop the controller, which stops its engines. Nothing happens if it is not running."""
        with self._lock:
            self._stopping = True
        if self.controller is not None:
            self.controller.stop()
            self.controller = None
        for role in ("client", "engine"):
            self._connection_file(role).unlink(missing_ok=True)

    def stop_engines_sync(self, engine_set_id: str | None = None) -> None:
        """Stop a set of engines (default: all)."""
        for set_id in [engine_set_id] if engine_set_id is not None else list(self.engines):
            if set_id not in self.engines:
                raise KeyError(f"there is no engine set {set_id!r}; there are {', '.join(self.engines) or 'none'}")
            del self._sizes[set_id]
            self._shares.pop(set_id, None)
            self.engines.pop(set_id).stop()  # forgotten first: it is not to be started again

    def restart_engines_sync(self, engine_set_id: str | None = None) -> None:
        """Stop sets of engines (default: all) and start as many anew."""
        for set_id in [engine_set_id] if engine_set_id is not None else list(self.engines):
            size, shares = self._sizes.get(set_id, self._wanted()), self._shares.get(set_id, {})
            self.stop_engines_sync(set_id)
            self.start_engines_sync(size, set_id, shares)

    def signal_engines_sync(self, signum: int, engine_set_id: str | None = None) -> None:
        """Send a signal to the engines (not their nannies); of one set, or all."""
        with self.connect_client_sync() as client:
            client.send_signal(signum)

    # ------------------------------------------------------------------------------------------ the same, awaitable

    async def start_cluster(self, n: int | None = None) -> Self:
        """See `start_cluster_sync`."""
        return await _in_thread(self.start_cluster_sync, n)

    async def start_controller(self) -> None:
        """See `start_controller_sync`."""
        await _in_thread(self.start_controller_sync)

    async def start_engines(
        self, n: int | None = None, engine_set_id: str | None = None, resources: Mapping[str, int] | None = None
    ) -> str:
        """See `start_engines_sync`."""
        return await _in_thread(self.start_engines_sync, n, engine_set_id, resources)

    async def start_and_connect(self, n: int | None = None) -> Client:
        """See `start_and_connect_sync`."""
        return await _in_thread(self.start_and_connect_sync, n)

    async def connect_client(self, **kwargs: Any) -> Client:
        """See `connect_client_sync`."""
        return await _in_thread(lambda: self.connect_client_sync(**kwargs))

    async def stop_cluster(self) -> None:
        """See `stop_cluster_sync`."""
        await _in_thread(self.stop_cluster_sync)

    async def stop_controller(self) -> None:
        """See `stop_controller_sync`."""
        await _in_thread(self.stop_controller_sync)

    async def stop_engines(self, engine_set_id: str | None = None) -> None:
        """See `stop_engines_sync`."""
        await _in_thread(self.stop_engines_sync, engine_set_id)

    async def restart_engines(self, engine_set_id: str | None = None) -> None:
        """See `restart_engines_sync`."""
        await _in_thread(self.restart_engines_sync, engine_set_id)

    async def signal_engines(self, signum: int, engine_set_id: str | None = None) -> None:
        """See `signal_engines_sync`."""
        await _in_thread(self.signal_engines_sync, signum, engine_set_id)

    def __enter__(self) -> Client:
        return self.start_and_connect_sync()

    def __exit__(self, *exc: object) -> None:
        self.stop_cluster_sync()

    async def __aenter__(self) -> Client:
        return await self.start_and_connect()

    async def __aexit__(self, *exc: object) -> None:
        await self.stop_cluster()

    # ------------------------------------------------------------------------------------------ the cluster file

    def to_dict(self) -> dict[str, Any]:
        """What another process needs to find this cluster; JSON-able, without secrets."""
        return {
            "cluster": {"cluster_id": self.cluster_id, "profile_dir": str(self.profile_dir), "version": __version__},
            "controller": dict(self.controller.to_dict()) if self.controller is not None else None,
            "engines": {
                set_id: {
                    **launcher.to_dict(),
                    "n": self._sizes.get(set_id, 0),
                    "resources": self._shares.get(set_id, {}),
                }
                for set_id, launcher in self.engines.items()
            },
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], **kwargs: Any) -> Cluster:
        """The cluster that `to_dict` described."""
        try:
            about = data["cluster"]
            cluster = cls(
                profile_dir=about["profile_dir"], cluster_id=about["cluster_id"], shutdown_atexit=False, **kwargs
            )
            if data["controller"]:
                cluster.controller = FoundProcess(
                    data["controller"]["pid"], "engineroom.controller", Path(data["controller"]["log_file"])
                )
            for set_id, found in data["engines"].items():
                cluster.engines[set_id] = FoundProcess(found["pid"], "engineroom.engine", Path(found["log_file"]))
                cluster._sizes[set_id] = found["n"]
                cluster._shares[set_id] = found.get("resources", {})
        except (KeyError, TypeError) as error:
            raise ConfigError(f"not a description of a cluster: {error!r}") from None
        cluster.n = sum(cluster._sizes.values())
        return cluster

    @classmethod
    def from_file(
        cls,
        cluster_file: str | os.PathLike[str] | None = None,
        *,
        profile: str = "",
        profile_dir: str | os.PathLike[str] = "",
        cluster_id: str = "",
        **kwargs: Any,
    ) -> Cluster:
        """Attach to a cluster that another process started.

        Raises
        ------
        FileNotFoundError
            There is no such cluster.
        """
        name = f"cluster-{cluster_id}.json" if cluster_id else "cluster.json"
        path = Path(cluster_file or _profile_dir(profile, profile_dir) / "security" / name)
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            raise FileNotFoundError(
                f"no cluster is known here: there is no {path}. Start one: `ipcluster start -n 4`"
            ) from None
        except ValueError as error:
            raise ConfigError(f"{path} is not a cluster file: {error}") from None
        return cls.from_dict(data, **kwargs)

    def write_cluster_file(self) -> None:
        """Write the cluster file (mode 0600)."""
        write_private(self.cluster_file, json.dumps(self.to_dict(), indent=1))

    update_cluster_file = write_cluster_file

    def update_from_file(self) -> list[str]:
        """Take up engine sets that another process has added to the cluster file; returns their ids."""
        try:
            found = Cluster.from_file(self.cluster_file)
        except (FileNotFoundError, ConfigError):
            return []
        new = [set_id for set_id, nanny in found.engines.items() if set_id not in self.engines and nanny.running]
        for set_id in new:
            self.engines[set_id], self._sizes[set_id] = found.engines[set_id], found._sizes[set_id]
            self._shares[set_id] = found._shares[set_id]
        return new

    def remove_cluster_file(self) -> None:
        """Remove the cluster file, if it is there."""
        self.cluster_file.unlink(missing_ok=True)

    @property
    def engine_set(self) -> Launcher | None:
        """The first set of engines."""
        return next(iter(self.engines.values()), None)

    def _connection_file(self, role: str = "client") -> Path:
        return connection_file(self.profile_dir, self.cluster_id, role)

    def _log_file(self, name: str) -> Path:
        middle = f"-{self.cluster_id}" if self.cluster_id else ""
        return self.profile_dir / "log" / f"{name}{middle}.log"

    def __repr__(self) -> str:
        running = "<running>" if self.controller is not None and self.controller.running else "<not running>"
        return (
            f"<Cluster(cluster_id={self.cluster_id!r}, profile_dir={str(self.profile_dir)!r}, controller={running}, "
            f"engine_sets={list(self.engines)})>"
        )


async def _in_thread(function: Callable[..., T], *args: Any) -> T:
    """The async spelling of a call that blocks."""
    import asyncio  # slow to import, and only those who await need it

    return await asyncio.to_thread(function, *args)


def _profile_dir(profile: str, directory: str | os.PathLike[str]) -> Path:
    return profile_dir(profile or None, directory or None)


def _import_path() -> dict[str, str]:
    """Let engines import what this process can: the script's folder, and what was added to `sys.path`."""
    own = (sys.prefix, sys.base_prefix)
    folders = [os.path.abspath(entry) if entry else os.getcwd() for entry in sys.path]
    ours = [folder for folder in folders if not folder.startswith(own)]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(ours))}


def _last_words(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return f"It said: {lines[-1]}" if lines else "It said nothing."
