"""`ipcluster`: start, stop, list and extend clusters of this host.

`start` stays as the cluster's supervisor, in the foreground or (with --daemonize) as a daemon of its own session. Its
process id is in `<profile>/pid/ipcluster[-<cluster_id>].pid`, so that `stop` stops it first, and with it the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any, ClassVar

from traitlets import Bool, Dict, Enum, Float, Integer, Unicode, Union
from traitlets import List as ListTrait
from traitlets.config import Configurable

from .. import cluster as clusters
from .. import resources as named_resources
from ..client import Client
from ..config import ConnectionInfo, connection_file, ipython_dir, read_connection_file, socket_dir
from ..errors import ConfigError, ConnectionFileError, EngineroomError
from ..launchers import FoundProcess
from .base import ALREADY_RUNNING, BASE_ALIASES, BASE_FLAGS, FAILED, INTERRUPTED, EngineroomApp, run
from .text import is_terminal, paint, plural, table

#: Exit code of `ipcluster stop` where there is nothing to stop.
NOT_RUNNING = 11
#: Seconds `stop` waits for a supervisor to end.
STOP_SECONDS = 30.0

Say = Callable[[str], None]

#: Options that say which clusters are meant.
_WHICH = {key: BASE_ALIASES[key] for key in ("profile", "profile-dir", "ipython-dir", "cluster-id")}
_COMMON_FLAGS = {"debug": BASE_FLAGS["debug"], "no-config": BASE_FLAGS["no-config"]}


class Cluster(Configurable):
    """What `ipcluster start` starts."""

    n = Integer(None, allow_none=True, help="How many engines; default: one per core.").tag(config=True)
    engines = Unicode("local", help="What starts the engines; there is: local.").tag(config=True)
    controller_ip = Unicode(
        "", help="Address to listen on for other hosts ('*': all), encrypted. Default: this host only."
    ).tag(config=True)
    controller_location = Unicode("", help="Name or address by which other hosts reach the controller.").tag(
        config=True
    )
    controller_args = ListTrait(Unicode(), help="More arguments for ipcontroller.").tag(config=True)
    engine_args = ListTrait(Unicode(), help="More arguments for ipengine.").tag(config=True)
    resources = Union(
        [Unicode(), Dict()],
        default_value="",
        help="What this host has for tasks to ask for, dealt out to the engines: gpu=4,license=1.",
    ).tag(config=True)
    engine_timeout = Float(60.0, help="Seconds to wait for the engines.").tag(config=True)


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


def _is_other_host(info: ConnectionInfo) -> bool:
    # An ipc socket is of this host by its nature. Where --location= names this host by another name, the connection
    # file lies in the same folder as the pid of a controller we can see.
    if info.url.startswith("ipc://") or info.location in ("", socket.gethostname()):
        return False
    return not FoundProcess(info.pid, "controller").running


class ClusterApp(EngineroomApp):
    """Base of the commands."""

    aliases: Any = {**_WHICH}
    flags: Any = {**_COMMON_FLAGS}
    config_names: ClassVar[tuple[str, ...]] = ("ipcluster_config",)
    exit_code = 0

    @property
    def known(self) -> Known:
        """The cluster that the options name."""
        return Known(self.folder, self.cluster_id)

    def everywhere(self, profiles: bool) -> list[Known]:
        """All clusters: of all profiles, unless options name one."""
        if self.profile or self.profile_directory or not profiles:
            folders = [self.folder]
        else:
            folders = sorted({*ipython_dir(self.ipython_directory or None).absolute().glob("profile_*"), self.folder})
        return [known for folder in folders for known in Known.all_of(folder)]


class IPClusterStart(ClusterApp):
    """Start a controller and engines, and look after them.

    The command stays: it shows what happens, starts a controller or engines that were killed again, and Ctrl-C stops
    the cluster. With --daemonize it returns when the engines are ready, and the cluster stays until `ipcluster stop`.
    What stands behind `--` goes to ipcontroller.

    Exit codes: 0 stopped cleanly, 1 could not start, 10 it is running already.
    """

    name = "ipcluster"
    description = __doc__
    usage = "ipcluster start [options] [-- options of ipcontroller]"
    passes_on = True
    examples = """
