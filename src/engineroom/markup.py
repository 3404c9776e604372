"""HTML for notebooks: text that is escaped, tables, and parts that open at a click. No scripts, no colours of its own.

What is shown may come from anybody: the text of an error, a label, the name of a host. So every function here takes
plain text and escapes it; only what they return, which is `Html`, is put into other HTML as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from .printable import printable

#: Characters of one text that are shown.
MOST = 20_000
#: Characters of one cell of a table.
MOST_IN_CELL = 200
#: Colours that a program gave to text for a terminal.
_COLOURS = re.compile(r"\x1b\[[0-9;:]*[A-Za-z]")

#: Characters that mean something in HTML.
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})

_QUIET = "opacity:0.65"
_CELL = "text-align:left;vertical-align:top;white-space:pre-wrap"


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: Any, most: int = MOST) -> Html:
    """Any value as text, escaped; what is too long is cut."""
    if isinstance(value, Html):
        return value
    plain = value if isinstance(value, str) else str(value)
    cut = plain if len(plain) <= most else plain[:most] + " …"
    return Html(printable(_COLOURS.sub("", cut)).translate(_ESCAPES))


def join(*parts: Any) -> Html:
    """Parts one behind the other."""
    return Html("".join(map(text, parts)))


def bold(value: Any) -> Html:
    """Text that catches the eye."""
    return Html(f"<b>{text(value)}</b>")


def quiet(value: Any) -> Html:
    """Text that matters less."""
    return Html(f'<span style="{_QUIET}">{text(value)}</span>')


def code(value: Any) -> Html:
    """An id, or another piece of code."""
    return Html(f"<code>{text(value)}</code>")


def pre(value: Any) -> Html:
    """Lines as they are."""
    return Html(f'<pre style="margin:0.3em 0 0.6em 1.2em">{text(value)}</pre>')


def block(*parts: Any) -> Html:
    """Parts in a block of their own."""
    return Html(f"<div>{join(*parts)}</div>")


def details(summary: Any, *parts: Any, is_open: bool = False) -> Html:
    """A line; what belongs to it is seen after a click."""
    return Html(f"<details{' open' if is_open else ''}><summary>{text(summary)}</summary>{join(*parts)}</details>")


def bar(done: int, total: int) -> Html:
    """How much is done."""
    return Html(f'<progress value="{done}" max="{max(total, 1)}" style="width:14em;vertical-align:middle"></progress>')


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Html:
    """A table; `head` may be empty."""

    def line(tag: str, cells: Sequence[Any]) -> str:
        return "".join(f'<{tag} style="{_CELL}">{text(cell, MOST_IN_CELL)}</{tag}>' for cell in cells)

    top = f"<thead><tr>{line('th', head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{line('td', cells)}</tr>" for cells in rows)
    return Html(f'<table style="margin-left:0">{top}<tbody>{body}</tbody></table>')


def facts(rows: Iterable[tuple[str, Any]]) -> Html:
    """Names and values, one pair a line; values of None are left out."""
    return table((), [(quiet(name), value) for name, value in rows if value is not None])


def plural(number: int, noun: str) -> str:
    """ "1 task", "2 tasks"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
