"""Which launcher starts the controller of a cluster, where, and with which options. Nothing is started here."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping
from typing import Any

from ...errors import ConfigError
from ...ids import new_uuid
from ...launchers import LaunchRequest
from ...launchers.base import words_of
from ...launchers.batch.job import BatchJob
from ...launchers.common import PROGRAM_WORDS, separated
from ...launchers.local import LocalProcess
from ...launchers.registry import OURS, launcher_class, read_options
from ...launchers.ssh import is_word
from ...launchers.ssh_controller import SSHController, command_line
from ..chosen_launcher import ChosenLauncher
from ..cluster_files import ClusterFiles
from ..commands import Command

#: Launchers of controllers.
NAMES = ("local", "ssh", *(name for name, place in OURS.items() if place.startswith("batch.")))
#: Options that say how large the jobs of engines are, or what else they are. The controller's job takes over all others
#: if it is in the same batch system.
OF_ENGINES = (
    "cores", "constraint", "drain", "engines_per_job", "extra_lines", "fields", "gpus", "job_name", "memory",
    "options", "parallel_environment", "template", "template_file",
)  # fmt: skip


class ChosenController:
    """The launcher of a controller: on this host, on one that ssh reaches, or as a batch job.

    Parameters
    ----------
    name : str or class
        One of `NAMES`, or the name or the class of a launcher as ipyparallel has it: SSHControllerLauncher.
    host : str
        The host that ssh reaches. If it is "", the configuration may name it.
    given : dict
        Options of the controller's batch job that the user gave: they win.
    config : mapping
        A configuration. Its sections SSHControllerLauncher, SlurmControllerLauncher and so on hold options.
    engines : ChosenLauncher
        The launcher of the engines. In the same batch system, the controller's job has their account, queue, walltime
        and so on, where nothing else is said.
    keep : bool
        Whether the cluster is to outlive this process.

    Raises
    ------
    ConfigError
        A controller cannot be started so.
    """

    def __init__(
        self,
        name: object,
        host: str,
        given: Mapping[str, Any],
        config: Mapping[str, Any],
        engines: ChosenLauncher,
        keep: bool,
    ) -> None:
        #: a name in `NAMES`
        self.kind = _kind(name)
        #: the host that ssh reaches; "": ssh does not start it
        self.host = host or (_configured_host(config) if self.kind == "ssh" else "")
        if (self.kind == "ssh") != bool(self.host):
            raise ConfigError("a controller on another host needs both: controller='ssh', and its controller_host=")
        if self.host and not is_word(self.host):
            raise ConfigError(f"{self.host!r} is no name of a host: it is the argument controller_host")
        if keep and self.is_elsewhere:
            why = "one that ssh starts ends with its ssh" if self.host else "shutdown_atexit=False has a job go on"
            raise ConfigError(f"keep=True is for a controller on this host: {why}")
        self._job = None
        if self.kind not in ("local", "ssh"):
            self._job = _ChosenJob(self.kind, {**_attributes(name), **given}, config, engines)
        elif given:
            raise ConfigError("controller_options are those of a controller that is a batch job: controller='slurm'")

    @property
    def is_job(self) -> bool:
        """Whether it is a job of a batch system."""
        return self._job is not None

    @property
    def is_elsewhere(self) -> bool:
        """Whether it may run on another host: then it listens on the network."""
        return self.kind != "local"

    def make(self, command: Command, files: ClusterFiles, *, lifeline: bool) -> LocalProcess | BatchJob:
        """The launcher of a controller.

        Parameters
        ----------
        command : Command
            The command line of the controller.
        lifeline : bool
            Whether a process on this host gets a stdin that closes when this process ends.

        Raises
        ------
        ConfigError
            The options cannot be used.
        """
        if self._job is not None:
            return self._job.make(command, files)
        log_file = files.log_of("ipcontroller")
        if self.host:
            return SSHController(self.host, command.args, log_file, environment=command.environment)
        return LocalProcess(command.args, log_file, environment=command.environment, lifeline=lifeline)

    def preview(self, command: Command, files: ClusterFiles) -> str:
        """The script or the command line that starts it, for `--dry-run`; "" on this host."""
        if self._job is not None:
            script = self._job.make(command, files).preview()
            return f"# ---- the job of the controller\n{script}\n# ---- the engines, as soon as the controller runs\n"
        return shlex.join(command_line(self.host, command.args)) + "\n" if self.host else ""


class _ChosenJob:
    """The batch job of a controller."""

    def __init__(self, kind: str, given: Mapping[str, Any], config: Mapping[str, Any], engines: ChosenLauncher) -> None:
        self._class: Any = launcher_class(kind)
        sections = [each.replace("EngineSetLauncher", "ControllerLauncher") for each in self._class.sections]
        found = {"job_name": "engineroom-controller", **engines.options_of_jobs(self._class, without=OF_ENGINES)}
        for section in ("BaseLauncher", "ControllerLauncher", *sections):
            found |= config.get(section, {})
        found |= given
        self._program, self._arguments = (words_of(found.pop(f"controller_{name}", [])) for name in ("cmd", "args"))
        self._common, own = separated(found, self._class.Options.__struct_fields__)
        self._options = read_options(kind, own)

    def make(self, command: Command, files: ClusterFiles) -> BatchJob:
        """Its launcher."""
        words = [*self._program, *command.args[PROGRAM_WORDS:]] if self._program else command.args
        request = LaunchRequest(
            n=1,
            command=[*words, *self._arguments],
            environment={**command.environment, **self._common.environment},
            connection_file=files.connection_files[0],
            log_file=files.log_of(f"ipcontroller-{new_uuid()[:8]}"),  # its logs are found by this name
            set_id="",
            cluster_id=files.cluster_id,
            profile_dir=files.profile_dir,
            is_controller=True,
        )
        job: BatchJob = self._class(request, self._options)
        return job


def _kind(name: object) -> str:
    """The name in `NAMES`. Subclasses of ipyparallel's classes mean what these mean."""
    names = [name.__name__ if isinstance(name, type) else str(name)]
    if isinstance(name, type):
        names += [base.__name__ for base in inspect.getmro(name) if base.__name__.endswith("ControllerLauncher")]
    for given in names:
        kind = given.rpartition(".")[2].lower().removesuffix("launcher").removesuffix("controller")
        if kind in NAMES:
            return kind
    hint = ""
    if names[0].lower().startswith("mpi"):
        hint = ". A controller is one process, to which MPI has nothing to add: controller='local' does the same work"
    raise ConfigError(f"controller={names[0]!r}: the launchers there are: {', '.join(NAMES)}{hint}")


def _attributes(name: object) -> dict[str, Any]:
    """Options that a user's subclass of a launcher has as class attributes, plain or as traitlets."""
    found: dict[str, Any] = {}
    if isinstance(name, type):
        own = [each for each in inspect.getmro(name) if not each.__module__.startswith(("engineroom.", "builtins"))]
        for each in reversed(own):
            found |= {option: value for option, value in vars(each).items() if not option.startswith("_")}
    is_trait = {option: hasattr(value, "metadata") and callable(getattr(value, "default", None))
                for option, value in found.items()}  # fmt: skip
    return {option: value.default() if is_trait[option] else value for option, value in found.items()}


def _configured_host(config: Mapping[str, Any]) -> str:
    """The host that a configuration file names, as `hostname` and `user`, or as `location`."""
    section = {**config.get("SSHLauncher", {}), **config.get("SSHControllerLauncher", {})}
    user, named = section.get("user", ""), section.get("hostname", "")
    return str(section.get("location") or (f"{user}@{named}" if user and named else named))