ipcluster start                           # one engine per core; Ctrl-C stops
ipcluster start -n 4 --daemonize          # in the background; `ipcluster stop` stops
ipcluster start -n 4 --profile=night      # with its own settings, connection file and task database
ipcluster start -n 0 --ip='*'             # no engines here; other hosts may connect, encrypted
ipcluster start -n 2 --resources gpu=4    # tasks can ask for gpus; each engine has two
ipcluster start -n 4 -- --hwm=1 --nodb    # options of ipcontroller
"""
    classes: Any = [Cluster]
    aliases: Any = {
        "n": "Cluster.n",
        "engines": "Cluster.engines",
        "ip": "Cluster.controller_ip",
        "location": "Cluster.controller_location",
        "timeout": "Cluster.engine_timeout",
        "resources": "Cluster.resources",
        **_WHICH,
    }
    flags: Any = {
        "daemonize": (
            {"IPClusterStart": {"daemonize": True}},
            "return when the engines are ready; the cluster goes on without the terminal",
        ),
        **_COMMON_FLAGS,
    }

    daemonize = Bool(False, help="Run in the background.").tag(config=True)

    def start(self) -> None:
        settings = Cluster(parent=self)
        if settings.n is not None and settings.n < 0:
            raise ConfigError(f"-n is a number of engines, got {settings.n}")
        self.make_folder()
        known = self.known
        running = known.processes
        if known.running or known.supervisor is not None:
            pid = running[0].pid if running else known.supervisor.pid if known.supervisor else "?"
            print(
                f"ipcluster: {known} is running already (pid {pid}). Connect with "
                f"engineroom.Client({known.client_arguments()}), add engines with `ipcluster engines -n 2`, "
                "stop it with `ipcluster stop`, or start another with --profile=",
                file=sys.stderr,
            )
            self.exit_code = ALREADY_RUNNING
            return
        for nanny in running:  # of a cluster whose controller and supervisor were killed
            nanny.stop()
        known.forget()
        supervisor = Supervisor(self, known, settings)
        self.exit_code = _in_background(supervisor) if self.daemonize else supervisor.run()


class Supervisor:
    """Starts a cluster, tells what happens to it, and stops it in the end."""

    def __init__(self, app: IPClusterStart, known: Known, settings: Cluster) -> None:
        debug = ["--debug"] if app.log_level == 10 else []
        self.known = known
        self.daemon = app.daemonize
        self.cluster = clusters.Cluster(
            n=settings.n,
            profile_dir=known.profile_dir,
            cluster_id=known.cluster_id,
            controller_ip=settings.controller_ip,
            controller_location=settings.controller_location,
            controller_args=[*debug, *settings.controller_args, *app.passed_on],
            engine_args=[*debug, *settings.engine_args],
            resources=named_resources.read(settings.resources),
            engines=settings.engines,
            engine_timeout=settings.engine_timeout,
            shutdown_atexit=not app.daemonize,
            load_profile=app.use_config,
        )
        self._exit_codes: dict[str, int] = {}

    def run(self, say: Say = print, ready: Callable[[], None] = lambda: None) -> int:
        """Start, look after, stop. `ready` is called when the engines are there. Returns the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        self.known.pid_file.write_text(str(os.getpid()))
        try:
            self._start(say)
            ready()
            return self._look_after(say)
        except KeyboardInterrupt:
            return self._stop(say)
        finally:
            _ignore_signals()
            self.cluster.stop_cluster_sync()
            self.known.pid_file.unlink(missing_ok=True)

    def _start(self, say: Say) -> None:
        cluster, began = self.cluster, time.monotonic()
        wanted = cluster._wanted()
        say(f"Starting a controller and {plural(wanted, 'engine')} for profile {self.known.profile} …")
        cluster.start_cluster_sync(wanted)
        try:
            info = cluster.connection
        except ConnectionFileError:
            words = cluster.controller.get_output().splitlines() if cluster.controller is not None else []
            raise EngineroomError(
                f"the controller ended at once. It said: {words[-1] if words else 'nothing'}"
            ) from None
        say(f"The controller is there (pid {info.pid}). Tasks are recorded in {_database(info)}.")
        if wanted:
            with cluster.connect_client_sync() as client:
                self._wait_for_engines(client, wanted)
            for set_id in cluster.engines:
                self._watch(set_id)
        took = time.monotonic() - began
        say(paint(f"{plural(wanted, 'engine')} ready", "green") + f" after {took:.1f} s. Connect with")
        say("")
        say(paint(f"    rc = engineroom.Client({self.known.client_arguments()})", "bold"))
        say("")
        if wanted == 0:
            say(f"Start engines with `ipengine --file={self.known.connection_files[1]}`.")
        if self.daemon:
            say(f"`ipcluster stop{_options(self.known)}` stops the cluster; its log: {_log_file(self.known)}")
        else:
            say("Ctrl-C stops the cluster.")

    def _wait_for_engines(self, client: Client, wanted: int) -> None:
        waiting = client.wait_for_engines(wanted, timeout=self.cluster.engine_timeout, block=False)
        assert waiting is not None
        shows = is_terminal(sys.stdout) and not self.daemon
        while True:
            try:
                waiting.result(0.1)
                return
            except (FutureTimeout, TimeoutError):
                if waiting.done():
                    waiting.result()
                if shows:
                    print(f"\r{len(client)} of {plural(wanted, 'engine')} …\x1b[K", end="\r", flush=True)
            finally:
                if shows and waiting.done():
                    print("\r\x1b[K", end="", flush=True)

    def _watch(self, set_id: str) -> None:
        self.cluster.engines[set_id].on_stop(lambda code: self._exit_codes.__setitem__(set_id, code))

    # ------------------------------------------------------------------------------------------ while it runs

    def _look_after(self, say: Say) -> int:
        """Until it is stopped from elsewhere, or fails for good."""
        cluster = self.cluster
        while True:
            controller = cluster.controller
            if controller is None:
                return FAILED
            if controller.join(0.5):
                if not self._is_back(controller):
                    return self._ended(say)
                new = cluster.controller
                say(
                    f"The controller (pid {controller.pid}) was killed, and is started again "
                    f"(pid {new.pid if new else '?'}): engines and clients reconnect."
                )
                continue
            for set_id in cluster.update_from_file():
                say(f"Engine set {set_id} was added.")
                self._watch(set_id)
            self._look_after_engines(say)

    def _is_back(self, ended: Any) -> bool:
        """Whether the cluster has started another controller. It does so in a thread of its own."""
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            if self.cluster.controller is not ended:
                return True
            if not self.known.connection_files[0].exists():
                return False
            time.sleep(0.02)
        return False

    def _ended(self, say: Say) -> int:
        if not self.known.connection_files[0].exists():
            say("The cluster was stopped.")
            return 0
        words = self.cluster.controller.get_output().splitlines() if self.cluster.controller else []
        say(
            "The controller died again and again, and is not started any more. "
            + (f"Its log ends: {words[-1]}" if words else "")
        )
        return FAILED

    def _look_after_engines(self, say: Say) -> None:
        cluster = self.cluster
        for set_id in [set_id for set_id in cluster.engines if set_id in self._exit_codes]:
            code = self._exit_codes.pop(set_id)
            if cluster.engines[set_id].running:  # the cluster has seen to it
                say(f"The nanny of engine set {set_id} ended (exit code {code}): its engines are started again.")
                self._watch(set_id)
                continue
            cluster.stop_engines_sync(set_id)
            say(f"The engines of set {set_id} have left (exit code {code}).")

    # ------------------------------------------------------------------------------------------ the end

    def _stop(self, say: Say) -> int:
        _ignore_signals()
        if self.cluster.controller is None:
            say("Interrupted; nothing is left running.")
            return INTERRUPTED
        say("")
        left = _left(self.known)
        say("Stopping …" + (f" {left}" if left else ""))
        database = self.cluster.connection.database if self.known.connection_files[0].exists() else ""
        self.cluster.stop_cluster_sync()
        kept = f" `engineroom tasks{_options(self.known)}` shows what was run." if database.startswith("sqlite") else ""
        say(f"Stopped.{kept}")
        return 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    """Once stopping, nothing hastens it: what does not end by itself is killed after some seconds anyway."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _in_background(supervisor: Supervisor) -> int:
    """Run the supervisor as a daemon; returns its exit code if it fails, or 0 when the engines are ready."""
    sys.stdout.flush()
    receiving, sending = os.pipe()
    child = os.fork()  # no thread has been started yet
    if child == 0:
        os.close(receiving)
        try:
            os._exit(_daemon(supervisor, sending))
        finally:
            os._exit(FAILED)
    os.close(sending)
    code: int | None = None
    try:
        with os.fdopen(receiving) as lines:
            for line in lines:
                if line.startswith("\0"):
                    code = int(line[1:])
                    break
                print(line, end="", flush=True)
    except KeyboardInterrupt:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        print("Interrupted; nothing is left running.")
        return INTERRUPTED
    if code is None:
        print(f"ipcluster: the cluster did not start. See {_log_file(supervisor.known)}", file=sys.stderr)
        code = FAILED
    if code != 0:
        os.waitpid(child, 0)
    return code


def _daemon(supervisor: Supervisor, sending: int) -> int:
    """In the child: leave the terminal, tell the parent what happens until the engines are ready, then only the log."""
    os.setsid()
    path = _log_file(supervisor.known)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    parent: list[Any] = [os.fdopen(sending, "w")]

    def say(line: str) -> None:
        with contextlib.suppress(OSError):
            for terminal in parent:
                print(line, file=terminal, flush=True)
        if line:
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", flush=True)

    def report(code: int) -> None:
        with contextlib.suppress(OSError):
            for terminal in parent:
                terminal.write(f"\0{code}\n")
                terminal.close()
        parent.clear()

    try:
        code = supervisor.run(say, lambda: report(0))
    except (EngineroomError, RuntimeError, TimeoutError, OSError) as error:
        say(f"ipcluster: {' '.join(str(error).split())}")
        code = FAILED
    report(code)
    return code


def _log_file(known: Known) -> Path:
    middle = f"-{known.cluster_id}" if known.cluster_id else ""
    return known.profile_dir / "log" / f"ipcluster{middle}.log"


def _database(info: ConnectionInfo) -> str:
    words = {"memory": "memory only", "none": "no database"}
    return words.get(info.database, info.database.removeprefix("sqlite://"))


def _options(known: Known) -> str:
    """The options that name a cluster, for messages."""
    parts = known.client_arguments().replace("profile_dir=", "--profile-dir=").replace("cluster_id=", "--cluster-id=")
    return "".join(
        f" {part}".replace("'", "").replace(" profile=", " --profile=") for part in parts.split(", ") if part
    )


def _left(known: Known) -> str:
    """What a stop will leave undone."""
    counts = known.unfinished()
    if not counts or not sum(counts):
        return ""
    held, waiting = counts
    return (
        f"{plural(held + waiting, 'task')} had not finished ({held:,} at engines, {waiting:,} waiting): "
        "recorded as aborted."
    )


class IPClusterStop(ClusterApp):
    """Stop a cluster, and wait until it is gone.

    Engines are stopped at once: what they are running is recorded as aborted. Files that a killed cluster has left
    are removed. Exit codes: 0 stopped, 11 none was running.
    """

    name = "ipcluster"
    description = __doc__
    usage = "ipcluster stop [options]"
    examples = """
