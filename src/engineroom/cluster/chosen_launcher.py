"""Which launcher starts the engines of a cluster, and with which options. Nothing is started here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from ..errors import ConfigError
from ..launchers import EngineLauncher, LaunchRequest
from ..launchers.common import separated
from ..launchers.registry import configured_options, launcher_class, read_options

#: What other libraries call the number of engines.
NUMBER_OF_ENGINES = frozenset(("workers", "n_workers", "max_workers", "num_workers", "n_jobs", "processes"))


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
        for word in NUMBER_OF_ENGINES.intersection(given).difference(self._kind.Options.__struct_fields__):
            raise ConfigError(f"Cluster has no argument {word!r}: the number of engines is n={given[word]!r}")
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

    def options_of_jobs(self, kind: type[EngineLauncher], without: Collection[str]) -> dict[str, Any]:
        """The options that were given to the jobs of the engines, but for some; {} if another launcher starts them."""
        if not issubclass(self._kind, kind):
            return {}
        given = {field.name: getattr(self.options, field.name) for field in msgspec.structs.fields(kind.Options)}
        defaults = msgspec.structs.asdict(kind.Options())
        return {name: value for name, value in given.items() if name not in without and value != defaults[name]}
