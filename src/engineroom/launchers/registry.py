"""Launchers of engines by name: those of this package, and those that other packages offer.

Another package offers a launcher by an entry point of the group `engineroom.launchers`: its name, and a class with the
methods of `EngineLauncher`. Such a launcher may take the name of one of ours but `local`, and is used instead.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import ConfigError
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


@functools.cache
def _offered() -> dict[str, metadata.EntryPoint]:
    from importlib import metadata  # it takes long to import, and to look through all packages

    return {found.name.lower(): found for found in metadata.entry_points(group=GROUP)}


def names() -> list[str]:
    """The names of all launchers."""
    return [*OURS, *(name for name in _offered() if name not in OURS)]


def launcher_class(name: object) -> type[EngineLauncher]:
    """The launcher with a name, in any case.

    Raises
    ------
    ConfigError
        There is none, or it cannot be imported.
    """
    key = name.lower() if isinstance(name, str) else ""
    try:
        if key != "local" and key in _offered():
            found = _offered()[key].load()
        elif key in OURS:
            module, _, attribute = OURS[key].partition(":")
            found = getattr(import_module(f"{__package__}.{module}"), attribute)
        else:
            raise ConfigError(f"there is no launcher {name!r}; the launchers there are: {', '.join(names())}")
    except ImportError as error:
        raise ConfigError(f"the launcher {key} cannot be used here: {error}") from None
    return found  # type: ignore[no-any-return]


def read_options(name: str, given: Mapping[str, Any]) -> Any:
    """The options of a launcher, from values by name.

    Raises
    ------
    ConfigError
        It has no such option, or a value has the wrong type.
    """
    kind = launcher_class(name)
    known = kind.Options.__struct_fields__
    renamed = {kind.former_names.get(option, option): value for option, value in given.items()}
    for option in renamed:
        if option not in known:
            import difflib

            close = difflib.get_close_matches(option, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"its options are: {', '.join(known) or 'none'}"
            raise ConfigError(f"the launcher {name.lower()} has no option {option!r}; {hint}")
    try:
        return msgspec.convert(renamed, kind.Options, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"an option of the launcher {name.lower()} cannot be used: {error}") from None


def configured_options(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a launcher that a configuration file has in the launcher's own sections."""
    found: dict[str, Any] = {}
    for section in launcher_class(name).sections:
        found |= dict(config.get(section, {}))
    return found


def attach(described: Mapping[str, Any]) -> Launcher:
    """The launcher that another process started, from its `to_dict`."""
    return launcher_class(described.get("class", "local")).from_dict(described)
