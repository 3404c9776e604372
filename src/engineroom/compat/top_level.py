"""Functions that ipyparallel has at its top level, and that are nothing but a way into another module."""

from __future__ import annotations

from typing import Any

from ..lab import _jupyter_server_extension_points, _load_jupyter_server_extension


def register_joblib_backend(name: str = "ipyparallel", make_default: bool = False) -> None:
    """Make `joblib.parallel_backend(name)` run joblib's calls on the cluster that runs then.

    Raises
    ------
    ImportError
        joblib is not installed.
    """
    from .joblib import register

    register(name, make_default)


def bind_kernel(**options: Any) -> str:
    """In a task, on an engine: open the engine to Jupyter front ends. Called again, it does nothing.

    Cells of the front end run as direct tasks of this engine, in its namespace, between its other tasks.

    Parameters
    ----------
    options
        Of ipykernel's `IPKernelApp`: `connection_file`, `ip`, `shell_port` …

    Returns
    -------
    str
        The path of the kernel's connection file, on the engine's host: `jupyter console --existing FILE`.

    Raises
    ------
    RuntimeError
        This process is no engine, or runs no task.
    ImportError
        ipykernel is not installed there.
    """
    from ..on_engine import task_context

    connection = task_context.connection
    if connection is None or task_context.current_task() is None:
        raise RuntimeError("bind_kernel is for engines: rc[0].apply_sync(er.bind_kernel), or %px er.bind_kernel()")
    try:
        from .bind_kernel import bind
    except ImportError as error:
        raise ImportError(f"bind_kernel needs ipykernel on the engine: pip install ipykernel ({error})") from None
    return bind(connection, **options)


#: the name that old versions of the Jupyter server ask for
_jupyter_server_extension_paths = _jupyter_server_extension_points


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """The panel for JupyterLab: its compiled files, in a folder of the project, and its name there."""
    return [{"src": "../../labextension/out", "dest": "engineroom"}]


def _jupyter_nbextension_paths() -> list[dict[str, str]]:
    """Nothing: the classic notebook's extensions have no place in Notebook 7, which has the panel of JupyterLab."""
    return []


#: the name that was asked for before it had an underscore
load_jupyter_server_extension = _load_jupyter_server_extension
