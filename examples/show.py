"""Plain text for terminals: headings, aligned tables, numbers people can read."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence

_BOLD, _PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")


def heading(text: str) -> None:
    """A line of its own, underlined."""
    print(f"\n{_BOLD}{text}{_PLAIN}\n{'─' * len(text)}", flush=True)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns, numbers to the right; the last column is cut at the edge of the terminal."""
    rows = [list(row) for row in rows]
    texts = [list(head), *([number(cell) for cell in row] for row in rows)]
    widths = [max(len(text[column]) for text in texts) for column in range(len(head))]
    right = [any(isinstance(row[column], int | float) for row in rows) for column in range(len(head))]
    edge = shutil.get_terminal_size().columns
    for index, text in enumerate(texts):
        cells = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(text, widths, right, strict=True)
        ]
        print(clip("  " + "   ".join(cells).rstrip(), edge))
        if index == 0:
            print(clip("  " + "   ".join("╌" * width for width in widths), edge))


def number(value: object) -> str:
    """Thousands set apart; what is not a number as it is."""
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def seconds(value: float) -> str:
    """A span of time in its natural unit."""
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.0f} ms"
    return f"{value:.1f} s"


def count(value: int, noun: str) -> str:
    """`1 task`, `2,000 tasks`."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def path(text: str, width: int) -> str:
    """At most `width` characters of a path: its end is what matters."""
    return text if len(text) <= width else "…" + text[1 - width :]


def clip(text: str, width: int) -> str:
    """At most `width` characters, the first line only."""
    line = text.splitlines()[0] if text else ""
    return line if len(line) <= width else line[: width - 1] + "…"
