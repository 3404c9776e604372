"""The classes of `ipyparallel.cluster.launcher`, as thin aliases of our launchers.

A class is a value of `Cluster(engines=…)`, as its name is, and may be subclassed: class attributes that are options
(`queue`, `batch_template`, `submit_command` …) are their defaults, as plain values or as traitlets; other traitlets are
options of the subclass. A method `start(self, n)` may fill `self.context`, whose values the template can name.

Nothing is decided here: options, scripts and processes are those of `launchers`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from ..errors import ConfigError, EngineroomError
from ..launchers import Launcher as Launcher
from ..launchers import LaunchRequest
from ..launchers.base import LauncherFacts
from ..launchers.batch.generic import BatchEngines
from ..launchers.batch.htcondor import HTCondorEngines
from ..launchers.batch.job import BatchJob
from ..launchers.batch.lsf import LSFEngines
from ..launchers.batch.pbs import PBSEngines
from ..launchers.batch.sge import SGEEngines
from ..launchers.batch.slurm import SlurmEngines
from ..launchers.common import CommonSettings
from ..launchers.local import LocalEngines
from ..launchers.mpi import MPIEngines
from ..launchers.ssh import SSHEngines

#: Methods of ipyparallel's classes that nothing calls here → what does their work.
UNUSED = {
    **dict.fromkeys(("find_args", "args", "program", "program_args", "program_and_args"),
                    "the options engine_cmd and engine_args say what is started"),
    "get_env": "the option environment says what is added",
    **dict.fromkeys(("write_batch_script", "batch_file"), "the option batch_template is the script"),
    "parse_job_id": "the option job_id_regexp finds the id of a job",
    "poll": "the launcher itself asks for the state of its jobs",
    **dict.fromkeys(("send_files", "fetch_files"), "the options to_send and to_fetch name files"),
}  # fmt: skip


class LauncherError(EngineroomError):
    """The base of the errors of launchers in ipyparallel. Ours are `ConfigError` and `LaunchError`."""


class ProcessStateError(LauncherError):
    """Named by old programs; nothing raises it."""


class UnknownStatus(LauncherError):
    """Named by old programs; nothing raises it."""


class NotRunning(LauncherError):
    """Named by old programs; nothing raises it."""


class BaseLauncher:
    """Every class of this module but the errors."""


class ControllerLauncher(BaseLauncher):
    """Starts a controller. A value of `Cluster(controller=…)`; the cluster makes what it needs of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise ConfigError(
            f"{type(self).__name__} is made by a cluster: Cluster(controller={type(self).__name__}), or "
            "cluster.start_controller_sync()"
        )


class EngineLauncher(LauncherFacts, BaseLauncher):
    """Starts a set of engines: a value of `Cluster(engines=…)`. `cluster.engine_set` is one."""

    #: what a subclass has that nothing uses here: its name → what to do instead
    not_used: ClassVar[Mapping[str, str]] = {}
    #: traitlets of a subclass that are no options of the launcher: their values are attributes of the instance
    own_traits: ClassVar[tuple[str, ...]] = ()
    #: settings that all launchers take, as the class has them: `engine_args`, `environment` …
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "Options") and cls.__module__ != __name__:
            _adopt(cls)

    def __init__(self, request: LaunchRequest, options: Any) -> None:
        for name, why in self.not_used.items():
            raise ConfigError(f"{type(self).__name__}.{name} has no effect: {why}")
        self._request = request
        for name in self.own_traits:
            setattr(self, name, getattr(options, name))
        super().__init__(request, options)  # type: ignore[call-arg]

    def start(self, n: int | None = None) -> None:
        """Start the engines; `n` is as many as the launcher was made for."""
        if n not in (None, self.n):
            raise ConfigError(f"this launcher was made for {self.n} engines, not {n}: cluster.start_engines_sync({n})")
        super().start()  # type: ignore[misc]


