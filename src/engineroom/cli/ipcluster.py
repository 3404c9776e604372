"""`ipcluster`: start, stop, list and extend clusters, whose controllers are on this host.

`start` stays as the cluster's supervisor, in the foreground or (with --daemonize) as a daemon of its own session. Its
process id is in `<profile>/pid/ipcluster[-<cluster_id>].pid`, so that `stop` stops it first, and with it the rest.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from traitlets import Bool, Dict, Enum, Float, Integer, Unicode, Union, default
from traitlets import List as ListTrait
from traitlets.config import Configurable

from .. import resources as named_resources
from ..cluster import cluster as clusters
from ..cluster.cluster_files import dead_sockets
from ..cluster.found_cluster import FoundCluster
from ..cluster.processes.chosen_controller import NAMES as CONTROLLERS
from ..config import did_you_mean, profile_folders
from ..errors import ConfigError
from ..launchers import Launcher
from .base import ALREADY_RUNNING, BASE_ALIASES, BASE_FLAGS, EngineroomApp, UsageError, run
from .former_options import CLUSTER, CLUSTER_ENGINES
from .launcher_options import ALIASES, LAUNCHERS, LauncherOptions
from .supervisor import Supervisor, in_background, what_a_stop_ends, what_a_stop_lost
from .text import as_json, paint, plural, table

#: Exit code of `ipcluster stop` when there is nothing to stop.
NOT_RUNNING = 11

_JSON = {"json": ({"ClusterApp": {"json": True}}, "print JSON, for programs")}


class Cluster(Configurable):
    """The settings of `ipcluster start`."""

    n = Integer(None, allow_none=True, help="How many engines; default: one per usable core.").tag(config=True)
    engines = Unicode("local", help=f"What starts the engines; there are: {LAUNCHERS}.").tag(config=True)
    engine_launcher_class = Unicode("local", help="ipyparallel's name for `engines`.").tag(config=True)
    controller_launcher_class = Unicode("local", help="ipyparallel's name for `controller`.").tag(config=True)
    controller = Unicode("local", help=f"What starts the controller; there are: {', '.join(CONTROLLERS)}.").tag(
        config=True
    )
    controller_host = Unicode("", help="The host of the controller, for --controller=ssh.").tag(config=True)
    controller_options = Dict(
        help="An option of the controller's batch job, NAME=VALUE. Default: as for the jobs of the engines."
    ).tag(config=True)
    controller_ip = Unicode(
        "", help="Address to listen on for other hosts ('*': all), encrypted. Default: as engines= needs it."
    ).tag(config=True)
    controller_location = Unicode("", help="Name or address by which other hosts reach the controller.").tag(
        config=True
    )
    controller_args = ListTrait(Unicode(), help="More arguments for ipcontroller.").tag(config=True)
    engine_args = ListTrait(Unicode(), help="More arguments for ipengine.").tag(config=True)
    resources = Union(
        [Unicode(), Dict()],
        default_value="",
        help="Named resources of this host, divided among the engines: gpu=4,license=1.",
    ).tag(config=True)
    engine_timeout = Float(60.0, help="Seconds to wait for the engines.").tag(config=True)
    adaptive = Unicode(
        "", help="At least and at most so many engines, as the queue needs: 1,64. Default: as many as -n says."
    ).tag(config=True)
    launcher_options = Dict(help="Options of the launcher of the engines, by name.").tag(config=True)


class ClusterApp(EngineroomApp):
    """Base of the commands."""

    aliases: Any = {**BASE_ALIASES}
    flags: Any = {**BASE_FLAGS}
    config_names: ClassVar[tuple[str, ...]] = ("ipcluster_config",)
    former = CLUSTER
    exit_code = 0

    json = Bool(False, help="Print JSON.").tag(config=True)

    @default("log_level")
    def _tells_what_happens(self) -> int:
        return logging.INFO

    @property
    def is_quiet(self) -> bool:
        """Whether only errors, and what was asked for, are printed: by --quiet, or a --log-level above INFO."""
        level: Any = self.log_level
        return bool(level > logging.INFO)

    def tell(self, text: str, **facts: Any) -> None:
        """Print what was done: as a sentence, or with --json as one line of JSON."""
        if self.json or not self.is_quiet:
            print(as_json(facts, line=True) if self.json else text, flush=True)

    @property
    def found(self) -> FoundCluster:
        """The cluster that the options name."""
        return FoundCluster(self.folder, self.cluster_id)

    def _is_trait(self, name: str) -> bool:
        """Also settings of launchers: `--SlurmLauncher.queue=short`. The launcher itself knows which there are."""
        return super()._is_trait(name) or name.partition(".")[0].endswith("Launcher")

    def launcher_sections(self) -> dict[str, Any]:
        """Those sections of the configuration that belong to launchers."""
        return {name: dict(values) for name, values in self.config.items() if name.endswith("Launcher")}

    def everywhere(self, profiles: bool) -> list[FoundCluster]:
        """All clusters: of all profiles, unless options name one."""
        if self.profile or self.profile_directory or not profiles:
            folders = [self.folder]
        else:
            folders = self._all_folders()
        return [found for folder in folders for found in FoundCluster.all_of(folder)]

    def _all_folders(self) -> list[Path]:
        """The folders of all profiles, and of the one that the options name."""
        return sorted({*profile_folders(self.ipython_directory or None), self.folder})


class IPClusterStart(ClusterApp):
    """Start a controller and engines, and watch them.

    The command stays: it prints what happens, and starts a controller or engines again that were killed. Ctrl-C stops
    the cluster. With --daemonize it returns when the engines are ready, and the cluster runs until `ipcluster stop`.
    --json prints one line for programs when the engines are ready: an item of `ipcluster list --json`. The rest goes to
    stderr then. Options after `--` are passed to ipcontroller.

    Exit codes: 0 stopped, 1 could not start, 10 it is running already.
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
ipcluster start -n 64 --engines=slurm --walltime=2h --dry-run    # print the job script
"""
    classes: Any = [Cluster, LauncherOptions]
    aliases: Any = {
        "n": "Cluster.n",
        "engines": "Cluster.engines",
        "controller": "Cluster.controller",
        "controller-host": "Cluster.controller_host",
        "controller-option": "Cluster.controller_options",
        "ip": "Cluster.controller_ip",
        "location": "Cluster.controller_location",
        "timeout": "Cluster.engine_timeout",
        "resources": "Cluster.resources",
        "adaptive": "Cluster.adaptive",
        **ALIASES,
        **BASE_ALIASES,
    }
    flags: Any = {
        "dry-run": (
            {"IPClusterStart": {"dry_run": True}},
            "print the script, or the commands, that would start the engines; start nothing",
        ),
        "daemonize": (
            {"IPClusterStart": {"daemonize": True}},
            "return when the engines are ready; the cluster goes on without the terminal",
        ),
        **_JSON,
        **BASE_FLAGS,
    }

    daemonize = Bool(False, help="Run in the background.").tag(config=True)
    dry_run = Bool(False, help="Print what would start the engines.").tag(config=True)

    def start(self) -> None:
        settings = Cluster(parent=self)
        if settings.n is not None and settings.n < 0:
            raise UsageError(f"-n is a number of engines, got {settings.n}")
        if self.dry_run:
            print(self._make_cluster(self.found, settings).dry_run(), end="")
            return
        is_new = not self.folder.exists()
        self.make_folder()
        if is_new:
            self._say(f"A new profile: its folder is {self.folder}.")
        found = self.found
        running = found.processes
        if found.running or found.supervisor is not None:
            print(
                f"ipcluster: {found} is running already ({_where(running, found)}). Connect with "
                f"engineroom.Client({found.files.client_arguments()}), add engines with `ipcluster engines -n 2`, "
                "stop it with `ipcluster stop`, or start another with --profile=",
                file=sys.stderr,
            )
            self.exit_code = ALREADY_RUNNING
            return
        for nanny in running:  # nannies of a cluster whose controller and supervisor were killed
            nanny.stop()
        found.files.remove()
        supervisor = Supervisor(found, self._make_cluster(found, settings), daemon=self.daemonize)
        if self.daemonize:
            self.exit_code = in_background(supervisor, self._say)
            if self.exit_code == 0:
                self._ready()
        else:
            self.exit_code = supervisor.run(self._say, self._ready)

    def _say(self, line: str) -> None:
        if not self.is_quiet or line.startswith(f"{self.name}: "):  # an error of the daemon
            print(line, file=sys.stderr if self.json else sys.stdout, flush=True)

    def _ready(self) -> None:
        if self.json and (cluster := self.found.open()) is not None:
            print(as_json(cluster.to_dict(), line=True), flush=True)

    def _make_cluster(self, found: FoundCluster, settings: Cluster) -> clusters.Cluster:
        is_given = any("log_level" in self.config.get(cls.__name__, {}) for cls in type(self).__mro__)
        logs = [f"--log-level={self.log_level}"] if is_given else []
        return clusters.Cluster(
            n=settings.n,
            profile_dir=found.files.profile_dir,
            cluster_id=found.cluster_id,
            controller_ip=settings.controller_ip,
            controller_location=settings.controller_location,
            controller_args=[*logs, *settings.controller_args, *self.passed_on],
            engine_args=[*logs, *settings.engine_args],
            resources=named_resources.read(settings.resources),
            engines=settings.engines,
            engine_launcher_class=settings.engine_launcher_class,
            controller=settings.controller,
            controller_host=settings.controller_host,
            controller_options=settings.controller_options,
            controller_launcher_class=settings.controller_launcher_class,
            engine_timeout=settings.engine_timeout,
            adaptive=_bounds(settings.adaptive),
            shutdown_atexit=not self.daemonize,
            load_profile=self.use_config,
            config=self.launcher_sections(),  # the rest has been read, and is among these arguments
            **{**settings.launcher_options, **LauncherOptions(parent=self).given()},
        )


def _where(running: Sequence[Launcher], found: FoundCluster) -> str:
    """What of a cluster runs, as a user finds it."""
    first = running[0] if running else found.supervisor
    job = getattr(first, "job_id", "")
    return f"job {job}" if job else f"pid {first.pid if first else '?'}"


def _bounds(given: str) -> tuple[int, int] | None:
    """The least and the most engines, from "1,64"."""
    if not given:
        return None
    try:
        least, most = (int(word) for word in given.split(","))
    except ValueError:
        raise UsageError(f"--adaptive is the least and the most engines: --adaptive=1,64; got {given!r}") from None
    return least, most


class IPClusterStop(ClusterApp):
    """Stop a cluster, and wait until it has ended.

    Engines are stopped at once; the tasks that they run are recorded as aborted. Files of a cluster that was killed
    are removed. If records could not be written (the disk is full, the database is gone), stderr says how many.
    Exit codes: 0 stopped, 11 none was running.
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
        **_JSON,
        **BASE_FLAGS,
    }

    all = Bool(False, help="Stop every cluster.").tag(config=True)

    def start(self) -> None:
        wanted = self.everywhere(profiles=True) if self.all else [self.found]
        stopped = 0
        for found in wanted:
            stopped += self._stop(found)
        if stopped:
            return
        if self.all:
            self.tell("No cluster is running.", stopped=None)
            return
        self.exit_code = NOT_RUNNING
        others = [str(other) for other in self.everywhere(profiles=True) if other.running]
        hints = [did_you_mean(self.folder), f"Running: {'; '.join(others)}." if others else ""]
        print(" ".join([f"ipcluster: {self.found} is not running.", *filter(None, hints)]), file=sys.stderr)

    def _stop(self, found: FoundCluster) -> bool:
        """Stop a cluster; returns whether there was something to stop."""
        named = {"profile": found.profile, "cluster_id": found.cluster_id}
        if found.supervisor is None and not found.processes:
            if not found.is_elsewhere and found.files.remove():
                self.tell(f"Removed the files of {found}, which was killed.", **named, stopped=False)
            return False
        left = what_a_stop_ends(found)
        if not (self.json or self.is_quiet):
            print(f"Stopping {found} …" + (f" {left}" if left else ""), flush=True)
        began = time.monotonic()
        found.stop()
        seconds = time.monotonic() - began
        if lost := what_a_stop_lost(found):
            print(f"ipcluster: {lost}", file=sys.stderr)
        self.tell(f"Stopped after {seconds:.1f} s.", **named, stopped=True, seconds=round(seconds, 3))
        return True


