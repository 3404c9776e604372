"""A cluster: one controller and sets of engines, started and stopped together. This is the class that users meet."""

from __future__ import annotations

import atexit
import contextlib
import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .. import resources as named_resources
from ..config import (
    COUNT,
    DURABILITIES,
    ConnectionInfo,
    check_switches,
    connection_file,
    read_connection_file,
    retention_settings,
)
from ..config import profile_dir as folder_of_profile
from ..errors import ConfigError
from ..ids import new_uuid
from ..launchers import EngineLauncher, Launcher, LaunchRequest
from ..records.database_urls import file_of
from . import kept
from .awaitable import AwaitableCluster, in_thread
from .chosen_launcher import ChosenLauncher
from .cluster_files import ClusterFiles
from .commands import Command, controller_command, engines_command, engines_to_start
from .described import DescribedCluster
from .processes.chosen_controller import ChosenController
from .processes.controller_process import ControllerProcess
from .processes.dashboard_process import DashboardProcess
from .processes.engine_sets import EngineSets
from .processes.restarts import Restarts
from .processes.waiting import LAST_TASKS_SECONDS, wait_for_engines
from .profile_config import check_given, cluster_settings, configured_arguments, settled
from .scaling.driver import Adaptive, scale_to
from .scaling.plan import ScalingSettings

if TYPE_CHECKING:
    from ..client import Client