def _adopt(cls: Any) -> None:
    """Make options of the class attributes of a subclass, and see what of it has no effect."""
    types = {field.name: field.type for field in msgspec.structs.fields(cls.Options)}
    fields: list[Any] = []
    own, unused, common = list(cls.own_traits), dict(cls.not_used), dict(cls.defaults)
    for name, value in list(vars(cls).items()):
        is_trait = callable(getattr(value, "default", None)) and hasattr(value, "metadata")
        option = cls.former_names.get(name, name)
        if name in UNUSED and option not in types:
            unused[name] = UNUSED[name]
        elif name in CommonSettings.__struct_fields__:
            common[name] = value.default() if is_trait else value
        elif name.startswith("_") or inspect.isroutine(value) or isinstance(value, property):
            continue
        elif option in types or is_trait:
            found = value.default() if is_trait else value
            fields.append((option, types.get(option, Any), msgspec.field(default_factory=_copies(found))))
            delattr(cls, name)
            own += [] if option in types else [option]
    if fields:
        made = msgspec.defstruct(f"{cls.__name__}Options", fields, bases=(cls.Options,), frozen=True, kw_only=True)
        cls.Options = made
    cls.sections = (*cls.sections, cls.__name__)
    cls.own_traits, cls.not_used, cls.defaults = tuple(own), unused, common
    if (start := vars(cls).get("start")) is not None:
        cls.start = _without_n(start)


def _copies(value: Any) -> Callable[[], Any]:
    return lambda: copy.copy(value)


def _without_n(start: Callable[..., Any]) -> Callable[..., Any]:
    """A `start(self, n)` that can be called without `n`, as clusters do."""

    def start_all(self: EngineLauncher, n: int | None = None) -> Any:
        return start(self, self.n if n is None else n)

    return start_all if len(inspect.signature(start).parameters) > 1 else start


# ---------------------------------------------------------------------------------------------- on this host, and MPI


class LocalProcessLauncher(BaseLauncher):
    """Starts a process on this host. The process itself is a `LocalProcess`."""


class LocalControllerLauncher(LocalProcessLauncher, ControllerLauncher):
    """A controller on this host: `controller="local"`."""


class LocalEngineLauncher(LocalProcessLauncher, EngineLauncher):
    """Engines on this host."""


class LocalEngineSetLauncher(LocalEngineLauncher, LocalEngines):
    """Engines on this host: `engines="local"`."""


class MPILauncher(LocalProcessLauncher):
    """Starts ranks of MPI."""


class MPIControllerLauncher(MPILauncher, ControllerLauncher):
    """A controller under mpiexec, which is not here: `Cluster(controller="local")` does the same work."""


class MPIEngineSetLauncher(MPILauncher, EngineLauncher, MPIEngines):
    """Engines as ranks of MPI: `engines="mpi"`."""


MPIExecLauncher = MPILauncher
MPIExecControllerLauncher = MPIControllerLauncher
MPIExecEngineSetLauncher = MPIEngineSetLauncher


# ---------------------------------------------------------------------------------------------- SSH


class SSHLauncher(LocalProcessLauncher):
    """Starts something on a host that ssh reaches."""


class SSHControllerLauncher(SSHLauncher, ControllerLauncher):
    """A controller on a host that ssh reaches: `controller="ssh"`."""


class SSHEngineSetLauncher(SSHLauncher, EngineLauncher, SSHEngines):
    """Engines on hosts that ssh reaches: `engines="ssh"`."""


class SSHEngineLauncher(SSHEngineSetLauncher):
    """Engines on one host."""


class SSHProxyEngineSetLauncher(SSHLauncher, EngineLauncher):
    """Engines that another host's `ipcluster` starts, which is not here: `engines="ssh"` starts them one by one."""


# ---------------------------------------------------------------------------------------------- batch systems


class BatchSystemLauncher(BaseLauncher):
    """Submits a job."""


class BatchControllerLauncher(BatchSystemLauncher, ControllerLauncher):
    """A controller as a job of a batch system."""


class _BatchEngineSet(BatchSystemLauncher, EngineLauncher, BatchJob):
    """What the sets of engines of all batch systems have."""

    @property
    def context(self) -> dict[str, Any]:
        """Values for fields of the template, and what programs read there. A subclass' `start` may add some."""
        return self.fields

    def _make_script(self) -> str:
        request = self._request
        known = {"n": request.n, "profile_dir": request.profile_dir, "cluster_id": request.cluster_id}
        self.fields = {**known, **self.fields}
        is_started = bool(vars(self).get("_is_started"))
        return super()._make_script() if is_started or type(self).start is _BatchEngineSet.start else ""

    def start(self, n: int | None = None) -> None:
        self._is_started = True
        self._script = self._make_script()
        super().start(n)


