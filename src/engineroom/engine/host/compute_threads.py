"""How many threads the numerical libraries of an engine start: BLAS, OpenMP and the like.

Each of these libraries starts one thread per core of the machine. With one engine per core, that is far too many: the
threads of all engines compete. So an engine's libraries get an equal share of the cores. What the user has set in the
environment is respected.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Mapping

from ...cores import usable_cores

#: Libraries that read OMP_NUM_THREADS where their own variable is not set.
_FOLLOW_OPENMP = (
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
#: Libraries that know only their own variable. LOKY_MAX_CPU_COUNT counts the processes of joblib's `n_jobs=-1`.
_OWN = (
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)
VARIABLES = ("OMP_NUM_THREADS", *_FOLLOW_OPENMP, *_OWN)


def share_of_cores(engines: int) -> int:
    """Threads for each of so many engines on this host."""
    return max(1, usable_cores() // max(1, engines))


def variables(threads: int, environment: Mapping[str, str], *, override: bool) -> dict[str, str]:
    """The environment variables to set so that each library starts this many threads.

    Parameters
    ----------
    threads : int
        How many threads each library may start.
    environment : mapping
        The environment variables there are. A user who has set OMP_NUM_THREADS means all that follow it.
    override : bool
        Whether to set also what the user has set.
    """
    follows = not override and bool(environment.get("OMP_NUM_THREADS"))
    wanted = _OWN if follows else VARIABLES
    return {name: str(threads) for name in wanted if override or not environment.get(name)}


def limit(threads: int | None, engines: int) -> None:
    """Limit the libraries of this process and of its children. Call it before they are imported.

    Parameters
    ----------
    threads : int or None
        How many threads each library may start; 0: leave them alone; None: an equal share of the cores, unless the
        environment says otherwise.
    engines : int
        How many engines share the cores.
    """
    if threads == 0:
        return
    number = share_of_cores(engines) if threads is None else threads
    chosen = variables(number, os.environ, override=threads is not None)
    os.environ.update(chosen)
    # A library that is loaded already (a configuration file may import numpy) reads no environment any more.
    if "OPENBLAS_NUM_THREADS" in chosen and "numpy" in sys.modules:
        with contextlib.suppress(ImportError):
            importlib.import_module("threadpoolctl").threadpool_limits(number)
