"""An engine as a rank of MPI: it joins `MPI.COMM_WORLD` when it starts, and leaves it when it ends in order.

The environment of the nanny, which `mpiexec` has started, says which rank this is. mpi4py is imported here alone, in
the engine's own process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from ...errors import ConfigError

#: Variables in which implementations of MPI, and Slurm, have the rank.
RANKS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")


def rank_of(environment: Mapping[str, str]) -> int:
    """The rank that the environment names.

    Raises
    ------
    ConfigError
        It names none: this process was not started by mpiexec.
    """
    for name in RANKS:
        if environment.get(name, "").isdecimal():
            return int(environment[name])
    raise ConfigError(
        "--mpi: this process is no rank of MPI. Start it with mpiexec: `mpiexec -n 4 ipengine --mpi`, or "
        "`ipcluster start --engines=mpi`"
    )


def join() -> dict[str, int]:
    """Initialize MPI; returns what users may ask of the engine's properties: "mpi_rank" and "mpi_size".

    Raises
    ------
    ConfigError
        mpi4py cannot be imported here.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ConfigError(f"--mpi: mpi4py cannot be used here: {error}") from None
    world = MPI.COMM_WORLD
    return {"mpi_rank": world.Get_rank(), "mpi_size": world.Get_size()}


def leave() -> None:
    """Finalize MPI. Without that, mpiexec takes the end of this process for a failure."""
    from mpi4py import MPI

    with contextlib.suppress(Exception):
        if MPI.Is_initialized() and not MPI.Is_finalized():
            MPI.Finalize()
