"""SVG text: shapes, colours, scales. `Picture` is what a notebook shows and what is saved as a file.

Text and lines have the colour of the text around the picture (`currentColor`), so that a picture fits light and dark
notebooks. Names may come from anybody: everything that is drawn as text is escaped.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ... import markup
from ...errors import ConfigError

#: Width of every picture. A notebook scales it to its own width.
WIDTH = 860.0
#: Colours of names, the most frequent name first. Each can be seen on white and on black.
COLOURS = ("#3b82c4", "#d9822b", "#3f9d63", "#8a6fc0", "#2f9aa6", "#b8962e", "#c46bb0", "#9a7358")
#: The colour of all other names, and of tasks without a name.
OTHERS = "#7f8896"
FAILED = "#e0352b"

#: Characters of a name that are drawn.
MOST_IN_NAME = 40
#: Width of a character of size 1.
_CHARACTER = 0.58
#: A saved file has a background; a picture in a notebook has none.
_STYLE = (
    "<style>svg{color:#1b2230;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#e4e9f1;background:#12161d}}</style>"
)


class Picture:
    """A picture of tasks. A notebook shows it by itself; `save` writes a file."""

    def svg(self) -> str:
        """The picture as SVG text, on a transparent background."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to a file, on a light background (a dark one where the viewer prefers that).

        Parameters
        ----------
        path : str or path
            Its ending is .svg. A file of that name is replaced.

        Raises
        ------
        ConfigError
            The file has another ending.
        """
        target = Path(path)
        if target.suffix.lower() != ".svg":
            raise ConfigError(f"pictures are SVG files: name it ….svg, not {str(path)!r}")
        head, end, body = self.svg().partition(">")
        target.write_text(f"{head}{end}{_STYLE}{body}\n", encoding="utf-8")
        return target

    def _repr_html_(self) -> str:
        return f"<div>{self.svg()}</div>"


class Canvas:
    """Gathers shapes. Lengths are in units of the picture; y grows downwards."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def text(
        self, x: float, y: float, text: Any, *, size: float = 12, anchor: str = "start", weight: str = "",
        opacity: float = 1, most: int = MOST_IN_NAME * 4, fill: str = "",
    ) -> None:  # fmt: skip
        """One line of text; y is its base line. `anchor`: "start", "middle" or "end" is at x."""
        more = f' text-anchor="{anchor}"' if anchor != "start" else ""
        more += f' font-weight="{weight}"' if weight else ""
        more += f' opacity="{opacity:g}"' if opacity < 1 else ""
        more += f' fill="{fill}"' if fill else ""
        shown = markup.text(" ".join(str(text).split()), most)
        self._parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}"{more}>{shown}</text>')

    def rectangle(
        self, x: float, y: float, width: float, height: float, fill: str, *, title: str = "", opacity: float = 1,
        round: float = 0,
    ) -> None:  # fmt: skip
        """A rectangle. `title`: what a browser shows when the pointer rests on it."""
        more = f' opacity="{opacity:g}"' if opacity < 1 else ""
        more += f' rx="{round:g}"' if round else ""
        shape = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"{more}'
        end = f"><title>{markup.text(title, 400)}</title></rect>" if title else "/>"
        self._parts.append(shape + end)

    def rectangles(self, boxes: Iterable[tuple[float, float, float, float]], fill: str, opacity: float = 1) -> None:
        """Many rectangles (x, y, width, height) of one colour as one short shape."""
        data = "".join(f"M{_short(x)} {_short(y)}h{_short(w)}v{_short(h)}h{_short(-w)}z" for x, y, w, h in boxes)
        if data:
            more = f' opacity="{opacity:g}"' if opacity < 1 else ""
            self._parts.append(f'<path d="{data}" fill="{fill}"{more}/>')

    def line(self, x1: float, y1: float, x2: float, y2: float, opacity: float = 0.18) -> None:
        """A thin line in the colour of the text."""
        self._parts.append(
            f'<path d="M{_short(x1)} {_short(y1)}L{_short(x2)} {_short(y2)}" stroke="currentColor" '
            f'opacity="{opacity:g}" fill="none"/>'
        )

    def curve(self, data: str, stroke: str, *, width: float = 1, opacity: float = 1, title: str = "") -> None:
        """A path that is not filled; `data` as in SVG."""
        shape = f'<path d="{data}" stroke="{stroke}" stroke-width="{width:.1f}" opacity="{opacity:g}" fill="none"'
        self._parts.append(shape + (f"><title>{markup.text(title, 400)}</title></path>" if title else "/>"))

    def circles(self, centres: Iterable[tuple[float, float]], radius: float, fill: str) -> None:
        """Dots of one colour."""
        r = _short(radius)
        d = _short(2 * radius)
        data = "".join(
            f"M{_short(x - radius)} {_short(y)}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0" for x, y in centres
        )
        if data:
            self._parts.append(f'<path d="{data}" fill="{fill}"/>')

    def legend(self, y: float, names: Sequence[tuple[str, str]], left: float = 0) -> float:
        """(colour, name) pairs in lines that fit the width; returns the y below them."""
        x = left
        for colour, name in names:
            shown = name if len(name) <= MOST_IN_NAME else name[: MOST_IN_NAME - 1] + "…"
            width = 16 + width_of(shown, 11.5) + 16
            if x > left and x + width > WIDTH:
                x, y = left, y + 18
            self.rectangle(x, y, 10, 10, colour, round=2)
            self.text(x + 15, y + 9.5, shown, size=11.5)
            x += width
        return y + 20 if names else y

    def finished(self, height: float, about: str) -> str:
        """The picture. `about` is what a screen reader says."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:.0f}" width="{WIDTH:g}" '
            f'height="{height:.0f}" role="img" aria-label="{markup.text(about, 400)}" fill="currentColor" '
            f'font-family="system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, DejaVu Sans, sans-serif" '
            f'style="max-width:100%;height:auto">{"".join(self._parts)}</svg>'
        )


def width_of(text: str, size: float) -> float:
    """About how wide a text is; characters outside of Latin-1 count double."""
    return sum(_CHARACTER if ord(c) < 0x250 else 2 * _CHARACTER for c in text) * size


def step_of(length: float, most: int) -> float:
    """The smallest of 1, 2, 5, 10, 20 … (and 0.5, 0.2 …) that divides a length into at most so many steps."""
    if length <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(length / most))
    return next(factor * power for factor in (1, 2, 5, 10, 20) if length / (factor * power) <= most + 1e-9)


def duration(seconds: float) -> str:
    """ "85 µs", "3.2 ms", "1.5 s", "2 min 5 s", "3 h 20 min"."""
    if seconds < 1:
        unit, name = (1e-3, "ms") if seconds >= 1e-3 else (1e-6, "µs")
        return f"{seconds / unit:.3g} {name}"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    first, second, names = (whole // 60, whole % 60, ("min", "s"))
    if whole >= 3600:
        first, second, names = (whole // 3600, whole % 3600 // 60, ("h", "min"))
    if whole >= 2 * 86400:
        first, second, names = (whole // 86400, whole % 86400 // 3600, ("days", "h"))
    return f"{first} {names[0]} {second} {names[1]}" if second else f"{first} {names[0]}"


def number(value: float) -> str:
    """ "0", "12", "3.5", "12,000"."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _short(value: float) -> str:
    """A length with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")
