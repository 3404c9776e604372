"""Reading graphs of tasks: nodes, edges, what each node does, and what is wrong. No cluster."""

from __future__ import annotations

import networkx
import pytest

from engineroom.client.views.graph import in_order, predecessors_of, work_of


def test_a_mapping_names_the_predecessors_of_each_node():
    before = predecessors_of({"sum": ["a", "b"], "b": {"a"}, "a": ()})
    assert before == {"sum": ["a", "b"], "b": ["a"], "a": []}
    assert in_order(before) == ["a", "b", "sum"]


def test_predecessors_need_no_entry_of_their_own():
    assert predecessors_of({"sum": ["a", "b", "a"]}) == {"sum": ["a", "b"], "a": [], "b": []}


def test_a_graph_of_networkx_gives_its_edges():
    graph = networkx.DiGraph([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])
    graph.add_node("alone")
    before = predecessors_of(graph)
    assert before == {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "alone": []}
    several = networkx.MultiDiGraph([("a", "b"), ("a", "b")])
    assert predecessors_of(several) == {"a": [], "b": ["a"]}


def test_a_graph_without_directions_is_refused():
    with pytest.raises(TypeError, match="give a DiGraph"):
        predecessors_of(networkx.Graph([("a", "b")]))


@pytest.mark.parametrize("bad", [5, None, [("a", "b")], "ab"])
def test_what_is_no_graph_is_refused(bad):
    with pytest.raises(TypeError, match=r"networkx\.DiGraph, or a dict"):
        predecessors_of(bad)


@pytest.mark.parametrize("bad", ["ab", 5, None])
def test_predecessors_come_as_a_list(bad):
    with pytest.raises(TypeError, match="predecessors of 'c' are given as a list"):
        predecessors_of({"c": bad})


def test_a_cycle_is_named():
    with pytest.raises(ValueError, match=r"cycle.*: (a → b → c → a|b → c → a → b|c → a → b → c)$"):
        in_order({"a": ["c"], "b": ["a"], "c": ["b"], "d": []})
    with pytest.raises(ValueError, match="a → a"):
        in_order({"a": ["a"]})


def test_a_node_does_what_its_task_its_attribute_or_itself_says():
    graph = networkx.DiGraph()
    graph.add_node("given")
    graph.add_node("attribute", task=(pow, (2, 3)))
    graph.add_node(len)
    work = work_of(graph, predecessors_of(graph), {"given": (round, [2.5], {"ndigits": 1})})
    assert work == {"given": (round, (2.5,), {"ndigits": 1}), "attribute": (pow, (2, 3), {}), len: (len, (), {})}


@pytest.mark.parametrize("task", [abs, (abs,), (abs, ()), (abs, [], {})])
def test_a_task_is_a_function_with_or_without_arguments(task):
    assert work_of({}, {"a": []}, {"a": task}) == {"a": (abs, (), {})}


@pytest.mark.parametrize("task", [5, (), (5, ()), (abs, 5), (abs, "x"), (abs, (), 5), (abs, (), {}, 1), [abs, ()]])
def test_a_task_that_is_something_else_is_refused(task):
    with pytest.raises(TypeError, match=r"the task of 'a' is f, \(f, args\) or \(f, args, kwargs\)"):
        work_of({}, {"a": []}, {"a": task})


def test_nodes_with_nothing_to_do_are_named():
    with pytest.raises(ValueError, match="nothing to do: b, c"):
        work_of({}, {"a": [], "b": ["a"], "c": []}, {"a": abs})
    with pytest.raises(ValueError, match="n0, n1, n2, n3, n4 and 95 more"):
        work_of({}, {f"n{number}": [] for number in range(100)}, {})


def test_tasks_without_a_node_are_named():
    with pytest.raises(ValueError, match="no node of the graph: typo"):
        work_of({}, {"a": []}, {"a": abs, "typo": abs})


def test_a_hundred_thousand_nodes_are_read_in_order():
    count = 100_000
    before = predecessors_of({n: [m for m in (n - 1, n // 2, n // 3) if 0 <= m < n] for n in range(count)})
    place = {node: index for index, node in enumerate(in_order(before))}
    assert len(place) == count
    assert all(place[p] < place[node] for node, predecessors in before.items() for p in predecessors)
