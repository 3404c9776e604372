"""Clusters in JupyterLab: an extension of the Jupyter server.

`clusters` lists, starts, scales and stops clusters. `handlers` are the paths that the panel asks. `dashboards` passes a
cluster's dashboard through the Jupyter server. The panel itself is TypeScript, in the project's folder `labextension/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__: list[str] = []


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """What Jupyter server asks of a module with an extension."""
    return [{"module": "engineroom.lab"}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Called once by a Jupyter server that starts."""
    from .handlers import add_handlers  # imported late: it needs a Jupyter server

    add_handlers(app.web_app)
    if not _has_panel():
        app.log.info(
            "engineroom was installed without its panel for JupyterLab: there was no npm. To have the panel, install "
            "Node and npm, and then engineroom again; meanwhile, `ipcluster` starts and stops clusters."
        )


def _has_panel() -> bool:
    """Whether the compiled panel is in one of the folders where JupyterLab looks."""
    from jupyter_core.paths import jupyter_path

    return any(Path(folder, "engineroom", "package.json").exists() for folder in jupyter_path("labextensions"))