ipcluster stop                        # the cluster of the default profile
ipcluster stop --profile=night
ipcluster stop --all                  # every cluster of every profile, on this host
"""
    flags: Any = {
        "all": ({"IPClusterStop": {"all": True}}, "stop every cluster of every profile (or of --profile=)"),
        **_COMMON_FLAGS,
    }

    all = Bool(False, help="Stop every cluster.").tag(config=True)

    def start(self) -> None:
        wanted = self.everywhere(profiles=True) if self.all else [self.known]
        stopped = 0
        for known in wanted:
            stopped += _stop(known)
        if stopped:
            return
        if self.all:
            print("No cluster is running.")
            return
        self.exit_code = NOT_RUNNING
        others = [str(other) for other in self.everywhere(profiles=True) if other.running]
        hint = f" Running: {'; '.join(others)}." if others else ""
        print(f"ipcluster: {self.known} is not running.{hint}", file=sys.stderr)


def _stop(known: Known) -> bool:
    """Stop a cluster; returns whether there was something to stop."""
    supervisor, processes = known.supervisor, known.processes
    if supervisor is None and not processes:
        if not known.is_elsewhere and known.forget():
            print(f"Removed what {known} had left when it was killed.")
        return False
    left = _left(known)
    print(f"Stopping {known} …" + (f" {left}" if left else ""), flush=True)
    began = time.monotonic()
    if supervisor is not None:
        supervisor.signal(signal.SIGTERM)
        if not supervisor.join(STOP_SECONDS):
            supervisor.signal(signal.SIGKILL)
    for process in processes:
        process.stop()
        process.join(5)
    known.forget()
    print(f"Stopped after {time.monotonic() - began:.1f} s.")
    return True


class IPClusterList(ClusterApp):
    """List clusters: those that run, and those whose files were left behind.

    -o json prints a list of what `Cluster.to_dict()` returns; a program attaches to one of them with
    `engineroom.Cluster.from_dict`.
    """

    name = "ipcluster"
    description = __doc__
    usage = "ipcluster list [options]"
    examples = """
