"""Which launcher starts the engines of a cluster, and with which options. Nothing is started here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ConfigError
from ..launchers import EngineLauncher, LaunchRequest
from ..launchers.common import separated
from ..launchers.registry import configured_options, launcher_class, read_options
from ..launchers.ssh import is_word


class ChosenLauncher:
    """A launcher by name, with its options.

    Parameters
    ----------
    name : str or class
        The name of a launcher, or a class with the methods of one.
    given : dict
        Options that the user gave: they win.
    config : mapping
        A configuration: the launcher's own sections hold options, and `launcher_options` of "Cluster".
    others : iterable of str
        What else the user may have meant by an unknown name: the arguments of `Cluster`.

    Raises
    ------
    ConfigError
        There is no such launcher, or no such option, or a value cannot be used.
    """

    def __init__(
        self, name: object, given: Mapping[str, Any], config: Mapping[str, Any], others: Iterable[str] = ()
    ) -> None:
        self._kind = launcher_class(name)
        #: as it was given: a class, or a name
        self.name = name if isinstance(name, type) else str(name)
        self._config, self._given, self._others = config, given, others
        configured = dict(config.get("Cluster", {})).get("launcher_options") or {}
        found = {**configured_options(name, config), **configured, **given}
        self._common, own = separated(found, self._kind.Options.__struct_fields__)
        self.options = read_options(name, own, others)

    def instead(self, name: object) -> ChosenLauncher:
        """Another launcher, with the same options and configuration."""
        return ChosenLauncher(name, self._given, self._config, self._others)

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
        return self._kind(self._common.applied(request), self.options)


def chosen_controller(name: object, host: str, config: Mapping[str, Any], keep: bool) -> tuple[str, str]:
    """Where a controller is started: the launcher, "local" or "ssh", and the host that ssh reaches, or "".

    `name` may be a class of ipyparallel's, or its name: SSHControllerLauncher. Its section of a configuration file
    names the host, as `hostname` and `user`, or as `location`.

    Raises
    ------
    ConfigError
        A controller cannot be started so.
    """
    given = name.__name__ if isinstance(name, type) else str(name)
    kind = given.rpartition(".")[2].lower().removesuffix("launcher").removesuffix("controller")
    if kind not in ("local", "ssh"):
        raise ConfigError(
            f"controller={given!r}: the launchers there are: local, ssh. Under MPI or a batch system, start the whole "
            "cluster inside a job, or the controller on the login node (controller='local')"
        )
    if kind == "ssh" and not host:
        section = {**config.get("SSHLauncher", {}), **config.get("SSHControllerLauncher", {})}
        user = section.get("user", "")
        named = section.get("hostname", "")
        host = section.get("location") or (f"{user}@{named}" if user and named else named)
    if (kind == "ssh") != bool(host):
        raise ConfigError("a controller on another host needs both: controller='ssh', and its controller_host=")
    if host and not is_word(host):
        raise ConfigError(f"{host!r} is no name of a host: it is the argument controller_host")
    if host and keep:
        raise ConfigError("keep=True is for a controller on this host: one that ssh starts ends with its ssh")
    return kind, host