class BatchEngineSetLauncher(_BatchEngineSet, BatchEngines):
    """Engines as jobs of a batch system that the options describe: `engines="batch"`."""


class SlurmLauncher(BatchSystemLauncher):
    """Submits a job to Slurm."""


class SlurmControllerLauncher(SlurmLauncher, BatchControllerLauncher):
    """A controller as a job of Slurm: `controller="slurm"`."""


class SlurmEngineSetLauncher(SlurmLauncher, _BatchEngineSet, SlurmEngines):
    """Engines as jobs of Slurm: `engines="slurm"`."""


class PBSLauncher(BatchSystemLauncher):
    """Submits a job to PBS."""


class PBSControllerLauncher(PBSLauncher, BatchControllerLauncher):
    """A controller as a job of PBS: `controller="pbs"`."""


class PBSEngineSetLauncher(PBSLauncher, _BatchEngineSet, PBSEngines):
    """Engines as jobs of PBS: `engines="pbs"`."""


class SGELauncher(BatchSystemLauncher):
    """Submits a job to Grid Engine."""


class SGEControllerLauncher(SGELauncher, BatchControllerLauncher):
    """A controller as a job of Grid Engine: `controller="sge"`."""


class SGEEngineSetLauncher(SGELauncher, _BatchEngineSet, SGEEngines):
    """Engines as jobs of Grid Engine: `engines="sge"`."""


class LSFLauncher(BatchSystemLauncher):
    """Submits a job to LSF."""


class LSFControllerLauncher(LSFLauncher, BatchControllerLauncher):
    """A controller as a job of LSF: `controller="lsf"`."""


class LSFEngineSetLauncher(LSFLauncher, _BatchEngineSet, LSFEngines):
    """Engines as jobs of LSF: `engines="lsf"`."""


class HTCondorLauncher(BatchSystemLauncher):
    """Submits a job to HTCondor."""


class HTCondorControllerLauncher(HTCondorLauncher, BatchControllerLauncher):
    """A controller as a job of HTCondor: `controller="htcondor"`."""


class HTCondorEngineSetLauncher(HTCondorLauncher, _BatchEngineSet, HTCondorEngines):
    """Engines as jobs of HTCondor: `engines="htcondor"`."""


# ---------------------------------------------------------------------------------------------- what is not here


class WindowsHPCLauncher(BaseLauncher):
    """Submits a job to Windows HPC Server, which is not supported."""


class WindowsHPCControllerLauncher(WindowsHPCLauncher, ControllerLauncher):
    """A controller as a job of Windows HPC Server, which is not supported."""


class WindowsHPCEngineSetLauncher(WindowsHPCLauncher, EngineLauncher):
    """Engines as jobs of Windows HPC Server, which is not supported."""


#: name → what the names of its classes begin with
_PREFIXES = {
    "local": "Local", "mpi": "MPI", "ssh": "SSH", "sshproxy": "SSHProxy", "batch": "Batch", "slurm": "Slurm",
    "pbs": "PBS", "sge": "SGE", "lsf": "LSF", "htcondor": "HTCondor", "winhpc": "WindowsHPC",
}  # fmt: skip


def find_launcher_class(name: str, kind: str) -> type[BaseLauncher]:
    """The class of this module for a name in any case: "slurm", or its own.

    Raises
    ------
    ValueError
        `kind` is not "engine" or "controller", or there is no such launcher.
    """
    if kind not in ("engine", "controller"):
        raise ValueError(f"kind is 'engine' or 'controller'; got {kind!r}")
    ending = "EngineSetLauncher" if kind == "engine" else "ControllerLauncher"
    wanted = name.rpartition(".")[2]
    prefix = _PREFIXES.get(wanted.lower())
    found = globals().get(wanted if prefix is None else prefix + ending)
    if not (isinstance(found, type) and issubclass(found, BaseLauncher)):
        raise ValueError(f"there is no launcher {name!r} for {kind}s; there are {', '.join(_PREFIXES)}")
    return found
