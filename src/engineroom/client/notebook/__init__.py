"""What a client does for IPython and notebooks, besides magics. IPython is imported when something is to be shown."""

from __future__ import annotations

import sys
from typing import Any


def shell_here() -> Any:
    """The IPython shell of this process; None: there is none."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None or not hasattr(ipython, "get_ipython") else ipython.get_ipython()


def is_notebook() -> bool:
    """Whether what is displayed here is shown richly: in a notebook, not in a terminal."""
    shell = shell_here()
    return shell is not None and type(shell).__name__ != "TerminalInteractiveShell"


def show(data: dict[str, Any], metadata: Any = None) -> None:
    """Display a mime bundle."""
    from IPython.display import display

    display(data, raw=True, metadata=metadata or None)  # type: ignore[no-untyped-call]


def clear_cell(wait: bool) -> None:
    """Clear what the cell that runs has shown; with `wait`, once something new is shown."""
    from IPython.display import clear_output

    clear_output(wait=wait)  # type: ignore[no-untyped-call]
