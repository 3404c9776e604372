"""What ipyparallel has in `joblib`: a joblib backend that finds its cluster by itself. Importing this needs joblib."""

from __future__ import annotations

from typing import Any

from joblib.parallel import register_parallel_backend

from ..client.client import Client
from ..client.interop.joblib_backend import ViewBackend
from ..config import check_switches


class IPythonParallelBackend(ViewBackend):
    """joblib's calls on a cluster.

    Parameters
    ----------
    view : LoadBalancedView, optional
        Default: one of a new client, of the cluster that runs (see `Client`).
    """

    def __init__(self, view: Any = None, **kwargs: Any) -> None:
        super().__init__(Client().load_balanced_view() if view is None else view, **kwargs)


def register(name: str = "ipyparallel", make_default: bool = False) -> None:
    """Make `joblib.parallel_backend(name)`, and "engineroom", run calls on the cluster that runs then."""
    check_switches(make_default=make_default)
    register_parallel_backend("engineroom", IPythonParallelBackend)
    register_parallel_backend(name, IPythonParallelBackend, make_default=make_default)
