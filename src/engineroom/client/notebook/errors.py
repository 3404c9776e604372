"""How IPython shows the errors of tasks that a cell raises: their tracebacks on the engines, not those in this package.

Without this, IPython leaves groups of errors to Python, which prints every frame of this package, and leaves the cell
without an error. In a notebook the tracebacks are closed; a click opens one.
"""

from __future__ import annotations

from typing import Any

from ...errors import CompositeError, RemoteError
from . import is_notebook
from . import show as show_bundle


def show_in(shell: Any) -> None:
    """Have a shell show errors of tasks so, beside the errors that somebody else has chosen to show in another way."""
    known, handler = shell.custom_exceptions, shell.CustomTB
    if RemoteError in known:
        return

    def show(shell: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: Any = None) -> Any:
        if not isinstance(error, RemoteError):
            return handler(kind, error, trace, tb_offset)
        lines = error.render_traceback()
        if is_notebook() and has_tracebacks(error):
            show_bundle({"text/plain": "\n".join(lines), "text/html": error._repr_html_()})
            lines = str(error).splitlines()
        shell._showtraceback(kind, error, lines)
        return lines

    shell.set_custom_exc((*known, RemoteError), show)


def has_tracebacks(error: RemoteError) -> bool:
    """Whether there is more to see than the text of the error."""
    if isinstance(error, CompositeError):
        return any(traceback for _, _, traceback, _ in error.elist)
    return bool(error.traceback)
