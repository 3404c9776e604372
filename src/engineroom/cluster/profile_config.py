"""What a cluster may be told: by arguments, and by a profile's `ipcluster_config.py`, and `.json`, which wins.

Launchers check their own options.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import COUNT, DICT, LIMIT, PATH, SWITCH, TEXT, TEXTS, Kind, check_arguments
from ..errors import ConfigError
from ..private import why_not_trusted

#: Sections of a configuration; the first two as in old files.
SECTIONS = ("IPClusterStart", "IPClusterEngines", "Cluster")

LAUNCHER = Kind(
    "the name of a launcher, or a class of one", lambda value: value is None or isinstance(value, str | type)
)
#: What is no number is looked up among the launchers, and the error lists these.
ENGINES = Kind(
    "the name of a launcher, a class of one, or a number of engines, 0 or more",
    lambda value: not hasattr(value, "__index__") or isinstance(value, bool | type) or COUNT.fits(value),
)
CONFIG = Kind(
    "a dict of sections, each a dict of settings",
    lambda value: value is None or (isinstance(value, Mapping) and all(isinstance(v, Mapping) for v in value.values())),
)

KINDS: dict[str, Kind] = {
    "n": COUNT,
    "engines": ENGINES,
    "controller": LAUNCHER,
    "controller_options": DICT,
    "engine_timeout": LIMIT,
    **dict.fromkeys(("engine_launcher_class", "controller_launcher_class"), LAUNCHER),
    **dict.fromkeys(("profile_dir", "cluster_file"), PATH),
    **dict.fromkeys(("profile", "cluster_id", "controller_ip", "controller_location", "controller_host"), TEXT),
    **dict.fromkeys(("database", "durability"), TEXT),
    **dict.fromkeys(("controller_args", "engine_args"), TEXTS),
    "retention": DICT,
    "config": CONFIG,
    **dict.fromkeys(("shutdown_atexit", "keep", "load_profile", "dashboard"), SWITCH),
}


def check_given(given: Mapping[str, Any]) -> None:
    """Raise ConfigError if an argument of a cluster is not what it may be."""
    check_arguments(given, KINDS)


def configured_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a configuration has for arguments of a cluster, and others.

    Raises
    ------
    ConfigError
        One is not what it may be.
    """
    found = {name: value for section in SECTIONS for name, value in config.get(section, {}).items()}
    check_arguments(found, KINDS, "c.Cluster.")
    return found


#: Configuration files of a profile.
NAMES = ("ipcluster_config.py", "ipcluster_config.json")


def cluster_settings(folder: Path) -> dict[str, dict[str, Any]]:
    """A profile's configuration: section → setting → value. {}: there is no configuration.

    Raises
    ------
    ConfigError
        A file cannot be read, or another user may have written it.
    """
    found = [path for name in NAMES if (path := folder / name).exists()]
    if not found:
        return {}
    from traitlets.config.loader import JSONFileConfigLoader, PyFileConfigLoader

    settings: dict[str, dict[str, Any]] = {}
    for path in found:
        if why := why_not_trusted(path):
            raise ConfigError(
                f"{path} is not read, because another user may have written it: {why}. Make it yours alone "
                "(chmod go-w), or do without it: load_profile=False"
            )
        loader: Any = PyFileConfigLoader if path.suffix == ".py" else JSONFileConfigLoader
        try:
            for section, values in loader(path.name, path=str(folder)).load_config().items():
                settings[section] = {**settings.get(section, {}), **values}
        except Exception as error:
            raise ConfigError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    return settings


def settled(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A configuration with plain values: `c.MPILauncher.mpi_args.extend([…])` begins with an empty list."""
    return {
        section: {name: _plain(value) for name, value in dict(values).items()} for section, values in config.items()
    }


def _plain(value: Any) -> Any:
    if type(value).__name__ != "LazyConfigValue":
        return str(value) if isinstance(value, str) else value  # traitlets has strings of its own for command lines
    return value.get_value({} if isinstance(value.to_dict().get("update"), dict) else [])