class IPClusterList(ClusterApp):
    """List clusters that run, and clusters that were killed and left files.

    --json (or -o json) prints a list. A program attaches to a cluster with `engineroom.Cluster.from_dict` of one of its
    items.
    """

    name = "ipcluster"
    description = __doc__
    usage = "ipcluster list [options]"
    examples = """
ipcluster list
ipcluster list --json | jq '.[].controller.pid'
"""
    aliases: Any = {"o": "IPClusterList.output", **BASE_ALIASES}
    flags: Any = {**_JSON, **BASE_FLAGS}

    output = Enum(["text", "json"], "text", help="text or json.").tag(config=True)

    def start(self) -> None:
        listed = [(found, found.open()) for found in self.everywhere(profiles=True)]
        if self.json or self.output == "json":
            print(as_json([cluster.to_dict() for _, cluster in listed if cluster is not None]))
            return
        rows: list[list[str]] = []
        styles: dict[tuple[int, int], str] = {}
        for found, cluster in listed:
            running = found.running
            engines = "?"
            launcher = "by hand"
            if cluster is not None:
                described = cluster.to_dict()["engines"]
                alive = {set_id for set_id, nanny in cluster.engines.items() if nanny.running}
                engines = str(sum(part["n"] for set_id, part in described.items() if set_id in alive))
                launcher = ", ".join(sorted({str(part["class"]) for part in described.values()})) or "—"
            state = "yes" if running else "?" if found.is_elsewhere else "no (stale)"
            styles[len(rows), 2] = "green" if running else "yellow"
            rows.append([found.profile, found.cluster_id or "''", state, engines, launcher])
        if not rows:
            print(paint("No cluster is running.", "dim", stream=sys.stderr), file=sys.stderr)
            return
        for line in table(
            ["PROFILE", "CLUSTER ID", "RUNNING", "ENGINES", "LAUNCHER"], rows, right=["ENGINES"], styles=styles
        ):
            print(line)


