"""A controller on a host that ssh reaches: a process of ssh here, and the controller at its other end.

Both hosts share the profile's folder: the controller writes its connection files there. It ends with its ssh, however
that ends: its stdin is the connection.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import ConfigError
from .base import STOP_SECONDS
from .local import LocalProcess
from .ssh import SET_ENVIRONMENT, environment_there, is_word, set_variables


class SSHController(LocalProcess):
    """A controller on another host.

    Parameters
    ----------
    host : str
        A host, as ssh knows it: `name`, `user@name`.
    args : sequence of str
        The command of the controller there. It must stop when its stdin closes.
    log_file : Path
        What ssh and the controller print.
    environment : dict
        What is added to the environment there. It travels through stdin: on no command line.

    Raises
    ------
    ConfigError
        The host has no name that ssh takes.
    """

    def __init__(self, host: str, args: Sequence[str], log_file: Path, *, environment: Mapping[str, str]) -> None:
        if not is_word(host):
            raise ConfigError(f"{host!r} is no name of a host: it is the argument controller_host")
        super().__init__(command_line(host, args), log_file, lifeline=True)
        self._variables = environment_there(environment)

    def start(self) -> None:
        """Start it.

        Raises
        ------
        ConfigError
            There is no ssh here.
        """
        try:
            super().start()
        except FileNotFoundError:
            raise ConfigError("there is no command ssh on this host") from None
        self.write_stdin(set_variables(self._variables))

    def stop(self) -> None:
        """Have the controller stop, and ssh end with it."""
        self.close_stdin()
        self.join(STOP_SECONDS)
        super().stop()


def command_line(host: str, args: Sequence[str]) -> list[str]:
    """The command line of ssh."""
    words = shlex.join(["sh", "-c", SET_ENVIRONMENT, "sh", *args])
    return ["ssh", "-T", "-o", "BatchMode=yes", host, f"exec {words}"]
