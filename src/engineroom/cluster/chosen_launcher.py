"""Which launcher starts the engines of a cluster, and with which options. Nothing is started here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..launchers import EngineLauncher, LaunchRequest
from ..launchers.registry import configured_options, launcher_class, read_options
from ..launchers.ssh import is_word


class ChosenLauncher:
    """A launcher by name, with its options.

    Parameters
    ----------
    name : str
        The name of a launcher.
    given : dict
        Options that the user gave: they win.
    config : mapping
        A configuration: the launcher's own sections hold options, and `launcher_options` of "Cluster".

    Raises
    ------
    ConfigError
        There is no such launcher, or no such option, or a value cannot be used.
    """

    def __init__(self, name: object, given: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self._kind = launcher_class(name)
        self.name = str(name)
        configured = dict(config.get("Cluster", {})).get("launcher_options") or {}
        self.given = {**configured_options(self.name, config), **configured, **given}
        self.options = read_options(self.name, self.given)

    @property
    def reaches_hosts(self) -> bool:
        """Whether its engines may run on other hosts."""
        return self._kind.reaches_hosts

    @property
    def restarts(self) -> bool:
        """Whether a set that was killed is started again."""
        return self._kind.restarts

    @property
    def needs_connection_file(self) -> bool:
        """Whether the controller must be ready before engines are started."""
        return self._kind.needs_connection_file

    @property
    def default_n(self) -> int | None:
        """How many engines there are if nobody says so; None: as many as this host has cores."""
        return self._kind.default_n(self.options)

    def make(self, request: LaunchRequest) -> EngineLauncher:
        """The launcher of a set of engines. Raises ConfigError if the options cannot be used."""
        return self._kind(request, self.options)


def check_controller(name: object, host: str, keep: bool) -> None:
    """Raises ConfigError if a controller cannot be started so: by the launcher `name`, on a host or on this one."""
    kind = name.lower() if isinstance(name, str) else ""
    if kind not in ("local", "ssh"):
        raise ConfigError(f"controller={name!r}: the launchers there are: local, ssh")
    if (kind == "ssh") != bool(host):
        raise ConfigError("a controller on another host needs both: controller='ssh', and its controller_host=")
    if host and not is_word(host):
        raise ConfigError(f"{host!r} is no name of a host: it is the argument controller_host")
    if host and keep:
        raise ConfigError("keep=True is for a controller on this host: one that ssh starts ends with its ssh")
