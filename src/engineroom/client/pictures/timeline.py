"""When and where tasks ran: rows, and their picture with one row for each engine. Pure.

Up to `SINGLE` tasks on up to `ROWS` engines are bars. More tasks are gathered, never left out: the picture is divided
into cells, and each cell shows which part of its time its engines spent with tasks of each name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ... import markup
from ...errors import ConfigError
from .svg import COLOURS, FAILED, OTHERS, WIDTH, Canvas, Picture, duration, step_of, width_of

#: Up to this many tasks are drawn one by one.
SINGLE = 800
#: Up to this many rows are drawn; of more engines, several share a row.
ROWS = 48
#: Shapes of a gathered picture, at most: rows times columns times names.
SHAPES = 16_000
#: Names with a colour of their own; the others have one together.
NAMED = len(COLOURS)
#: No bar or column of a gathered picture is narrower than this.
NARROWEST = 1.0

BY = ("label", "function", "state")
#: Steps of the time axis, in seconds, where it is longer than 10 minutes.
_LONG = (60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 43200, 86400)
_TOP = 30.0


class Ran(NamedTuple):
    """Where and when a task ran. `engine` and `started` are None: it did not run."""

    #: of a graph: the node; of another result: the task's msg_id
    node: Any
    engine: int | None
    started: datetime | None
    #: None: it is running
    completed: datetime | None
    #: "completed", "failed", "aborted", "running" or "pending"
    state: str = "completed"
    label: str | None = None
    function: str | None = None


class Timeline(list[Ran], Picture):
    """Rows of type `Ran`, by start; those that did not run come last. A notebook shows them as a picture.

    Parameters
    ----------
    rows : iterable of Ran
    by : {"label", "function", "state"}, optional
        What gives a bar its colour. Default: the label, if there are labels; else the function.
    now : datetime, optional
        Where the bars of running tasks end.
    named : bool
        Write the nodes into their bars, where there is room.

    Raises
    ------
    ConfigError
        There is no such `by`.
    """

    def __init__(
        self, rows: Iterable[Ran], by: str | None = None, *, now: datetime | None = None, named: bool = False
    ) -> None:
        if by is not None and by not in BY:
            raise ConfigError(f"a timeline is coloured by {', '.join(BY)}; got {by!r}")
        super().__init__(
            sorted(rows, key=lambda row: (row.started is None, row.started.timestamp() if row.started else 0.0))
        )
        self.by = by or ("label" if any(row.label is not None for row in self) else "function")
        self._now, self._named = now, named

    def __repr__(self) -> str:
        return f"<Timeline: {self._about()}. save('timeline.svg') makes a file>"

    def svg(self) -> str:
        """The picture as SVG text, on a transparent background."""
        bars = [bar for bar in map(self._bar, self) if bar is not None]
        return draw(bars, self._about(), self.by, named=self._named)

    def _about(self) -> str:
        bars = [bar for bar in map(self._bar, self) if bar is not None]
        states = Counter(row.state for row in self)
        absent = len(self) - len(bars) - states["pending"]
        told = [f"{markup.plural(len(bars), 'task')} on {markup.plural(len({bar.engine for bar in bars}), 'engine')}"]
        if bars:
            whole = max(bar.end for bar in bars) - min(bar.begin for bar in bars)
            told.append(duration(whole))
            busy = sum(bar.end - bar.begin for bar in bars) / (whole * len({bar.engine for bar in bars}) or 1)
            told.append(f"engines {min(busy, 1):.0%} busy")
        told += [f"{states[state]:,} {state}" for state in ("failed", "running") if states[state]]
        if states["pending"]:
            told.append(f"{states['pending']:,} waiting")
        if absent > 0:
            told.append(f"{absent:,} did not run")
        return ", ".join(told)

    def _bar(self, row: Ran) -> Bar | None:
        end = row.completed or self._now
        if row.started is None or row.engine is None or end is None:
            return None
        name = getattr(row, self.by)
        begin = row.started.timestamp()
        return Bar(row.engine, begin, max(begin, end.timestamp()), name, row)


class Bar(NamedTuple):
    """A task to draw: times in seconds since the epoch."""

    engine: int
    begin: float
    end: float
    name: str | None
    row: Ran


def draw(bars: Sequence[Bar], about: str, by: str, *, named: bool = False) -> str:
    """The picture of some bars.

    Parameters
    ----------
    about : str
        The line above it.
    by : str
        What the names are: the legend says so.
    named : bool
        Write the nodes into their bars, where there is room.
    """
    canvas = Canvas()
    canvas.text(0, 14, about, weight="600", size=12.5)
    if not bars:
        canvas.text(0, 38, "no task has run", opacity=0.7)
        return canvas.finished(50, about)
    begin, end = min(bar.begin for bar in bars), max(bar.end for bar in bars)
    if end <= begin:
        end = begin + 1e-6
    engines = sorted({bar.engine for bar in bars})
    together = -(-len(engines) // ROWS)  # engines of one row
    rows = [engines[i : i + together] for i in range(0, len(engines), together)]
    titles = [f"{row[0]}" if len(row) == 1 else f"{row[0]}-{row[-1]}" for row in rows]
    left = 12 + max(width_of("engine", 11), *(width_of(title, 11) for title in titles))
    height = min(26.0, max(9.0, 420 / len(rows)))
    scale = (WIDTH - left - 4) / (end - begin)
    colours = _colours(bars)
    bottom = _TOP + len(rows) * height
    _axis(canvas, begin, end, left, scale, bottom)
    canvas.text(left - 8, _TOP - 3, "engine", size=10.5, anchor="end", opacity=0.7)
    every = -(-12 // int(height))  # titles do not touch
    for place, title in enumerate(titles):
        if place % every == 0:
            canvas.text(left - 8, _TOP + place * height + height / 2 + 4, title, size=11, anchor="end", opacity=0.8)
        if height >= 12:
            canvas.line(left, _TOP + (place + 1) * height, WIDTH - 4, _TOP + (place + 1) * height, 0.08)
    if len(bars) <= SINGLE and together == 1:
        _single(
            canvas, bars, {row[0]: place for place, row in enumerate(rows)}, begin, left, scale, height, colours, named
        )
    else:
        _gathered(canvas, bars, rows, begin, end, left, height, colours)
    bottom = canvas.legend(bottom + 30, _legend(bars, colours, by), left)
    return canvas.finished(bottom + 2, about)


def _single(
    canvas: Canvas, bars: Sequence[Bar], places: dict[int, int], begin: float, left: float, scale: float,
    height: float, colours: dict[str | None, str], named: bool,
) -> None:  # fmt: skip
    gap = 2.0 if height >= 12 else 1.0
    for bar in bars:
        x, y = left + (bar.begin - begin) * scale, _TOP + places[bar.engine] * height + gap / 2
        width, tall = max(NARROWEST, (bar.end - bar.begin) * scale - 0.6), height - gap
        colour = colours.get(bar.name, OTHERS)
        is_running = bar.row.state == "running"
        canvas.rectangle(
            x, y, width, tall, colour, title=_title(bar), opacity=0.45 if is_running else 1, round=2 if width > 5 else 0
        )
        if bar.row.state == "failed":
            canvas.rectangle(x, y + tall - 3, width, 3, FAILED)
        text = str(bar.row.node) if named else ""
        if text and width > width_of(text, 11) + 8 and height >= 14:
            canvas.text(x + 5, y + tall / 2 + 4, text, size=11, fill="#ffffff")


def _gathered(
    canvas: Canvas, bars: Sequence[Bar], rows: Sequence[Sequence[int]], begin: float, end: float, left: float,
    height: float, colours: dict[str | None, str],
) -> None:  # fmt: skip
    """Cells: which part of its time a row's engines spent with tasks of each colour."""
    shades = list(dict.fromkeys(colours.values()))
    if any(bar.name not in colours for bar in bars) and OTHERS not in shades:
        shades.append(OTHERS)
    columns = max(30, min(int((WIDTH - left) / 3), SHAPES // (len(rows) * len(shades))))
    span = (end - begin) / columns
    width = (WIDTH - left - 4) / columns
    place = {engine: number for number, row in enumerate(rows) for engine in row}
    shade = {name: shades.index(colour) for name, colour in colours.items()}
    others = shades.index(OTHERS) if OTHERS in shades else -1
    seconds: dict[tuple[int, int, int], float] = {}  # (row, column, shade)
    failed: set[tuple[int, int]] = set()
    for bar in bars:
        row, kind = place[bar.engine], shade.get(bar.name, others)
        first = min(columns - 1, int((bar.begin - begin) / span))
        last = min(columns - 1, int((bar.end - begin) / span))
        for column in range(first, last + 1):
            start, stop = begin + column * span, begin + (column + 1) * span
            share = max(0.0, min(bar.end, stop) - max(bar.begin, start))
            seconds[row, column, kind] = seconds.get((row, column, kind), 0.0) + share
        if bar.row.state == "failed":
            failed.add((row, last))
    boxes: list[list[tuple[float, float, float, float]]] = [[] for _ in shades]
    room = height - 2
    levels: dict[tuple[int, int], float] = {}
    for row, column, kind in sorted(seconds):
        # No cell with a task is empty: a task of a microsecond is a hair.
        tall = max(0.5, room * min(1.0, seconds[row, column, kind] / (span * len(rows[row]))))
        level = levels.get((row, column), 0.0)
        tall = min(tall, room - level) if room - level > 0.5 else 0.5
        levels[row, column] = level + tall
        y = _TOP + (row + 1) * height - 1 - level - tall
        box = (left + column * width, y, width, tall)
        before = boxes[kind][-1] if boxes[kind] else None
        if before and before[1] == box[1] and before[3] == box[3] and abs(before[0] + before[2] - box[0]) < 0.01:
            boxes[kind][-1] = (before[0], before[1], before[2] + width, before[3])
        else:
            boxes[kind].append(box)
    for kind, colour in enumerate(shades):
        canvas.rectangles(boxes[kind], colour)
    canvas.rectangles(
        ((left + column * width, _TOP + (row + 1) * height - 3, width, 2) for row, column in sorted(failed)), FAILED
    )


def _title(bar: Bar) -> str:
    row = bar.row
    lines = [str(row.node), f"{row.function or 'task'}{f' ({row.label})' if row.label else ''}"]
    when = f"{row.started.astimezone():%H:%M:%S}" if row.started else ""
    lines.append(f"engine {row.engine}, {row.state}, {duration(bar.end - bar.begin)} from {when}")
    return "\n".join(lines)


def _colours(bars: Sequence[Bar]) -> dict[str | None, str]:
    """name → colour, the most frequent name first; names that are not in it have the colour of the others."""
    names = [name for name, _ in Counter(bar.name for bar in bars).most_common() if name is not None]
    found: dict[str | None, str] = dict(zip(names[:NAMED], COLOURS, strict=False))
    if any(bar.name is None for bar in bars):
        found[None] = OTHERS if found else COLOURS[0]
    return found


def _legend(bars: Sequence[Bar], colours: dict[str | None, str], by: str) -> list[tuple[str, str]]:
    counts = Counter(bar.name for bar in bars)
    found = []
    if set(counts) != {None}:
        found = [
            (colour, f"{f'no {by}' if name is None else name} {counts[name]:,}") for name, colour in colours.items()
        ]
    rest = [name for name in counts if name not in colours]
    if rest:
        found.append((OTHERS, f"{len(rest):,} other {by}s {sum(counts[name] for name in rest):,}"))
    failed = sum(bar.row.state == "failed" for bar in bars)
    return [*found, (FAILED, f"failed {failed:,}")] if failed else found


def _axis(canvas: Canvas, begin: float, end: float, left: float, scale: float, bottom: float) -> None:
    step = step_of(end - begin, 8)
    unit, name = (1e-6, "µs") if step < 1e-3 else (1e-3, "ms") if step < 0.5 else (1.0, "s")
    if end - begin > 600:
        days = 86400 * step_of((end - begin) / 86400, 8)
        step = next((long for long in _LONG if (end - begin) / long <= 8), days)
        unit, name = (60, "min") if step < 3600 else (3600, "h")
    place = 0
    while place * step <= (end - begin) * (1 + 1e-9):
        x = left + place * step * scale
        canvas.line(x, _TOP, x, bottom + 4)
        text = f"{place * step / unit:g}"
        is_last = (place + 1) * step > end - begin
        canvas.text(x, bottom + 16, f"{text} {name}" if place == 0 or is_last else text, size=10.5,
                    anchor="start" if place == 0 else "end" if x > WIDTH - 30 else "middle", opacity=0.7)  # fmt: skip
        place += 1
    canvas.line(left, bottom, WIDTH - 4, bottom, 0.35)
