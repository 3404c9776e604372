"""Settings that all launchers of engines take alike, by the names that configuration files for ipyparallel have.

They change what is started (`LaunchRequest`), and not how: so no launcher knows of them. Names that no longer matter
are accepted, with a word in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import ConfigError
from .base import LaunchRequest, words_of

log = logging.getLogger(__name__)

#: Sections of a configuration file that hold settings of every launcher. The launcher's own sections win.
SECTIONS = ("BaseLauncher", "EngineLauncher")
#: The words of a nanny's command that `engine_cmd` replaces: Python, -P, -m and the module.
PROGRAM_WORDS = 4

#: Settings without effect → what does their work now.
WITHOUT_EFFECT = {
    **dict.fromkeys(
        ("delay", "poll_seconds", "connection_info_timeout"), "engines are started at once, and numbered in order"
    ),
    **dict.fromkeys(("stop_timeout", "stop_seconds_until_kill"), "a process has 8 seconds to end before it is killed"),
    "output_limit": "errors quote the end of a log",
    "output_file": "the logs are in the folder log/ of the profile",
    "batch_file_name": "the script is kept beside the log of its engines",
    "job_id_regexp_group": "job_id_regexp finds the id with its first group, or as a whole",
    "ipcluster_cmd": "ssh starts the engines of each host itself",
    "ipcluster_args": "ssh starts the engines of each host itself",
    **dict.fromkeys(
        [f"{part}_{kind}" for part in ("job_array", "queue", "output", "account", "qos", "timelimit")
         for kind in ("template", "regexp")],
        "a template has {queue} and the like where they belong",
    ),
}  # fmt: skip


class CommonSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is started."""

    engine_args: list[str] | str = []  #: more arguments of `ipengine`
    engine_cmd: list[str] | str = []  #: instead of `python -m engineroom.engine`: ["apptainer", "exec", …, "ipengine"]
    environment: dict[str, str] = {}  #: what is added to the environment of the engines

    def applied(self, request: LaunchRequest) -> LaunchRequest:
        """What is to be started, with these settings."""
        command = request.command
        if self.engine_cmd:
            own = [word.replace("ipyparallel.engine", "engineroom.engine") for word in words_of(self.engine_cmd)]
            command = [*own, *command[PROGRAM_WORDS:]]
        return msgspec.structs.replace(
            request,
            command=[*command, *words_of(self.engine_args)],
            environment={**request.environment, **self.environment},
        )


def separated(given: Mapping[str, Any], own: tuple[str, ...]) -> tuple[CommonSettings, dict[str, Any]]:
    """The settings that all launchers take, and the options that are left for the launcher, which has `own` options.

    Raises
    ------
    ConfigError
        A value has the wrong type.
    """
    common = {name: given[name] for name in CommonSettings.__struct_fields__ if name in given and name not in own}
    left = {name: value for name, value in given.items() if name not in common}
    for name in [name for name in left if name in WITHOUT_EFFECT and name not in own]:
        del left[name]
        log.warning("the setting %s of launchers has no effect: %s", name, WITHOUT_EFFECT[name])
    try:
        return msgspec.convert(common, CommonSettings), left
    except msgspec.ValidationError as error:
        raise ConfigError(f"a setting of the launchers cannot be used: {error}") from None