class Cluster(DescribedCluster, AwaitableCluster):
    """A controller, and engines on this and other machines.

    Parameters
    ----------
    n : int, optional
        Number of engines; default: one for each core that this process may use (CPU affinity, cgroup quota).
    profile, profile_dir : str, optional
        Whose configuration, connection files and task database.
    cluster_id : str, optional
        Distinguishes clusters of one profile; default: random.
    cluster_file : path, optional
        What others find the cluster by. Default: one in the profile's security folder. "": none is written.
    database : {"sqlite", "memory", "none"} or url, optional
        Where tasks are recorded; default: what the profile's configuration says, else SQLite in the profile's folder.
        If another cluster of the profile is using that file (tasks.db), the default is one beside it: tasks-2.db.
    controller_ip : str
        Address to listen on for other hosts ("*": all), encrypted. Default: this host only, or "*" if the launcher
        starts engines on other hosts.
    controller_args, engine_args : list of str
        More arguments for `ipcontroller` and `ipengine`.
    resources : dict, optional
        What this host has for tasks to ask for: `{"gpu": 4, "license": 1}`. The first set of engines shares it.
    retention : dict, optional
        What is kept in the database, as in docs/records.md: `{"age": "30d", "payload_age": "7d", "bytes": "10GB"}`.
        Default: what the configuration says, else everything.
    durability : {"normal", "full"}, optional
        What an acknowledged task survives: the death of any process ("normal"), or a power cut, too ("full", SQLite
        only, slower). Default: what the configuration says, else "normal".
    engines : str or class
        The launcher that starts the engines: "local", "slurm" and so on, as docs/launchers.md lists, or a class of
        `engineroom.cluster.launcher`. A number means `n`. Also: `engine_launcher_class`.
    controller : str or class
        The launcher of the controller: "local" on this host, "ssh" on `controller_host`, or a batch system ("slurm").
        The last two share the profile's folder with this host. Also: `controller_launcher_class`.
    controller_host : str
        The host of the controller, as ssh knows it.
    controller_options : dict, optional
        Options of the controller's batch job: `{"walltime": "8h"}`. Default: as for the engines' jobs.
    engine_timeout : float
        Seconds to wait for the engines.
    config : dict or traitlets' Config, optional
        Its section "Cluster" has values for arguments that are not given. Default: the profile's `ipcluster_config`.
    load_profile : bool
        Whether to read the profile's configuration files.
    log, parent, log_level, delay, send_engines_connection_env
        Accepted for programs written for ipyparallel, and without effect.
    dashboard : bool
        Whether to start the dashboard, a web page for this host's browsers; `dashboard_url` is its link.
    shutdown_atexit : bool
        Whether the cluster ends with this process, however that ends.
    keep : bool
        The cluster outlives this process (a notebook's kernel), and the next `Cluster` of the profile, without a
        `cluster_id`, takes it over. It runs until `stop_cluster_sync`; leaving a `with` only disconnects.
    adaptive : (int, int) or dict, optional
        The cluster keeps itself as large as its queue needs: at least and at most so many engines (docs/scaling.md).
    launcher_options
        Options of the launcher of the engines: `Cluster(engines="slurm", queue="short", walltime="2h")`.

    Examples
    --------
    >>> with Cluster(n=4) as rc: rc[:].apply_sync(abs, -1)     # doctest: +SKIP
    [1, 1, 1, 1]
    """

    def __init__(
        self,
        n: int | None = None,
        *,
        profile: str = "",
        profile_dir: str | os.PathLike[str] = "",
        cluster_id: str | None = None,
        cluster_file: str | os.PathLike[str] | None = None,
        database: str | None = None,
        controller_ip: str = "",
        controller_location: str = "",
        controller_args: Sequence[str] = (),
        engine_args: Sequence[str] = (),
        resources: Mapping[str, int] | None = None,
        retention: Mapping[str, Any] | None = None,
        durability: str | None = None,
        engines: str | int | type = "local",
        controller: str | type = "local",
        controller_host: str = "",
        controller_options: Mapping[str, Any] | None = None,
        engine_launcher_class: str | type | None = None,
        controller_launcher_class: str | type | None = None,
        engine_timeout: float = 60.0,
        shutdown_atexit: bool = True,
        keep: bool = False,
        load_profile: bool = True,
        delay: float = 1.0,
        send_engines_connection_env: bool = True,
        log: Any = None,
        log_level: int = 20,
        config: Mapping[str, Any] | None = None,
        parent: Any = None,
        dashboard: bool = False,
        adaptive: Any = None,
        **launcher_options: Any,
    ) -> None:
        check_given(locals())
        self._scaling = None if adaptive is None else ScalingSettings.read(adaptive)
        if self._scaling is not None and n is None:
            n = self._scaling.minimum
        folder = folder_of_profile(profile or None, profile_dir or None)
        if config is None:
            config = cluster_settings(folder) if load_profile else {}
        config = settled(config)
        configured = configured_arguments(config)
        n = configured.get("n") if n is None else n
        controller_ip = controller_ip or configured.get("controller_ip", "")
        controller_location = controller_location or configured.get("controller_location", "")
        controller_args = list(controller_args) or configured.get("controller_args", [])
        engine_args = list(engine_args) or configured.get("engine_args", [])
        if engine_timeout == 60.0:
            engine_timeout = configured.get("engine_timeout", engine_timeout)
        if engines == "local":
            engines = engine_launcher_class or configured.get("engine_launcher_class", "local")
        if controller == "local":
            controller = controller_launcher_class or configured.get("controller_launcher_class", "local")
        if not isinstance(engines, str | type | bool) and hasattr(engines, "__index__"):  # how many, as `n` says
            if n is not None and n != engines:
                raise ConfigError(f"n={n} and engines={engines} both say how many engines there are: give one of them")
            n, engines = engines, "local"
        controller_host = controller_host or configured.get("controller_host", "")
        controller_options = {**configured.get("controller_options", {}), **(controller_options or {})}
        self._launcher = ChosenLauncher(engines, launcher_options, config, inspect.signature(Cluster).parameters)
        chosen = ChosenController(controller, controller_host, controller_options, config, self._launcher, keep)
        if self._launcher.reaches_hosts or chosen.is_elsewhere:
            controller_ip = controller_ip or "*"
        self.controller_launcher_class = chosen.kind
        self.delay, self.send_engines_connection_env = delay, send_engines_connection_env
        self.log, self.log_level, self.parent = log, log_level, parent
        self.n = None if n is None else int(n)
        self.profile = profile
        self.profile_dir = folder
        if cluster_id is None and (free := kept.free_cluster(folder)) is not None:
            cluster_id, keep = free, True
        self.keep = keep
        self._owner = kept.owner_here() if keep else None
        self.cluster_id = new_uuid()[:8] if cluster_id is None else cluster_id
        self._files = ClusterFiles(self.profile_dir, self.cluster_id, Path(cluster_file) if cluster_file else None)
        self.cluster_file = "" if cluster_file == "" else self._files.cluster_file
        if (keep or chosen.is_job) and not self.cluster_file:
            raise ConfigError(
                f"{'keep=True' if keep else 'a controller as a job'} needs a cluster file, to be found by"
            )
        self.database = database
        self.controller_ip, self.controller_location = controller_ip, controller_location
        self.controller_host = chosen.host
        self.controller_args, self.engine_args = list(controller_args), list(engine_args)
        self.resources = named_resources.check(resources or {})
        self.retention = dict(retention or {})
        retention_settings(self.retention)
        if durability not in (None, *DURABILITIES):
            raise ConfigError(f"durability is {' or '.join(map(repr, DURABILITIES))}; got {durability!r}")
        self.durability = durability
        self.engine_timeout = engine_timeout
        self.shutdown_atexit = shutdown_atexit and not keep
        self.load_profile = load_profile
        self._restarts = Restarts(self.write_cluster_file)
        self._controller = ControllerProcess(self._files, self._restarts, chosen)
        self._engine_sets = EngineSets(self._restarts, self._files)
        self._dashboard = DashboardProcess(dashboard, self._files)
        self._client: Client | None = None
        #: keeps the cluster as large as its queue needs: `adaptive.plan` says what it wants; None: nobody does
        self.adaptive: Adaptive | None = None
        self._pid: int | None = None  # the process that started it; None: another one's, found in a file

    @property
    def _is_parents(self) -> bool:
        """Whether this process was forked from the one that started the cluster: then it does not stop it."""
        return self._pid not in (None, os.getpid())

    @property
    def engine_launcher_class(self) -> str | type:
        """The launcher of the engines, as it was given: its name, or a class. It can be set before the start."""
        return self._launcher.name

    @engine_launcher_class.setter
    def engine_launcher_class(self, name: str | type) -> None:
        self._launcher = self._launcher.instead(name)
        if self._launcher.reaches_hosts:
            self.controller_ip = self.controller_ip or "*"

    @property
    def engines(self) -> dict[str, Launcher]:
        """engine_set_id → launcher of that set."""
        return self._engine_sets.launchers

    @property
    def engine_set(self) -> Launcher | None:
        """The first set of engines."""
        return next(iter(self.engines.values()), None)

    # ------------------------------------------------------------------------------------------ starting

    def start_cluster_sync(self, n: int | None = None) -> Self:
        """Start the controller and `n` engines (default: `self.n`, else one per usable core)."""
        if n is not None:
            check_given({"n": n})
            self.n = int(n)
        if self.keep and (found := kept.description(self._files)) is not None:
            return self._take_over(found)
        if self.keep:
            kept.started_here(self._files, self._restarts)
        wanted = self.engines_wanted
        if wanted:
            self._engine_launcher(wanted, self.resources, "check")  # options that make no sense are told now
        self._launch_controller()  # the engines start meanwhile, and wait for its connection file
        try:
            if self._launcher.needs_connection_file or self._controller.is_job:
                self._controller.wait_until_ready(self.engine_timeout)
            if wanted:
                self.start_engines_sync(wanted)
            _client_class()  # imported while they start
            self._controller.wait_until_ready(self.engine_timeout)
            self._tell_database()
            self._dashboard.start()
            if self._scaling is not None:
                self.adaptive = Adaptive(self, self._scaling)
                self.adaptive.start()
        except BaseException:
            self.stop_cluster_sync()
            raise
        self.write_cluster_file()
        return self

    def _take_over(self, found: Mapping[str, Any]) -> Self:
        """Have a cluster that another process started and that was to be kept."""
        self._pid = os.getpid()
        if self.controller is None:
            self._attach(found)
        here = sum(self._engine_sets.sizes.values())
        wanted = here if self.n is None else self.n
        if wanted > here:
            kept.started_here(self._files, self._restarts)
            self.start_engines_sync(wanted - here)
        elif wanted < here:
            warnings.warn(f"cluster {self.cluster_id!r} was kept, and has {here} engines, not {wanted}", stacklevel=4)
        self.n = max(wanted, here)
        self.write_cluster_file()
        return self

    def start_controller_sync(self) -> None:
        """Start the controller, and wait until clients can connect to it.

        Raises
        ------
        RuntimeError
            It is running.
        """
        self._launch_controller()
        self._controller.wait_until_ready(self.engine_timeout)
        self._tell_database()
        self.write_cluster_file()

    def start_engines_sync(
        self, n: int | None = None, engine_set_id: str | None = None, resources: Mapping[str, int] | None = None
    ) -> str:
        """Start a set of engines; returns the id of the set.

        Parameters
        ----------
        n : int, optional
            How many; default: `self.n`, else one per usable core.
        engine_set_id : str, optional
            The id of the set; default: a new one.
        resources : dict, optional
            What its engines share: `{"gpu": 2}`. Default: `self.resources` for the first set, nothing for others.
        """
        if self.controller is None:
            raise ConfigError("no controller runs, so engines would find none: start_cluster_sync() starts both")
        if self._launcher.reaches_hosts:
            self._require_network()
        if resources is None:
            resources = {} if self._engine_sets.have_resources() else self.resources
        count = self.engines_wanted if n is None else n
        set_id = self._engine_sets.start(self._engine_launcher, count, engine_set_id, resources)
        if self._connection_file().exists():
            self.write_cluster_file()
        return set_id

    @property
    def engines_wanted(self) -> int:
        """How many engines a start means: `n`, else what the launcher says, else one for each usable core."""
        return engines_to_start(self._launcher.default_n if self.n is None else self.n)

    def scale_sync(self, n: int) -> str | None:
        """Have `n` engines: start more; or cancel jobs that wait in a queue, and have engines leave, idle ones first.

        Returns the id of the set that it has started, if any. Who leaves finishes what it runs; nobody is waited for.

        Raises
        ------
        ConfigError
            `n` is no number of engines, or the cluster scales itself (`adaptive=`).
        """
        if n is None or not COUNT.fits(n):
            raise ConfigError(f"n is {COUNT.what}; got {n!r}")
        if self.adaptive is not None:
            raise ConfigError("this cluster scales itself: it was made with adaptive=")
        with self._asking_client() as client:
            return scale_to(self, client, n)

    def waiting_engines(self) -> dict[str, int]:
        """Set of engines → how many of them wait in a batch system's queue. Sets that have ended are left out."""
        return self._engine_sets.waiting

    def started_engines(self) -> int:
        """How many engines should be there, also those that are just starting."""
        return self._engine_sets.started

    def give_back(self, client: Client, engines: Sequence[int]) -> None:
        """Have engines leave, once they have finished what they run. Nothing is waited for."""
        self._engine_sets.given_back += len(engines)
        client.shutdown(list(engines), block=False)

    @contextlib.contextmanager
    def _asking_client(self) -> Iterator[Client]:
        """The client of the `with`, which then knows what was done as soon as it is done; else one for the moment."""
        if self._client is not None and not self._client.closed:
            yield self._client
        else:
            with self.connect_client_sync() as client:
                yield client

    def _require_network(self) -> None:
        """Raises ConfigError if the controller runs and engines on other hosts cannot reach it."""
        path = self._connection_file("engine")
        if path.exists() and read_connection_file(path).url.startswith("ipc://"):
            raise ConfigError(
                f"the controller of {self._files} listens on this host only, and the launcher "
                f"{self.engine_launcher_class} starts engines on others: start the cluster with --ip='*' "
                "(Cluster(controller_ip='*'))"
            )

    def _launch_controller(self) -> None:
        self._pid = os.getpid()
        self._controller.start(self._controller_command, lifeline=self.shutdown_atexit)
        if self.shutdown_atexit:
            atexit.register(self.stop_cluster_sync)
        if self._controller.is_job:
            self.write_cluster_file()  # others find the job while it waits

    def _controller_command(self, reuse: bool) -> Command:
        database = self.database
        if reuse and self._shares_profile and file_of(self.connection.database):
            database = self.connection.database  # started again: the same one, though another may be free now
        return controller_command(
            profile_dir=self.profile_dir,
            cluster_id=self.cluster_id,
            database=database,
            retention=self.retention,
            durability=self.durability,
            ip=self.controller_ip,
            location=self.controller_location,
            lifeline=not self._controller.is_job and (self.shutdown_atexit or bool(self.controller_host)),
            load_profile=self.load_profile,
            reuse=reuse,
            next_free=self._shares_profile and not reuse,
            more=self.controller_args,
        )

    @property
    def _shares_profile(self) -> bool:
        """Whether other clusters of the profile may run: this one then has a database of its own beside theirs."""
        return self.database is None and bool(self.cluster_id)

    def _tell_database(self) -> None:
        """Say so if the profile's database belongs to another cluster, so that this one has another."""
        if self._shares_profile:
            self._files.warn_of_database()

    def _engine_launcher(self, n: int, resources: Mapping[str, int], set_id: str) -> EngineLauncher:
        command = engines_command(profile_dir=self.profile_dir, resources=resources, more=self.engine_args)
        request = LaunchRequest(
            n=n,
            command=command.args,
            environment=command.environment,
            connection_file=self._connection_file("engine"),
            log_file=self._files.log_of(f"ipengine-{set_id}"),
            set_id=set_id,
            cluster_id=self.cluster_id,
            profile_dir=self.profile_dir,
            ends_with_us=self.shutdown_atexit and not self._controller.is_job,
        )
        return self._launcher.make(request)

    def dry_run(self, n: int | None = None) -> str:
        """The script or the command lines that would start `n` engines (default: as at the start). Starts nothing."""
        check_given({"n": n})
        engines = self._engine_launcher(self.engines_wanted if n is None else n, self.resources, "dry-run")
        return self._controller.preview(self._controller_command) + engines.preview()

    # ------------------------------------------------------------------------------------------ connecting

    def connect_client_sync(self, **kwargs: Any) -> Client:
        """A client of this cluster. Raises ConfigError if the cluster does not run."""
        self._controller.wait_until_ready(self.engine_timeout)
        return _client_class()(self.connection, cluster=self, profile=self.profile or None, **kwargs)

    @property
    def connection(self) -> ConnectionInfo:
        """What clients need to connect."""
        return read_connection_file(self._connection_file())

    def start_and_connect_sync(self, n: int | None = None, activate: bool = False) -> Client:
        """Start the cluster, connect, and wait for the engines. `activate`: bind IPython's `%px` to all engines."""
        check_switches(activate=activate)
        self.start_cluster_sync(n)
        try:
            self._client = client = self.connect_client_sync()
            self.wait_for_engines_sync(client, self.engines_wanted)
            if activate:
                client.activate()
        except BaseException:
            self.stop_cluster_sync()
            raise
        return client

    def wait_for_engines_sync(self, client: Client, n: int, tell: Callable[[int], None] = lambda count: None) -> None:
        """Wait until a client has `n` engines, or their launchers say that they cannot come.

        Parameters
        ----------
        client : Client
            A client of this cluster.
        n : int
            How many engines.
        tell : callable
            Called now and then with the number of engines that are there.

        Raises
        ------
        TimeoutError
            They are not there after `engine_timeout` seconds. The text says what the launchers know: for a batch
            system, how many jobs are pending, why and how long.
        LaunchError
            The launchers of all engines have ended.
        """
        wait_for_engines(client, n, self._engine_sets, self.engine_timeout, tell)

    @property
    def dashboard_url(self) -> str | None:
        """The link of the dashboard, a secret: it is the key. None: no dashboard of this cluster runs here."""
        return self._dashboard.url

    # ------------------------------------------------------------------------------------------ stopping

    def stop_cluster_sync(self) -> None:
        """Stop engines and controller, at once: tasks that have not ended are aborted. May be called twice."""
        if self._is_parents:
            return
        if self.adaptive is not None:
            self.adaptive.stop()
        kept.is_stopping(self._files)
        self._restarts.refuse()
        if self._client is not None:
            self._client.close(LAST_TASKS_SECONDS)
            self._client = None
        self._dashboard.stop()
        self.stop_controller_sync()
        self.stop_engines_sync()
        self.remove_cluster_file()
        atexit.unregister(self.stop_cluster_sync)

    def stop_controller_sync(self) -> None:
        """Stop the controller, which stops its engines. Nothing happens if it does not run."""
        if not self._is_parents:
            self._restarts.refuse()
            self._controller.stop()

    def stop_engines_sync(self, engine_set_id: str | None = None) -> None:
        """Stop a set of engines (default: all). What they run is not waited for: it fails with EngineError."""
        if not self._is_parents:
            self._engine_sets.stop(engine_set_id)

    def restart_engines_sync(self, engine_set_id: str | None = None) -> None:
        """Stop sets of engines (default: all), start as many anew; `Client.wait_for_engines` waits for them."""
        sets = self._engine_sets
        for set_id in sets.chosen(engine_set_id):
            size, shares = sets.sizes[set_id], sets.resources.get(set_id, {})
            self.stop_engines_sync(set_id)
            self.start_engines_sync(size, set_id, shares)

    def signal_engines_sync(self, signum: int, engine_set_id: str | None = None) -> None:
        """Send a signal to the engines of a set (default: of all), not to its nanny."""
        is_one = len(self._engine_sets.chosen(engine_set_id)) < len(self._engine_sets.launchers)
        with self._asking_client() as client:
            targets = self._engine_sets.engines_of(str(engine_set_id), client.queue_status()) if is_one else "all"
            client.send_signal(signum, targets)

    def stop_engine_sync(self, engine_id: int, timeout: float | None = None) -> None:
        """Stop one engine once it has finished what it runs. TimeoutError: it has not left after `timeout` seconds."""
        with self._asking_client() as client:
            client.shutdown(engine_id, block=True, timeout=timeout)

    def restart_engine_sync(self, engine_id: int, timeout: float | None = None) -> None:
        """Stop one engine once it has finished what it runs; a new one takes its number. As for `stop_engine_sync`."""
        with self._asking_client() as client:
            client.shutdown(engine_id, restart=True, block=True, timeout=timeout)

    def signal_engine_sync(self, signum: int, engine_id: int) -> None:
        """Send a signal to one engine."""
        with self._asking_client() as client:
            client.send_signal(signum, engine_id)

    # ------------------------------------------------------------------------------------------ with

    def __enter__(self) -> Client:
        return self.start_and_connect_sync()

    def __exit__(self, *exc: object) -> None:
        self._leave()

    async def __aenter__(self) -> Client:
        return await self.start_and_connect()

    async def __aexit__(self, *exc: object) -> None:
        await (self.stop_cluster() if not self.keep else in_thread(self._leave))

    def _undo_of_start(self) -> Callable[[], None]:
        """What undoes a start that is about to begin. A kept cluster that runs already is left, not stopped."""
        runs_already = self.keep and kept.description(self._files) is not None
        return self._leave if runs_already else self.stop_cluster_sync

    def _leave(self) -> None:
        """The end of a `with`: a cluster that is kept runs on."""
        if not self.keep:
            self.stop_cluster_sync()
        elif self._client is not None:
            self._client.close()
            self._client = None

    def _connection_file(self, role: str = "client") -> Path:
        return connection_file(self.profile_dir, self.cluster_id, role)

    def __repr__(self) -> str:
        running = "<running>" if self._controller.running else "<not running>"
        return (
            f"<Cluster(cluster_id={self.cluster_id!r}, profile_dir={str(self.profile_dir)!r}, controller={running}, "
            f"engine_sets={list(self.engines)})>"
        )


def _client_class() -> type[Client]:
    """Imported late: it takes about as long as a controller takes to start."""
    from ..client import Client

    return Client
