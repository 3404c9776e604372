"""A profile's configuration of its clusters: `ipcluster_config.py`, and `.json`, which wins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..private import why_not_trusted

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