class IPClusterEngines(ClusterApp):
    """Add engines to a running cluster, and wait until they are ready."""

    name = "ipcluster"
    description = __doc__
    usage = "ipcluster engines -n N [options]"
    examples = """
ipcluster engines -n 2
ipcluster engines -n 8 --profile=night
ipcluster engines -n 2 --resources license=2
ipcluster engines -n 16 --engines=slurm --queue=short
"""
    classes: Any = [LauncherOptions]
    former = CLUSTER_ENGINES
    aliases: Any = {
        "n": "IPClusterEngines.n",
        "engines": "IPClusterEngines.engines",
        "timeout": "IPClusterEngines.engine_timeout",
        "resources": "IPClusterEngines.resources",
        **ALIASES,
        **BASE_ALIASES,
    }

    flags: Any = {**_JSON, **BASE_FLAGS}

    n = Integer(1, help="How many more engines.").tag(config=True)
    resources = Unicode("", help="Named resources that these engines share: gpu=2,license=1.").tag(config=True)
    engines = Unicode("local", help=f"What starts the engines; there are: {LAUNCHERS}.").tag(config=True)
    engine_timeout = Float(60.0, help="Seconds to wait for the engines.").tag(config=True)

    def start(self) -> None:
        if self.n < 1:
            raise UsageError(f"-n is a number of engines, 1 or more; got {self.n}")
        found = self.found
        options = LauncherOptions(parent=self).given()
        config = self.launcher_sections()
        cluster = found.open(engines=self.engines, engine_timeout=self.engine_timeout, config=config, **options)
        if cluster is None or not found.running:
            raise ConfigError(f"{found} is not running; {found.how_to_start(self.n)}")
        shared = named_resources.read(self.resources)
        with cluster.connect_client_sync() as client:
            before = set(client.ids)
            set_id = cluster.start_engines_sync(self.n, resources=shared)
            try:
                cluster.wait_for_engines_sync(client, len(before) + self.n)
            except BaseException:
                cluster.stop_engines_sync(set_id)
                cluster.write_cluster_file()
                raise
            ids = client.ids
        new = [id for id in ids if id not in before]
        shown = ", ".join(map(str, new))
        self.tell(
            f"{plural(self.n, 'engine')} added ({shown}); the cluster has {len(ids)}.", added=new, engines=len(ids)
        )


