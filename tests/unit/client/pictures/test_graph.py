"""Pictures of graphs: boxes, dots, and columns of gathered nodes. No cluster."""

from __future__ import annotations

import pytest

from engineroom.client.pictures import graph
from engineroom.client.pictures.graph import GraphPicture

from .looking import root_of, texts, titles


def test_a_small_graph_has_its_nodes_by_name_and_by_state():
    before = {"read": [], "count": ["read"], "sort": ["read"], "report": ["count", "sort", "read"]}
    picture = GraphPicture(before, dict(zip(before, ("completed", "failed", "running", "pending"), strict=True)))
    assert {"read", "count", "sort", "report", "completed", "failed", "running", "pending"} <= set(texts(picture))
    assert "count\nfailed" in titles(picture)
    assert repr(picture).startswith("<GraphPicture: 4 nodes, 5 edges, 1 completed, 1 running, 1 failed, 1 pending.")


def test_layers_are_depths():
    before = {"a": [], "b": ["a"], "c": ["b", "a"], "d": []}
    assert [set(layer) for layer in graph.layers_of(before)] == [{"a", "d"}, {"b"}, {"c"}]


def test_nodes_stand_near_their_predecessors():
    before = {i: [] for i in range(4)} | {10 - i: [i] for i in range(4)}
    assert graph.layers_of(before)[1] == [10, 9, 8, 7]


@pytest.mark.parametrize(
    "before",
    [
        {},
        {0: []},
        {i: [i - 1] if i else [] for i in range(5000)},
        {i: [] for i in range(5000)},
        {i: list(range(max(0, i - 20), i)) for i in range(200)},
    ],
    ids=["empty", "one", "chain", "alone", "dense"],
)
def test_graphs_of_any_shape_are_small_pictures(before):
    picture = GraphPicture(before, dict.fromkeys(before, "completed"))
    root_of(picture)
    assert len(picture.svg()) < 100_000


def test_a_large_graph_is_gathered_and_counts_every_node():
    before = {(layer, i): [(layer - 1, i)] if layer else [] for layer in range(3) for i in range(500)}
    states = {node: "failed" if node == (1, 7) else "completed" for node in before}
    picture = GraphPicture(before, states)
    assert texts(picture).count("500") == 3
    assert "layer 1, 499 completed, 1 failed" in titles(picture)
    assert "500 edges" in titles(picture)
