"""Text for people: tables that fit the terminal, durations, times, colours."""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import repeat
from typing import Any, TextIO

#: Columns are not made narrower than this.
NARROWEST = 6
#: The width without a terminal: nothing is cut, as a script may look for it.
WIDE = 1000

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal that understands ANSI codes."""
    return stream.isatty() and os.environ.get("TERM", "") != "dumb"


def paint(text: str, *styles: str, stream: TextIO | None = None) -> str:
    """The text in colour, if the stream (default: stdout) is a terminal and $NO_COLOR is not set."""
    if not styles or os.environ.get("NO_COLOR") or not is_terminal(stream or sys.stdout):
        return text
    return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def width_of_terminal() -> int:
    """Columns of the terminal, or very many without one."""
    if os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty():
        return max(20, shutil.get_terminal_size().columns)
    return WIDE


def wide(text: str) -> int:
    """How many columns a terminal needs for it."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """The text in at most `width` columns."""
    if wide(text) <= width:
        return text
    kept = ""
    for character in text:
        if wide(kept + character) > width - 1:
            break
        kept += character
    return kept + "…"


def pad(text: str, width: int, right: bool = False) -> str:
    """The text in exactly `width` columns."""
    text = cut(text, width)
    space = " " * (width - wide(text))
    return space + text if right else text + space


class Table:
    """A table that is printed a part at a time. Its columns grow with what comes, until they fill the terminal.

    Parameters
    ----------
    right : list of str
        Columns (by their header) that are aligned to the right.
    width : int, optional
        Columns of the terminal.
    least : list of int, optional
        How wide each column is at least, as long as there is room.
    """

    def __init__(
        self, header: Sequence[str], right: Sequence[str] = (), width: int | None = None, least: Sequence[int] = ()
    ) -> None:
        self.header = list(header)
        self._room = (width_of_terminal() if width is None else width) - 2 * (len(self.header) - 1)
        self._aligned = [name in right for name in self.header]
        self._widths = [max(pair) for pair in zip(map(wide, self.header), least or repeat(0), strict=False)]
        self._has_begun = False

    def lines(self, rows: Sequence[Sequence[str]], styles: dict[tuple[int, int], str] | None = None) -> list[str]:
        """The lines of some rows, the first time with the header. The widest columns are cut until a line fits.

        Parameters
        ----------
        styles : dict
            (row, column) → style of a cell.
        """
        widths = [max([least, *(wide(row[i]) for row in rows)]) for i, least in enumerate(self._widths)]
        while sum(widths) > self._room and max(widths) > NARROWEST:
            widths[widths.index(max(widths))] -= 1
        self._widths = widths
        head = [] if self._has_begun else [paint("  ".join(self._padded(self.header)).rstrip(), "bold")]
        self._has_begun = True
        found = styles or {}
        return [
            *head,
            *(
                "  ".join(
                    paint(cell, found[number, i]) if (number, i) in found else cell
                    for i, cell in enumerate(self._padded(row))
                ).rstrip()
                for number, row in enumerate(rows)
            ),
        ]

    def _padded(self, cells: Sequence[str]) -> list[str]:
        padded = [pad(cell, w, r) for cell, w, r in zip(cells, self._widths, self._aligned, strict=True)]
        if not self._aligned[-1]:
            padded[-1] = padded[-1].rstrip()
        return padded


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    styles: dict[tuple[int, int], str] | None = None,
    width: int | None = None,
) -> list[str]:
    """Lines of a table (see `Table`)."""
    return Table(header, right, width).lines(rows, styles)


def duration(seconds: float | None) -> str:
    """ "85 µs", "3.2 ms", "1.50 s", "2 min 05 s", "3 h 20 min"."""
    if seconds is None:
        return ""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.{1 if seconds < 0.1 else 0}f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    if seconds < 2 * 86400:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
    return f"{seconds / 86400:.1f} days"


def when(moment: datetime | None, now: datetime | None = None) -> str:
    """ "12 s ago", "5 min ago", "14:03:07" (today), "Mon 14:03" (this week), "2026-01-31 14:03"; local time."""
    if moment is None:
        return ""
    present = now or datetime.now(UTC)
    age = (present - moment).total_seconds()
    local = moment.astimezone()
    if -1 < age < 60:
        return f"{max(0, int(age))} s ago"
    if 0 <= age < 3600:
        return f"{int(age // 60)} min ago"
    if local.date() == present.astimezone().date():
        return f"{local:%H:%M:%S}"
    return f"{local:%Y-%m-%d %H:%M}"


def exact(moment: datetime | None) -> str:
    """Local time to the millisecond, with the day and the zone."""
    if moment is None:
        return "—"
    local = moment.astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {local:%Z}"


def plural(number: int, what: str) -> str:
    """ "1 engine", "3 engines"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def as_json(value: Any, *, line: bool = False) -> str:
    """What `--json` prints: indented, or in one line for each value of a stream."""
    return json.dumps(value, default=jsonable, ensure_ascii=False, indent=None if line else 1)


def jsonable(value: Any) -> Any:
    """For json.dumps: times in ISO format, bytes as their length."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
