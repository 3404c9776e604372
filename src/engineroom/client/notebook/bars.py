"""Progress bars: a widget in a notebook that has ipywidgets, HTML in one that has not, text in a terminal."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ... import markup
from ...errors import ConfigError
from . import is_notebook

#: Seconds between two pictures of a bar in HTML.
REDRAW_SECONDS = 0.2


class Bar(Protocol):
    """A bar that can be moved."""

    def move(self, done: int) -> None:
        """Show that so many are done."""


def is_quiet() -> bool:
    """Whether the environment says that no bars are to be shown."""
    return os.environ.get("IPP_NONINTERACTIVE", "0") not in ("0", "")


@contextmanager
def progress_bar(total: int, name: str, unit: str, widget: bool | None = None) -> Iterator[Bar]:
    """A bar that is shown in this context. `IPP_NONINTERACTIVE=1` in the environment: none is.

    Parameters
    ----------
    widget : bool, optional
        In a notebook: a widget, or HTML. Default: a widget if ipywidgets is installed.

    Raises
    ------
    ConfigError
        A widget is wanted, and ipywidgets is not installed.
    """
    has_widgets = importlib.util.find_spec("ipywidgets") is not None if widget or widget is None else False
    if widget and not has_widgets:
        raise ConfigError("widget=True needs ipywidgets: pip install ipywidgets")
    if is_quiet():
        yield _NoBar()
    elif is_notebook() and not has_widgets:
        bar = _HtmlBar(total, name, unit)
        try:
            yield bar
        finally:
            bar.close()
    else:
        with _tqdm(total, name, unit) as shown:
            yield _TextBar(shown)


class _NoBar:
    def move(self, done: int) -> None:
        """Nothing is shown."""


class _TextBar:
    """One of tqdm's: text, or a widget."""

    def __init__(self, shown: Any) -> None:
        self._shown = shown

    def move(self, done: int) -> None:
        self._shown.update(done - self._shown.n)


def _tqdm(total: int, name: str, unit: str) -> Any:
    if is_notebook():
        from tqdm.notebook import tqdm as widget

        return widget(total=total, desc=name, unit=unit)
    from tqdm.std import tqdm

    return tqdm(total=total, desc=name, unit=unit, file=sys.stdout, disable=None)


class _HtmlBar:
    """HTML that is displayed anew, in its place, while it moves."""

    def __init__(self, total: int, name: str, unit: str) -> None:
        from IPython.display import display

        self._total, self._name, self._unit, self._done = total, name, unit, 0
        self._begin = self._drawn = time.monotonic()
        self._handle: Any = display(self._picture(), raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def move(self, done: int) -> None:
        now = time.monotonic()
        if done != self._done and (now - self._drawn >= REDRAW_SECONDS or done == self._total):
            self._done, self._drawn = done, now
            self._draw()
        self._done = done

    def close(self) -> None:
        """Draw it a last time."""
        self._draw()

    def _draw(self) -> None:
        self._handle.update(self._picture(), raw=True)

    def _picture(self) -> dict[str, str]:
        seconds = int(time.monotonic() - self._begin)
        spent = f"{seconds // 60}:{seconds % 60:02d}"
        counts = f"{self._done:,} of {markup.plural(self._total, self._unit)}, {spent}"
        html = markup.block(self._name, " ", markup.bar(self._done, self._total), " ", markup.quiet(counts))
        return {"text/plain": f"{self._name}: {counts}", "text/html": html}
