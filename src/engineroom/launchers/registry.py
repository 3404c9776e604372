"""Launchers of engines by name: those of this package, and those that other packages offer.

Another package offers a launcher by an entry point of the group `engineroom.launchers`: its name, and a class with the
methods of `EngineLauncher`. Such a launcher may take the name of one of ours but `local`, and is used instead.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import ConfigError
from . import common
from .base import EngineLauncher, Launcher

if TYPE_CHECKING:
    from importlib import metadata

GROUP = "engineroom.launchers"

#: name → module and class, imported when it is asked for
OURS = {
    "local": "local:LocalEngines",
    "mpi": "mpi:MPIEngines",
    "ssh": "ssh:SSHEngines",
    "dask": "dask:DaskEngines",
    "ray": "ray:RayEngines",
    "slurm": "batch.slurm:SlurmEngines",
    "sge": "batch.sge:SGEEngines",
    "pbs": "batch.pbs:PBSEngines",
    "lsf": "batch.lsf:LSFEngines",
    "htcondor": "batch.htcondor:HTCondorEngines",
    "batch": "batch.generic:BatchEngines",
}

#: The classes of ipyparallel's launchers, with or without their module: `SlurmEngineSetLauncher`.
CLASS_NAME = re.compile(
    r"(?:(?:ipyparallel|IPython\.parallel|engineroom)\.\w+\.launcher\.)?(\w+?)(?:Engine|EngineSet)?Launcher"
)
#: what ipyparallel calls launchers of ours: former name → name
FORMER = {"mpiexec": "mpi", "batchsystem": "batch"}
#: launchers of ipyparallel that are not here → what to do
GONE = {
    **dict.fromkeys(("winhpc", "windowshpc"), "Windows HPC Server is not supported"),
    "sshproxy": "The launcher ssh starts the engines of all hosts, through another host if proxy_host= names one",
}


@functools.cache
def _offered() -> dict[str, metadata.EntryPoint]:
    from importlib import metadata  # it takes long to import, and to look through all packages

    return {found.name.lower(): found for found in metadata.entry_points(group=GROUP)}


def names() -> list[str]:
    """The names of all launchers."""
    return [*OURS, *(name for name in _offered() if name not in OURS)]


def launcher_class(name: object) -> type[EngineLauncher]:
    """The launcher with a name, in any case; of a class, or of the dotted name of a class.

    Names of ipyparallel's classes mean our launchers: `SlurmEngineSetLauncher` is "slurm".

    Raises
    ------
    ConfigError
        There is none, or it cannot be imported, or the class is no launcher of engines.
    """
    if isinstance(name, type) and _is_launcher(name):
        return name
    name = name.__name__ if isinstance(name, type) else name
    key = name.lower() if isinstance(name, str) else ""
    found = CLASS_NAME.fullmatch(name) if isinstance(name, str) else None
    if found is not None and key not in _offered():
        key = found[1].lower()
    key = FORMER.get(key, key)
    try:
        if key != "local" and key in _offered():
            return _offered()[key].load()  # type: ignore[no-any-return]
        if key in OURS:
            module, _, attribute = OURS[key].partition(":")
            return getattr(import_module(f"{__package__}.{module}"), attribute)  # type: ignore[no-any-return]
        if isinstance(name, str) and "." in name and found is None:
            module, _, attribute = name.rpartition(".")
            kind = getattr(import_module(module), attribute, None)
            if kind is not None and _is_launcher(kind):
                return kind  # type: ignore[no-any-return]
    except ImportError as error:
        raise ConfigError(f"the launcher {key} cannot be used here: {error}") from None
    instead = f". {GONE[key]}" if key in GONE else ""
    raise ConfigError(f"there is no launcher {name!r}; the launchers there are: {', '.join(names())}{instead}")


def _is_launcher(kind: Any) -> bool:
    """Whether this is a class whose instances start engines."""
    return isinstance(kind, type) and hasattr(kind, "Options") and hasattr(kind, "preview")


def name_of(name: object) -> str:
    """What a launcher is called in an error."""
    return name.__name__ if isinstance(name, type) else str(name).lower()


def read_options(name: object, given: Mapping[str, Any], others: Iterable[str] = ()) -> Any:
    """The options of a launcher, from values by name. `others`: what else an unknown name may mean.

    Raises
    ------
    ConfigError
        It has no such option, or a value has the wrong type.
    """
    kind, called = launcher_class(name), name_of(name)
    known = kind.Options.__struct_fields__
    renamed = {kind.former_names.get(option, option): value for option, value in given.items()}
    for option in renamed:
        if option not in known:
            raise ConfigError(f"the launcher {called} has no option {option!r}; {_hint(option, known, others)}")
    try:
        return msgspec.convert(renamed, kind.Options, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"an option of the launcher {called} cannot be used: {error}") from None


def _hint(option: str, known: Iterable[str], others: Iterable[str]) -> str:
    """What may have been meant by an option that a launcher does not have."""
    import difflib

    ours = [name for name in OURS if name not in _offered()]
    if having := [name for name in ours if option in launcher_class(name).Options.__struct_fields__]:
        hint = f"it is an option of {', '.join(having)}: engines={having[0]!r}"
        if any(OURS[name].startswith("batch.") for name in having):
            hint += f". The job of a controller gets it by controller_options={{{option!r}: …}}"
            hint += f", or --controller-option {option}=…"
        return hint
    close = difflib.get_close_matches(option, [*known, *others], 1)
    kind_of = "" if not close or close[0] in known else "the argument "
    return f"did you mean {kind_of}{close[0]}?" if close else f"its options are: {', '.join(known) or 'none'}"


def configured_options(name: object, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a launcher that a configuration file has in the launcher's own sections.

    A class may have `defaults` for the settings that all launchers take.
    """
    kind = launcher_class(name)
    found: dict[str, Any] = dict(getattr(kind, "defaults", {}))
    for section in (*common.SECTIONS, *kind.sections):
        found |= dict(config.get(section, {}))
    return found


def attach(described: Mapping[str, Any]) -> Launcher:
    """The launcher that another process started, from its `to_dict`."""
    return launcher_class(described.get("class", "local")).from_dict(described)
