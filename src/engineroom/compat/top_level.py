"""Functions that ipyparallel has at its top level, and that are nothing but a way into another module."""

from __future__ import annotations


def register_joblib_backend(name: str = "ipyparallel", make_default: bool = False) -> None:
    """Make `joblib.parallel_backend(name)` run joblib's calls on the cluster that runs then.

    Raises
    ------
    ImportError
        joblib is not installed.
    """
    from .joblib import register

    register(name, make_default)