ipcluster list
ipcluster list -o json | jq '.[].controller.pid'
"""
    aliases: Any = {"o": "IPClusterList.output", **_WHICH}

    output = Enum(["text", "json"], "text", help="text or json.").tag(config=True)

    def start(self) -> None:
        found = [(known, known.open()) for known in self.everywhere(profiles=True)]
        if self.output == "json":
            print(json.dumps([cluster.to_dict() for _, cluster in found if cluster is not None], indent=1))
            return
        rows: list[list[str]] = []
        styles: dict[tuple[int, int], str] = {}
        for known, cluster in found:
            running = known.running
            engines = "?"
            launcher = "by hand"
            if cluster is not None:
                described = cluster.to_dict()["engines"]
                alive = {set_id for set_id, nanny in cluster.engines.items() if nanny.running}
                engines = str(sum(part["n"] for set_id, part in described.items() if set_id in alive))
                launcher = ", ".join(sorted({str(part["class"]) for part in described.values()})) or "—"
            state = "yes" if running else "?" if known.is_elsewhere else "no (stale)"
            styles[len(rows), 2] = "green" if running else "yellow"
            rows.append([known.profile, known.cluster_id or "''", state, engines, launcher])
        for line in table(
            ["PROFILE", "CLUSTER ID", "RUNNING", "ENGINES", "LAUNCHER"], rows, right=["ENGINES"], styles=styles
        ):
            print(line)


class IPClusterEngines(ClusterApp):
    """Add engines to a running cluster; returns when they are ready."""

    name = "ipcluster"
    description = __doc__
    usage = "ipcluster engines -n N [options]"
    examples = """
