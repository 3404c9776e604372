"""Clusters: a controller and its engines, started, found and stopped together.

`cluster` is the class that users meet. `processes/` starts its processes, and starts those again that were killed;
`commands` says with which command lines. `cluster_files` reads the files of clusters, `found_cluster` says what of a
cluster runs, and `manager` keeps several by name.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Cluster", "ClusterManager", "clean_cluster_files"]


def __getattr__(name: str) -> Any:
    """Imported when they are first asked for: the tools that import a module of this folder need no client."""
    from importlib import import_module

    if name in ("cluster", "launcher"):
        return import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'cluster' if name == 'Cluster' else 'manager'}"), name)
