"""A picture of a graph that has run: what ran when, on which engine, and what it waited for.

A node is a bar from its start to its end, in the colour of its engine; a curve leads from the end of each
predecessor to the start of its successor. networkx tells in which order the nodes of a column stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..pictures.timeline import Ran

#: Graphs of at most this many nodes have their names written beside the bars.
NAMES = 60
#: No bar is drawn shorter than this part of the whole time, so that short tasks are seen.
SHORTEST = 0.004
#: Points of a curve.
POINTS = 24
#: Thickness of all bars of one column together, in points.
COLUMN = 260.0
#: Colours of engines; after the last they begin again.
COLOURS = ("#3b6fb6", "#e07b39", "#4f9d69", "#b5495b", "#7d5ba6", "#c9a227", "#3f9fa8", "#8c6d4f", "#d16ba5", "#6b7280")


def heights(predecessors: Mapping[Any, Sequence[Any]]) -> dict[Any, float]:
    """A height for each node, from -0.5 to 0.5. Nodes of equal depth have different heights.

    Parameters
    ----------
    predecessors : mapping
        Node → its predecessors; all of them are keys, too.
    """
    import networkx

    graph = networkx.DiGraph([(first, node) for node, before in predecessors.items() for first in before])
    graph.add_nodes_from(predecessors)
    # Depth first, the successors of one node come together.
    place = {node: index for index, node in enumerate(networkx.dfs_preorder_nodes(graph))}
    height: dict[Any, float] = {}
    for layer in networkx.topological_generations(graph):
        in_order = sorted(layer, key=place.__getitem__)
        height |= {node: index - (len(in_order) - 1) / 2 for index, node in enumerate(in_order)}
    highest = max(height.values(), default=0.0) or 1.0
    return {node: y / highest / 2 for node, y in height.items()}


def draw(rows: Sequence[Ran], predecessors: Mapping[Any, Sequence[Any]], ax: Any = None) -> Any:
    """Draw what ran, and the edges between; returns the axes."""
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    ran = {row.node: row for row in rows if row.started is not None and row.completed is not None}
    begin = min((row.started.timestamp() for row in ran.values() if row.started), default=0.0)
    spans = {
        node: (row.started.timestamp() - begin, row.completed.timestamp() - begin)
        for node, row in ran.items()
        if row.started and row.completed
    }
    whole = max((end for _, end in spans.values()), default=0.0) or 1.0
    scale, unit = (1.0, "s") if whole >= 1 else (1e3, "ms")
    height = heights(predecessors)
    thickness = min(9.0, max(1.5, COLUMN / (1 + len(set(height.values())))))

    if ax is None:
        _, ax = plt.subplots(figsize=(11, 6), layout="constrained")
    engines = sorted({row.engine for row in ran.values() if row.engine is not None})
    colour: dict[int | None, str] = {engine: COLOURS[index % len(COLOURS)] for index, engine in enumerate(engines)}

    t = np.linspace(0, 1, POINTS)
    rise = t * t * (3 - 2 * t)
    curves, tints = [], []
    for node, (start, _) in spans.items():
        for predecessor in predecessors[node]:
            if predecessor in spans:
                end = spans[predecessor][1]
                a, b = height[predecessor], height[node]
                curves.append(np.column_stack([scale * (end + (start - end) * t), a + (b - a) * rise]))
                tints.append(colour[ran[predecessor].engine])
    opacity = max(0.12, min(0.45, 100 / (1 + len(curves))))
    ax.add_collection(LineCollection(curves, colors=tints, alpha=opacity, linewidths=1.0, zorder=1))

    bars = [
        [(scale * start, height[node]), (scale * max(end, start + SHORTEST * whole), height[node])]
        for node, (start, end) in spans.items()
    ]
    shades = [colour[ran[node].engine] for node in spans]
    for width, tone in ((thickness + 2, "white"), (thickness, shades)):
        ax.add_collection(LineCollection(bars, colors=tone, linewidths=width, capstyle="round", zorder=2))
    if len(spans) <= NAMES:
        for node, (start, _) in spans.items():
            ax.annotate(
                str(node),
                (scale * start, height[node]),
                xytext=(0, thickness / 2 + 3.5),
                textcoords="offset points",
                fontsize=7.5,
                color="#333333",
                zorder=3,
                path_effects=[withStroke(linewidth=2, foreground="white")],
            )

    ax.set_xlim(-0.02 * whole * scale, 1.04 * whole * scale)
    ax.set_ylim(-0.55, 0.55)
    ax.set_yticks([])
    for side in ("left", "top", "right"):
        ax.spines[side].set_visible(False)
    ax.set_xlabel(f"time since the first start ({unit})")
    skipped = len(rows) - len(ran)
    missing = f", {skipped} did not run" if skipped else ""
    ax.set_title(f"{len(ran)} tasks on {len(engines)} engines{missing}", loc="left", fontsize=11, color="#333333")
    ax.legend(
        handles=[Line2D([], [], color=colour[engine], linewidth=6, label=f"engine {engine}") for engine in engines],
        loc="upper left",
        bbox_to_anchor=(0, -0.08),
        ncols=8,
        frameon=False,
        fontsize=9,
    )
    return ax