ipcluster engines -n 2
ipcluster engines -n 8 --profile=night
ipcluster engines -n 2 --resources license=2
"""
    aliases: Any = {
        "n": "IPClusterEngines.n",
        "engines": "IPClusterEngines.engines",
        "timeout": "IPClusterEngines.engine_timeout",
        "resources": "IPClusterEngines.resources",
        **_WHICH,
    }

    n = Integer(1, help="How many more engines.").tag(config=True)
    resources = Unicode("", help="What they share for tasks to ask for: gpu=2,license=1.").tag(config=True)
    engines = Unicode("local", help="What starts the engines; there is: local.").tag(config=True)
    engine_timeout = Float(60.0, help="Seconds to wait for the engines.").tag(config=True)

    def start(self) -> None:
        if self.n < 1:
            raise ConfigError(f"-n is a number of engines, 1 or more; got {self.n}")
        known = self.known
        cluster = known.open()
        if cluster is None or not known.running:
            raise ConfigError(f"{known} is not running; start it with `ipcluster start -n {self.n}{_options(known)}`")
        shared = named_resources.read(self.resources)
        if self.engines.lower() != "local":
            raise ConfigError(f"--engines={self.engines}: the launchers there are: local")
        with cluster.connect_client_sync() as client:
            before = set(client.ids)
            set_id = cluster.start_engines_sync(self.n, resources=shared)
            try:
                client.wait_for_engines(len(before) + self.n, timeout=self.engine_timeout)
            except BaseException:
                cluster.stop_engines_sync(set_id)
                cluster.write_cluster_file()
                raise
            ids = client.ids
        new = ", ".join(str(id) for id in ids if id not in before)
        print(f"{plural(self.n, 'engine')} added ({new}); the cluster has {len(ids)}.")


class IPClusterClean(ClusterApp):
    """Remove the files that killed clusters have left: cluster, connection and pid files, and their sockets.

    Files of clusters that run, here or (as far as one can tell) on another host, stay. Records and logs stay too.
    """

    name = "ipcluster"
    description = __doc__
    usage = "ipcluster clean [options]"
    examples = """
