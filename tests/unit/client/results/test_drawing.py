"""The picture of a graph that has run. No cluster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("networkx")
matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402

from engineroom.client.pictures.timeline import Ran  # noqa: E402
from engineroom.client.results.drawing import draw, heights  # noqa: E402


def test_nodes_of_one_depth_are_spread_and_successors_of_one_node_kept_together():
    before = {"a": [], "b": [], "a1": ["a"], "b1": ["b"], "a2": ["a"], "b2": ["b"], "end": ["a1", "a2", "b1", "b2"]}
    height = heights(before)
    assert height["end"] == 0
    assert len({height[node] for node in ("a1", "a2", "b1", "b2")}) == 4
    assert all(-0.5 <= h <= 0.5 for h in height.values())
    assert (max(height["a1"], height["a2"]) < min(height["b1"], height["b2"])) == (height["a"] < height["b"])


@pytest.mark.parametrize("before", [{}, {"alone": []}, {"a": [], "b": ["a"], "c": ["b"]}])
def test_small_graphs_have_heights_too(before):
    assert heights(before) == dict.fromkeys(before, 0)


def test_the_picture_has_a_bar_for_each_task_and_a_curve_for_each_edge():
    begin = datetime.now(UTC)
    rows = [
        Ran(node, engine, begin + timedelta(seconds=start), begin + timedelta(seconds=start + 1))
        for node, engine, start in (("a", 0, 0), ("b", 1, 1), ("c", 0, 1))
    ]
    ax = draw([*rows, Ran("lost", None, None, None)], {"a": [], "b": ["a"], "c": ["a"], "lost": ["c"]})
    edges, _, bars = ax.collections
    assert len(edges.get_segments()) == 2
    assert len(bars.get_segments()) == 3
    assert "3 tasks on 2 engines, 1 did not run" in ax.get_title(loc="left")
    pyplot.close(ax.figure)
