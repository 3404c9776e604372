"""IPython's magics for a view: `%px`, `%%px`, `%autopx`, `%pxresult`, `%pxconfig`. IPython is not imported here."""

from __future__ import annotations

import sys
import warnings
from typing import Any, Protocol


class Activating(Protocol):
    """A client, as far as its magics are concerned."""

    def activate(self, targets: Any = "all", suffix: str = "") -> Any:
        """Bind the magics to engines."""


def shell_here() -> Any:
    """The IPython shell of this process; None: there is none."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None or not hasattr(ipython, "get_ipython") else ipython.get_ipython()


def bind_magics(view: Any, suffix: str = "") -> None:
    """Bind the magics, each with this suffix, to a view. Outside IPython this warns, and does nothing."""
    shell = shell_here()
    if shell is None:
        warnings.warn("this is no IPython, so there are no magics to activate", stacklevel=3)
        return
    from .parallel import ParallelMagics

    ParallelMagics(shell, view, suffix).register()


def bind_magics_once(client: Activating) -> None:
    """In IPython, bind the magics to all engines of a client, if they are not bound to a client that is open."""
    shell = shell_here()
    if shell is None:
        return
    bound = getattr(shell.magics_manager.magics["line"].get("px"), "__self__", None)
    if bound is None or getattr(bound, "is_closed", False):
        client.activate()