ipcluster clean                       # the default profile
ipcluster clean --all                 # all profiles
"""
    flags: Any = {
        "all": ({"IPClusterClean": {"all": True}}, "clean every profile"),
        "force": (
            {"IPClusterClean": {"force": True}},
            "remove also files of clusters that seem to run; nothing is stopped, but nobody can connect any more",
        ),
        **_COMMON_FLAGS,
    }

    all = Bool(False, help="Every profile.").tag(config=True)
    force = Bool(False, help="Also files of running clusters.").tag(config=True)

    def start(self) -> None:
        removed = kept = 0
        for known in self.everywhere(profiles=self.all):
            if not self.force and (known.processes or known.supervisor is not None or known.is_elsewhere):
                kept += 1
                continue
            for path in known.forget():
                print(f"removed {path}")
                removed += 1
        for path in _dead_sockets():
            path.unlink(missing_ok=True)
            print(f"removed {path}")
            removed += 1
        print(
            (f"{plural(removed, 'file')} removed." if removed else "Nothing to clean.")
            + (f" {plural(kept, 'cluster')} in use." if kept else "")
        )


def _dead_sockets() -> Iterator[Path]:
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


class IPCluster(EngineroomApp):
    """Start, stop and list clusters: a controller and engines on this host."""

    name = "ipcluster"
    description = __doc__
    usage = "ipcluster COMMAND [options]"
    subcommands: Any = {
        "start": (IPClusterStart, "start a controller and engines"),
        "stop": (IPClusterStop, "stop a cluster"),
        "list": (IPClusterList, "list clusters"),
        "engines": (IPClusterEngines, "add engines to a running cluster"),
        "clean": (IPClusterClean, "remove what killed clusters have left"),
    }
    examples = """
ipcluster start -n 4 --daemonize
ipcluster list
ipcluster stop
"""

    def start(self) -> None:
        self.print_help()


def main(argv: list[str] | None = None) -> int:
    """Entry point of `ipcluster`."""
    return run(IPCluster, argv)


if __name__ == "__main__":
    sys.exit(main())
