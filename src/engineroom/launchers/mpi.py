"""Engines as ranks of MPI: `mpiexec` starts one nanny for each, with one engine."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from ..errors import ConfigError
from ..printable import one_line
from .base import Launcher, LaunchRequest, last_line, spelled
from .found import FoundProcess
from .local import LocalProcess

#: Seconds that ranks have to leave in order.
LEAVE_SECONDS = 2.0


class MPIOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How mpiexec is called."""

    mpi_cmd: list[str] | str = "mpiexec"  #: the command, with words that come before `-n`
    mpi_args: list[str] | str = ""  #: more of its arguments: ["-hosts", "node1,node2", "-ppn", "8"]


class MPIEngines(LocalProcess):
    """One mpiexec, with all its ranks."""

    Options: ClassVar[type[msgspec.Struct]] = MPIOptions
    sections: ClassVar[tuple[str, ...]] = ("MPILauncher", "MPIEngineSetLauncher")
    former_names: ClassVar[Mapping[str, str]] = {}
    reaches_hosts: ClassVar[bool] = False
    restarts: ClassVar[bool] = False
    needs_connection_file: ClassVar[bool] = False

    def __init__(self, request: LaunchRequest, options: MPIOptions) -> None:
        self._n = request.n
        command = [*_words(options.mpi_cmd), *_words(options.mpi_args), "-n", str(request.n)]
        args = [*command, *request.local_command(1), "--mpi"]
        self._shown = spelled(args, request.environment)
        self._command = command[0]
        super().__init__(args, request.log_file, environment=request.environment)

    def start(self) -> None:
        """Start it.

        Raises
        ------
        ConfigError
            There is no mpiexec here.
        """
        if shutil.which(self._command) is None:
            raise ConfigError(
                f"there is no command {self._command} here. Install an MPI (`pip install mpi4py mpich`), load its "
                "module, or name it with the option mpi_cmd"
            )
        super().start()

    @classmethod
    def default_n(cls, options: MPIOptions) -> int | None:
        """None: as many as this host has cores."""
        return None

    @property
    def expected(self) -> int:
        return self._n if self.running else 0

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

    def preview(self) -> str:
        """The command line."""
        return self._shown + "\n"

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "class": "mpi"}

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Launcher:
        """The mpiexec that another process started."""
        count = int(described.get("n", 0))
        return FoundProcess(described["pid"], "engineroom.engine", Path(described["log_file"]), count)


def _words(given: list[str] | str) -> list[str]:
    return given.split() if isinstance(given, str) else given
