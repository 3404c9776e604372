"""IPython's magics for a view: `%px`, `%%px`, `%autopx`, `%pxresult`, `%pxconfig`. IPython is not imported here."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

from ..notebook import shell_here
from ..notebook.errors import show_in


class Activating(Protocol):
    """A client, as far as its magics are concerned."""

    def activate(self, targets: Any = "all", suffix: str = "") -> Any:
        """Bind the magics to engines."""


def bind_magics(view: Any, suffix: str = "") -> None:
    """Bind the magics, each with this suffix, to a view. Outside IPython this warns, and does nothing."""
    shell = shell_here()
    if shell is None:
        warnings.warn("this is no IPython, so there are no magics to activate", stacklevel=3)
        return
    from .parallel import ParallelMagics

    ParallelMagics(shell, view, suffix).register()


def bind_magics_once(client: Activating) -> None:
    """In IPython, bind the magics to all engines of a client, if they are not bound to a client that is open.

    From then on the shell shows errors of tasks as tasks' errors.
    """
    shell = shell_here()
    if shell is None:
        return
    show_in(shell)
    bound = getattr(shell.magics_manager.magics["line"].get("px"), "__self__", None)
    if bound is None or getattr(bound, "is_closed", False):
        client.activate()
