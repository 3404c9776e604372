"""How IPython shows the errors of tasks that a cell raises: their tracebacks on the engines, not those in this package.

Without this, IPython leaves groups of errors to Python, which prints every frame of this package, and leaves the cell
without an error. In a notebook the tracebacks are closed; a click opens one. Of an interrupted wait, too, the frames of
this package are left out.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

from ...errors import CompositeError, RemoteError
from . import is_notebook, show

_PACKAGE = str(Path(__file__).parents[2])


def show_in(shell: Any) -> None:
    """Have a shell show errors of tasks so, beside the errors that somebody else has chosen to show in another way."""
    known, handler = shell.custom_exceptions, shell.CustomTB
    if RemoteError in known:
        return

    def show_error(
        shell: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: Any = None
    ) -> Any:
        if isinstance(error, RemoteError):
            return _show_remote(shell, kind, error)
        if isinstance(error, known):
            return handler(kind, error, trace, tb_offset)
        shell.showtraceback((kind, error, _without_ours(trace)), running_compiled_code=True)
        return None

    shell.set_custom_exc((*known, RemoteError, KeyboardInterrupt), show_error)


def _show_remote(shell: Any, kind: type[BaseException], error: RemoteError) -> list[str]:
    lines = error.render_traceback()
    if is_notebook() and has_tracebacks(error):
        show({"text/plain": "\n".join(lines), "text/html": error._repr_html_()})
        lines = str(error).splitlines()
    shell._showtraceback(kind, error, lines)
    return lines


def has_tracebacks(error: RemoteError) -> bool:
    """Whether there is more to see than the text of the error."""
    if isinstance(error, CompositeError):
        return any(traceback for _, _, traceback, _ in error.elist)
    return bool(error.traceback)


def _without_ours(trace: types.TracebackType | None) -> types.TracebackType | None:
    """A traceback up to the first frame in this package."""
    frames = []
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        frames.append(trace)
        trace = trace.tb_next
    cut: types.TracebackType | None = None
    for frame in reversed(frames):
        cut = types.TracebackType(cut, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return cut
