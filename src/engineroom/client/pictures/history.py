"""The history of tasks: how many ended when, and how long they took, by name. Pure: it is given counts, and draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from ... import markup
from .svg import COLOURS, FAILED, OTHERS, WIDTH, Canvas, Picture, duration, number, step_of, width_of

#: Names with a colour of their own; the others have one together.
NAMED = 6
#: Widths of spans, in seconds: the marks of the time axis are multiples of them.
STEPS = (*(f * 10.0**p for p in range(-3, 1) for f in (1, 2, 5)), 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600,
         7200, 10800, 21600, 43200, 86400)  # fmt: skip

_TOP, _HIGH, _LOW, _GAP = 44.0, 170.0, 150.0, 46.0


class Span(NamedTuple):
    """The tasks of one name that ended in a span of time. Durations are in seconds; None: no task has one."""

    begin: datetime
    seconds: float
    name: str | None
    tasks: int
    median: float | None
    p95: float | None


class HistoryPlot(Picture):
    """The history of tasks as a picture; `spans` are its numbers.

    Attributes
    ----------
    spans : list of Span
        By time, then by name. Spans in which no task ended are not among them.
    failed : dict of datetime to int
        Begin of a span → how many tasks failed in it.
    """

    def __init__(
        self, spans: Sequence[Span], failed: Mapping[datetime, int], by: str, bounds: tuple[datetime, datetime] | None
    ) -> None:
        self.spans, self.failed, self.by = list(spans), dict(failed), by
        self._bounds = bounds

    def __repr__(self) -> str:
        return f"<HistoryPlot: {self._about()}. save('history.svg') makes a file>"

    def _about(self) -> str:
        if self._bounds is None:
            return "no task that matches has ended"
        count, failed = sum(span.tasks for span in self.spans), sum(self.failed.values())
        begin, end = (moment.astimezone() for moment in self._bounds)
        until = f"{end:%H:%M:%S}" if begin.date() == end.date() else f"{end:%Y-%m-%d %H:%M}"
        told = f"{markup.plural(count, 'task')} ended from {begin:%Y-%m-%d %H:%M:%S} to {until}"
        return told + (f", {failed:,} failed" if failed else "")

    def svg(self) -> str:
        """The picture as SVG text, on a transparent background."""
        if self._bounds is None:
            canvas = Canvas()
            canvas.text(0, 14, self._about())
            return canvas.finished(24, self._about())
        return draw(self.spans, self.failed, self.by, self._bounds, self._about())


def span_width(seconds: float, most: int) -> float:
    """The width of spans that divide so many seconds into about `most` at most: a round number."""
    return next((step for step in STEPS if seconds / step <= most), 86400.0 * math.ceil(seconds / most / 86400))


def draw(
    spans: Sequence[Span], failed: Mapping[datetime, int], by: str, bounds: tuple[datetime, datetime], about: str
) -> str:  # fmt: skip
    """The picture: above how many tasks ended per second, below how long they took."""
    canvas = Canvas()
    canvas.text(0, 14, about, weight="600", size=12.5)
    counts: dict[str | None, int] = {}
    for span in spans:
        counts[span.name] = counts.get(span.name, 0) + span.tasks
    names = sorted((name for name in counts if name is not None), key=lambda name: -counts[name])
    colours: dict[str | None, str] = dict(zip(names[:NAMED], COLOURS, strict=False))
    if None in counts:
        colours[None] = OTHERS if names else COLOURS[0]
    begin, end = (moment.timestamp() for moment in bounds)
    width = spans[0].seconds
    ends = max(end, *(span.begin.timestamp() + span.seconds for span in spans))
    begins = min(begin, *(span.begin.timestamp() for span in spans))
    left = 62.0
    scale = (WIDTH - left - 4) / (ends - begins)

    def x_of(moment: float) -> float:
        return left + (moment - begins) * scale

    _throughput(canvas, spans, failed, colours, x_of, width, left)
    _durations(canvas, spans, colours, x_of, width, left)
    _times(canvas, begins, ends, x_of, left)
    legend = [(colour, f"{f'no {by}' if name is None else name} {counts[name]:,}") for name, colour in colours.items()]
    if len(names) > NAMED:
        rest = names[NAMED:]
        legend.append((OTHERS, f"{len(rest):,} other {by}s {sum(counts[name] for name in rest):,}"))
    if failed:
        legend.append((FAILED, f"failed {sum(failed.values()):,}"))
    if set(counts) == {None} and not failed:
        legend = []
    bottom = canvas.legend(_TOP + _HIGH + _GAP + _LOW + 30, legend, left)
    return canvas.finished(bottom, about)


def _throughput(
    canvas: Canvas, spans: Sequence[Span], failed: Mapping[datetime, int], colours: Mapping[str | None, str], x_of: Any,
    width: float, left: float,
) -> None:  # fmt: skip
    sums: dict[datetime, int] = {}
    for span in spans:
        sums[span.begin] = sums.get(span.begin, 0) + span.tasks
    most = max(sums.values()) / width
    unit, factor = ("tasks per second", 1.0) if most >= 1 else ("tasks per minute", 60.0)
    if most * 60 < 1:
        unit, factor = "tasks per hour", 3600.0
    bottom = _TOP + _HIGH
    canvas.text(0, _TOP - 8, unit, size=11, opacity=0.7)
    for mark in _marks(most * factor, 4):
        y = bottom - _HIGH * mark / (most * factor)
        canvas.line(left, y, WIDTH - 4, y, 0.35 if mark == 0 else 0.12)
        canvas.text(left - 6, y + 4, number(mark), size=10.5, anchor="end", opacity=0.7)
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    level = dict.fromkeys(sums, 0.0)
    order = list(dict.fromkeys([*colours.values(), OTHERS]))
    for span in sorted(spans, key=lambda span: order.index(colours.get(span.name, OTHERS))):
        tall = max(0.4, _HIGH * span.tasks / width / most)
        x, wide = x_of(span.begin.timestamp()), max(0.8, x_of(width) - x_of(0) - 0.6)
        box = (x, bottom - level[span.begin] - tall, wide, tall)
        boxes.setdefault(colours.get(span.name, OTHERS), []).append(box)
        level[span.begin] += tall
    for colour, some in boxes.items():
        canvas.rectangles(some, colour)
    wide = max(1.2, x_of(width) - x_of(0) - 0.6)
    canvas.rectangles(((x_of(moment.timestamp()), bottom + 2, wide, 4) for moment in sorted(failed)), FAILED)


def _durations(
    canvas: Canvas, spans: Sequence[Span], colours: Mapping[str | None, str], x_of: Any, width: float, left: float
) -> None:  # fmt: skip
    top = _TOP + _HIGH + _GAP
    bottom = top + _LOW
    values = [value for span in spans for value in (span.median, span.p95) if value]
    canvas.text(0, top - 8, "duration: median, and up to the 95th percentile", size=11, opacity=0.7)
    canvas.line(left, bottom, WIDTH - 4, bottom, 0.35)
    if not values:
        return
    low, high = math.log10(min(values)), math.log10(max(values))
    low, high = low - 0.12, high + 0.12

    def y_of(seconds: float) -> float:
        return bottom - _LOW * (math.log10(seconds) - low) / (high - low)

    for mark in _round_durations(low, high):
        canvas.line(left, y_of(mark), WIDTH - 4, y_of(mark), 0.12)
        canvas.text(left - 6, y_of(mark) + 4, duration(mark), size=10.5, anchor="end", opacity=0.7)
    for name, colour in [*colours.items(), ("", OTHERS)]:
        # All names without a colour of their own: dots and whiskers, but no line leads from one name to the other.
        some = [s for s in spans if s.median and (s.name == name if name in colours else s.name not in colours)]
        points = [(x_of(s.begin.timestamp() + width / 2), y_of(s.median)) for s in some if s.median]
        whiskers = [
            (x - 0.6, y_of(s.p95), 1.2, y - y_of(s.p95))
            for s, (x, y) in zip(some, points, strict=True)
            if s.p95 and s.median and s.p95 > s.median
        ]
        canvas.rectangles(whiskers, colour, 0.5)
        if name in colours and len(points) > 1:
            # The line is broken where a span has no task of this name.
            gap = 1.5 * (x_of(width) - x_of(0))
            moves = ["M", *("L" if b[0] - a[0] < gap else "M" for a, b in pairwise(points))]
            data = "".join(f"{move}{x:.1f} {y:.1f}" for move, (x, y) in zip(moves, points, strict=True))
            canvas.curve(data, colour, width=1.2, opacity=0.8)
        canvas.circles(points, 2.2, colour)


def _marks(most: float, parts: int) -> Iterator[float]:
    step = step_of(most, parts)
    place = 0
    while place * step <= most * (1 + 1e-9):
        yield place * step
        place += 1


def _round_durations(low: float, high: float) -> list[float]:
    """Round durations between two powers of ten, in seconds: at most six, and three where there is room."""
    found: list[float] = []
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        short = [f * 10.0**p for p in range(-7, 2) for f in factors]
        long = [f * unit for unit in (60, 600, 3600, 36_000, 86_400, 864_000, 8_640_000) for f in factors]
        found = sorted({d for d in (*(d for d in short if d < 60), *long) if low <= math.log10(d) <= high})
        if len(found) >= 3:
            break
    return found[:: -(-len(found) // 6) or 1]


def _times(canvas: Canvas, begin: float, end: float, x_of: Any, left: float) -> None:
    """The marks of the time axis, in local time."""
    step = span_width(end - begin, 8)
    zone = datetime.fromtimestamp(begin).astimezone().utcoffset() or timedelta()
    first = math.ceil((begin + zone.total_seconds()) / step) * step - zone.total_seconds()
    form = "%m-%d" if step >= 86400 else "%m-%d %H:%M" if end - begin > 86400 else "%H:%M" if step >= 60 else "%H:%M:%S"
    top, bottom = _TOP, _TOP + _HIGH + _GAP + _LOW
    place = 0
    while (moment := first + place * step) <= end:
        x = x_of(moment)
        for y1, y2 in ((top, top + _HIGH), (top + _HIGH + _GAP, bottom + 4)):
            canvas.line(x, y1, x, y2, 0.1)
        shown = f"{datetime.fromtimestamp(moment):{form}}"
        if step < 1:
            shown += f".{round(moment % 1 * 1000):03d}"
        half = width_of(shown, 10.5) / 2
        anchor = "start" if x - half < left - 20 else "end" if x + half > WIDTH else "middle"
        canvas.text(x, bottom + 16, shown, size=10.5, anchor=anchor, opacity=0.7)
        place += 1