class IPClusterClean(ClusterApp):
    """Remove the files of clusters that were killed: cluster, connection and pid files, and sockets.

    Files of clusters that run on this host stay, and so do files of clusters on other hosts. Records and logs stay.
    Sockets on which nobody listens are removed: those of the profiles that are cleaned and, unless options name a
    profile, those that belong to no profile any more.
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
            "also remove files of clusters that seem to run: they go on, but nobody can connect any more",
        ),
        **_JSON,
        **BASE_FLAGS,
    }

    all = Bool(False, help="Every profile.").tag(config=True)
    force = Bool(False, help="Also files of running clusters.").tag(config=True)

    def start(self) -> None:
        removed: list[str] = []
        kept = 0
        for found in self.everywhere(profiles=self.all):
            if not self.force and (found.processes or found.supervisor is not None or found.is_elsewhere):
                kept += 1
                continue
            for path in found.files.remove():
                self._removed(removed, path, "")
        is_named = bool(self.profile or self.profile_directory)
        of = None if self.all and not is_named else self.folder
        for path, owner in dead_sockets(self._all_folders(), of, nobodys=not is_named):
            path.unlink(missing_ok=True)
            self._removed(removed, path, f", a socket of {owner}: nobody listens")
        self.tell(
            (f"{plural(len(removed), 'file')} removed." if removed else "Nothing to clean.")
            + (f" {plural(kept, 'cluster')} in use." if kept else ""),
            removed=removed,
            in_use=kept,
        )

    def _removed(self, removed: list[str], path: Any, why: str) -> None:
        removed.append(str(path))
        if not (self.json or self.is_quiet):
            print(f"removed {path}{why}")


class IPClusterExtension(ClusterApp):
    """Does nothing: `pip install 'engineroom[lab]'` brings the panel for JupyterLab, which needs no enabling."""

    name = "ipcluster"
    description = __doc__
    usage = "ipcluster nbextension [enable|disable]"
    examples = """
ipcluster nbextension enable          # says that it does nothing
"""
    positional: ClassVar[tuple[int, int, str]] = (0, 1, "argument")

    def start(self) -> None:
        print("ipcluster: there is no Jupyter extension yet; nothing was changed.", file=sys.stderr)


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
        "clean": (IPClusterClean, "remove the files of killed clusters"),
        "nbextension": (IPClusterExtension, "does nothing; accepted for old scripts"),
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
