"""Engines as ranks of MPI: `mpiexec` starts one nanny for each, with one engine."""

from __future__ import annotations

import shutil
import threading
from typing import Any, ClassVar

import msgspec

from ..errors import ConfigError
from ..printable import one_line
from .base import LaunchRequest, last_line, words_of
from .local import LocalEngines

#: Seconds that ranks have to leave in order.
LEAVE_SECONDS = 2.0
#: Seconds between two looks at whether a rank has died.
LOOK_SECONDS = 0.5
#: What the log says of a rank that has died, as `engine.host.nanny` writes it.
DEAD_RANK = "MPI rank "
#: How lines begin in which mpiexec (that of MPICH) and its helpers tell where in their own code they are.
OWN_LINES = ("[mpiexec@", "[proxy:", "=", "--")
#: What ssh says when it does not reach a host.
SSH_FAILED = ("Permission denied (", "Host key verification", "Could not resolve", "Connection refused", "No route")


class MPIOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How mpiexec is called."""

    mpi_cmd: list[str] | str = "mpiexec"  #: the command, with words that come before `-n`
    mpi_args: list[str] | str = ""  #: more of its arguments: ["-hosts", "node1,node2", "-ppn", "8"]


class MPIEngines(LocalEngines):
    """One mpiexec, with all its ranks."""

    Options: ClassVar[type[msgspec.Struct]] = MPIOptions
    sections: ClassVar[tuple[str, ...]] = ("MPILauncher", "MPIEngineSetLauncher")
    restarts: ClassVar[bool] = False
    passes_stdin: ClassVar[bool] = False

    @staticmethod
    def _command_line(request: LaunchRequest, options: MPIOptions) -> list[str]:
        command = [*words_of(options.mpi_cmd), *words_of(options.mpi_args), "-n", str(request.n)]
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
        begin = self.log_file.stat().st_size if self.log_file.exists() else 0
        super().start()
        threading.Thread(target=self._end_with_a_rank, args=(begin,), name="mpi", daemon=True).start()

    def _end_with_a_rank(self, begin: int) -> None:
        """When a rank has died, see that all end. Across hosts the mpiexec of MPICH sometimes waits for ever."""
        end = b""  # of what was read before: words may be cut
        with self.log_file.open("rb") as log:
            log.seek(begin)
            while not self.join(LOOK_SECONDS):
                text = end + log.read()
                if DEAD_RANK.encode() in text:
                    self.stop()
                    return
                end = text[-len(DEAD_RANK) :]

    def stop(self) -> None:
        """End the ranks. When the controller has stopped, they are leaving in order: mpiexec would cut that short."""
        self.join(LEAVE_SECONDS)
        super().stop()

    def explain(self) -> str:
        """How mpiexec has ended; "" while it runs. When one rank dies, it ends all others."""
        if self._process is None or self.running:
            return ""
        words = one_line(_cause(self.get_output()) or "it printed nothing")
        return f"mpiexec ended with exit code {self.exit_code}, and all its ranks: {words} (log: {self.log_file})"

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "class": "mpi"}


def _cause(output: str) -> str:
    """The line that says why mpiexec has ended: of a rank that died, of an engine that could not go on, of ssh."""
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith(OWN_LINES)]
    told = [line for line in lines if DEAD_RANK in line] or [line for line in lines if line.startswith("ipengine:")]
    told = told or [line for line in lines if any(words in line for words in SSH_FAILED)]
    return next(iter(told + lines[-1:]), last_line(output))
