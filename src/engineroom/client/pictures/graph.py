"""A graph of tasks in layers, from left to right, each node in the colour of its state. Pure.

A small graph has boxes with names, a larger one dots. A still larger one is gathered: a column for each layer (or for
several), as high as it has nodes; lines between columns are as thick as they stand for edges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ... import markup
from .svg import FAILED, OTHERS, WIDTH, Canvas, Picture, width_of

#: state → colour, in the order of the legend
STATES = {"completed": "#3f9d63", "running": "#3b82c4", "failed": FAILED, "aborted": "#b8962e", "pending": OTHERS}

#: A graph with boxes has at most so many layers, and nodes in a layer.
BOXED = (7, 14)
#: A graph with dots has at most so many nodes in a layer, nodes, and edges.
DOTTED = (60, 400, 1500)
#: Columns of a gathered picture, at most.
COLUMNS = 40
#: Names of nodes are written into their boxes up to this width.
_WIDEST = 150.0
_TOP = 30.0

Predecessors = Mapping[Any, Sequence[Any]]


class GraphPicture(Picture):
    """The picture of a graph of tasks.

    Parameters
    ----------
    predecessors : mapping
        Node → its predecessors; each node comes after them.
    states : mapping
        Node → "completed", "running", "failed", "aborted" or "pending".
    """

    def __init__(self, predecessors: Predecessors, states: Mapping[Any, str]) -> None:
        self._before, self._states = predecessors, states

    def __repr__(self) -> str:
        return f"<GraphPicture: {self._about()}. save('graph.svg') makes a file>"

    def _about(self) -> str:
        counts = Counter(self._states.values())
        told = [markup.plural(len(self._before), "node"), markup.plural(sum(map(len, self._before.values())), "edge")]
        return ", ".join([*told, *(f"{counts[state]:,} {state}" for state in STATES if counts[state])])

    def svg(self) -> str:
        """The picture as SVG text, on a transparent background."""
        return draw(self._before, self._states, self._about())


def layers_of(before: Predecessors) -> list[list[Any]]:
    """The nodes by depth: how many others must end before it, one after the other. Neighbours are near each other."""
    depth: dict[Any, int] = {}
    for node, predecessors in before.items():
        depth[node] = max((depth[first] + 1 for first in predecessors), default=0)
    layers: list[list[Any]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node, layer in depth.items():
        layers[layer].append(node)
    place: dict[Any, float] = {}
    for nodes in layers:  # a node stands at the height of its predecessors
        means = {
            node: sum(place[first] for first in before[node]) / len(before[node]) if before[node] else 0.0
            for node in nodes
        }
        nodes.sort(key=means.__getitem__)
        for number, node in enumerate(nodes):
            place[node] = (number + 0.5) / len(nodes)
    return layers


def draw(before: Predecessors, states: Mapping[Any, str], about: str) -> str:
    """The picture; `about` is the line above it."""
    canvas = Canvas()
    canvas.text(0, 14, about, weight="600", size=12.5)
    layers = layers_of(before)
    widest = max(map(len, layers), default=0)
    edges = sum(map(len, before.values()))
    if not layers:
        return canvas.finished(24, about)
    if len(layers) <= BOXED[0] and widest <= BOXED[1]:
        bottom = _boxes(canvas, layers, before, states)
    elif widest <= DOTTED[0] and len(before) <= DOTTED[1] and edges <= DOTTED[2]:
        bottom = _dots(canvas, layers, before, states)
    else:
        bottom = _gathered(canvas, layers, before, states)
    there = set(states.values())
    bottom = canvas.legend(bottom + 8, [(colour, state) for state, colour in STATES.items() if state in there])
    return canvas.finished(bottom, about)


def _boxes(
    canvas: Canvas, layers: Sequence[Sequence[Any]], before: Predecessors, states: Mapping[Any, str]
) -> float:  # fmt: skip
    names = {node: " ".join(str(node).split()) for node in before}
    widest = max(width_of(name, 12) for name in names.values()) + 22
    room = (WIDTH - 2) / len(layers)
    box = min(widest, _WIDEST, room - 30)
    step = min(room, box + 70)
    tall, row = 24.0, 34.0
    bottom = _TOP + max(map(len, layers)) * row
    at = _places(layers, step, row, bottom)
    layer = {node: number for number, nodes in enumerate(layers) for node in nodes}
    lowest = bottom
    for node, predecessors in before.items():
        for first in predecessors:
            (x1, y1), (x2, y2) = at[first], at[node]
            x1 += box
            between = layers[layer[first] + 1 : layer[node]]
            data = f"M{x1:.1f} {y1:.1f}"
            if between:  # it runs below the boxes of the layers between
                lane = max(at[other][1] for nodes in between for other in nodes) + row / 2
                lowest = max(lowest, lane + 2)
                near, far = at[between[0][0]][0], at[between[-1][0]][0] + box
                data += f"{_bend(x1, y1, near, lane)}H{far:.1f}"
                x1, y1 = far, lane
            canvas.curve(data + _bend(x1, y1, x2, y2), "currentColor", opacity=0.45)
    for node, (x, y) in at.items():
        colour = STATES[states[node]]
        canvas.rectangle(x, y - tall / 2, box, tall, colour, opacity=0.16, round=4)
        canvas.rectangle(x, y - tall / 2, 4, tall, colour, title=f"{node}\n{states[node]}")
        most = max(1, int((box - 18) / 7))
        name = names[node] if width_of(names[node], 12) <= box - 16 else names[node][: most - 1] + "…"
        canvas.text(x + 11, y + 4, name)
    return lowest


def _bend(x1: float, y1: float, x2: float, y2: float) -> str:
    """A curve to the second point, level at both ends."""
    middle = (x1 + x2) / 2
    return f"C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"


def _dots(
    canvas: Canvas, layers: Sequence[Sequence[Any]], before: Predecessors, states: Mapping[Any, str]
) -> float:  # fmt: skip
    radius = min(6.0, max(2.0, 150 / max(max(map(len, layers)), len(layers) / 2)))
    row = max(2 * radius + 1.5, min(22.0, 420 / max(map(len, layers))))
    bottom = _TOP + max(map(len, layers)) * row
    at = _places(layers, min(110.0, (WIDTH - 4 * radius) / max(1, len(layers) - 1)), row, bottom)
    edges = []
    for node, predecessors in before.items():
        for first in predecessors:
            (x1, y1), (x2, y2) = at[first], at[node]
            bend = (x2 - x1) / 2
            edges.append(
                f"M{x1 + radius:.0f} {y1:.0f}c{bend:.0f} 0 {bend:.0f} {y2 - y1:.0f} {x2 - x1:.0f} {y2 - y1:.0f}"
            )
    canvas.curve("".join(edges), "currentColor", width=0.8, opacity=max(0.15, min(0.4, 60 / (1 + len(edges)))))
    for node, (x, y) in at.items():
        canvas.rectangle(
            x, y - radius, 2 * radius, 2 * radius, STATES[states[node]], title=f"{node}\n{states[node]}", round=radius
        )
    return bottom


def _places(
    layers: Sequence[Sequence[Any]], step: float, row: float, bottom: float
) -> dict[Any, tuple[float, float]]:  # fmt: skip
    """Where each node is: its left end, and the middle of its height."""
    middle = (_TOP + bottom) / 2
    return {
        node: (1 + layer * step, middle + (place - (len(nodes) - 1) / 2) * row)
        for layer, nodes in enumerate(layers)
        for place, node in enumerate(nodes)
    }


def _gathered(
    canvas: Canvas, layers: Sequence[Sequence[Any]], before: Predecessors, states: Mapping[Any, str]
) -> float:  # fmt: skip
    together = -(-len(layers) // COLUMNS)
    columns = [[node for layer in layers[i : i + together] for node in layer] for i in range(0, len(layers), together)]
    place = {node: number for number, nodes in enumerate(columns) for node in nodes}
    edges = Counter((place[first], place[node]) for node, firsts in before.items() for first in firsts)
    step = min(130.0, (WIDTH - 30) / max(1, len(columns) - 1))
    wide = min(34.0, step * 0.55)
    highest, room = max(map(len, columns)), 240.0
    middle = _TOP + 18 + room / 2
    tall = [max(6.0, room * len(nodes) / highest) for nodes in columns]
    most = max(edges.values(), default=1)
    for (first, last), count in edges.items():
        if first == last:
            continue
        x1, x2 = first * step + wide, last * step
        thick = max(1.0, min(tall[first], tall[last]) * 0.8 * count / most)
        below = 0 if last == first + 1 else (last - first) * 14
        bend = (x2 - x1) / 2
        canvas.curve(
            f"M{x1:.1f} {middle:.1f}c{bend:.1f} {below} {bend:.1f} {below} {x2 - x1:.1f} 0",
            "currentColor", width=thick, opacity=0.16, title=markup.plural(count, "edge"),
        )  # fmt: skip
    for number, nodes in enumerate(columns):
        counts = Counter(states[node] for node in nodes)
        x, y = number * step, middle - tall[number] / 2
        first, last = number * together, min(len(layers), (number + 1) * together) - 1
        depth = f"layer {first}" if first == last else f"layers {first}-{last}"
        title = ", ".join([depth, *(f"{counts[state]:,} {state}" for state in STATES if counts[state])])
        if wide >= 20 or number % 4 == 0:
            canvas.text(x, y - 5, f"{len(nodes):,}", size=10.5, opacity=0.8)
        for state, colour in STATES.items():
            if counts[state]:
                part = tall[number] * counts[state] / len(nodes)
                canvas.rectangle(x, y, wide, part, colour, title=title)
                y += part
    return middle + room / 2 + 4
