"""Engines as ranks of MPI: `mpiexec` starts one nanny for each, with one engine."""

from __future__ import annotations

import shutil
from typing import Any, ClassVar

import msgspec

from ..errors import ConfigError
from ..printable import one_line
from .base import LaunchRequest, last_line
from .local import LocalEngines

#: Seconds that ranks have to leave in order.
LEAVE_SECONDS = 2.0


class MPIOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How mpiexec is called."""

    mpi_cmd: list[str] | str = "mpiexec"  #: the command, with words that come before `-n`
    mpi_args: list[str] | str = ""  #: more of its arguments: ["-hosts", "node1,node2", "-ppn", "8"]


class MPIEngines(LocalEngines):
    """One mpiexec, with all its ranks."""

    Options: ClassVar[type[msgspec.Struct]] = MPIOptions
    sections: ClassVar[tuple[str, ...]] = ("MPILauncher", "MPIEngineSetLauncher")
    restarts: ClassVar[bool] = False

    @staticmethod
    def _command_line(request: LaunchRequest, options: MPIOptions) -> list[str]:
        command = [*_words(options.mpi_cmd), *_words(options.mpi_args), "-n", str(request.n)]
        return [*command, *request.local_command(1), "--mpi"]

    def start(self) -> None:
        """Start it.

        Raises
        ------
        ConfigError
            There is no mpiexec here.
        """
        if shutil.which(self.args[0]) is None:
            raise ConfigError(
                f"there is no command {self.args[0]} here. Install an MPI (`pip install mpi4py mpich`), load its "
                "module, or name it with the option mpi_cmd"
            )
        super().start()

    def stop(self) -> None:
        """End the ranks. When the controller has stopped, they are leaving in order: mpiexec would cut that short."""
        self.join(LEAVE_SECONDS)
        super().stop()

    def explain(self) -> str:
        """How mpiexec has ended; "" while it runs. When one rank dies, it ends all others."""
        if self._process is None or self.running:
            return ""
        lines = [line for line in self.get_output().splitlines() if "MPI rank" in line]
        words = one_line(lines[0] if lines else last_line(self.get_output()) or "it printed nothing")
        return f"mpiexec ended with exit code {self.exit_code}, and all its ranks: {words} (log: {self.log_file})"

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "class": "mpi"}


def _words(given: list[str] | str) -> list[str]:
    return given.split() if isinstance(given, str) else given
