"""Graphs of tasks on real engines: submitted at once, run in order, checked by their times."""

from __future__ import annotations

import itertools
import operator
import random
import time

import networkx
import pytest

import engineroom as er


def add(*parts):
    return sum(parts)


def fail():
    raise ValueError("no")


def test_nodes_run_after_their_predecessors(lb):
    graph = {"d": ["b", "c"], "b": ["a"], "c": ["a"]}
    done = lb.run_graph(graph, {node: (time.sleep, [0.02]) for node in "abcd"})
    assert isinstance(done, er.GraphResult)
    assert done.get(60) == dict.fromkeys("abcd")
    assert done.successful()
    assert done.check() == 4
    rows = done.timeline()
    assert [rows[0].node, rows[-1].node] == ["a", "d"]
    assert {row.engine for row in rows} <= {0, 1}
    assert all(row.completed >= row.started for row in rows)
    assert lb.history[-4:] == done.msg_ids


def test_a_graph_of_networkx_with_its_own_tasks(lb):
    graph = networkx.DiGraph()
    for node in range(5):
        graph.add_node(node, task=(operator.mul, (node, 10)))
    graph.add_edges_from(itertools.pairwise(range(5)))
    done = lb.run_graph(graph)
    assert done.get(60) == {node: 10 * node for node in range(5)}
    assert done.check() == 4


def test_results_are_passed_on_in_the_order_of_the_graph(lb):
    outside = lb.apply_async(abs, -100)
    tasks = {
        "one": (abs, [-1]),
        "two": (abs, [-2]),
        "minus": operator.sub,
        "all": (add, [1000, outside]),
        "named": (dict, (), {"a": 5}),
    }
    done = lb.run_graph({"minus": ["two", "one"], "all": ["minus", "two"], "named": []}, tasks, pass_results=True)
    assert done.get(60) == {"one": 1, "two": 2, "minus": 1, "all": 1103, "named": {"a": 5}}
    assert done["all"].get() == 1103
    assert done.check() == 4


def test_it_is_a_mapping_of_nodes_to_results(lb):
    done = lb.run_graph({"b": ["a"]}, {"a": time.time, "b": time.time})
    assert list(done) == ["a", "b"]
    assert len(done) == 2
    assert "b" in done
    assert "c" not in done
    assert isinstance(done["a"], er.AsyncResult)
    assert done["a"] is done["a"]
    assert {node: result.get(60) for node, result in done.items()} == done.get()
    with pytest.raises(KeyError):
        done["c"]
    assert done.wait(60)
    assert done.ready()
    assert repr(done) == "<GraphResult(2 nodes, 1 edges): finished>"


def test_its_results_are_arguments_and_dependencies_like_any(lb):
    done = lb.run_graph({"b": ["a"]}, {"a": (abs, [-1]), "b": (abs, [-2])})
    assert lb.apply_sync(operator.add, done["a"], done["b"]) == 3
    assert lb.apply_with_flags(abs, (-3,), after=done["b"]).get(60) == 3
    assert lb.client.wait(done, 10)
    assert lb.client.get_result(done).get(60) == [1, 2]
    assert [explanation.state for explanation in lb.client.explain(done)] == ["ended", "ended"]


def test_what_comes_after_a_failure_is_impossible_and_the_rest_runs(lb):
    done = lb.run_graph(
        {"b": ["a"], "c": ["b"], "x": []}, {"a": fail, "b": time.time, "c": time.time, "x": (abs, [-1])}
    )
    with pytest.raises(er.CompositeError) as caught:
        done.get(60)
    assert [entry[0] for entry in caught.value.elist] == ["ValueError", "ImpossibleDependency", "ImpossibleDependency"]
    assert done["x"].get() == 1
    assert not done.successful()
    assert done.check() == 0
    assert [row.node for row in done.timeline() if row.started is None] == ["b", "c"]
    values = done.get(return_exceptions=True)
    assert isinstance(values["c"], er.ImpossibleDependency)


def test_flags_of_the_view_hold_for_every_node(rc):
    view = rc.load_balanced_view(targets=1, label="graph")
    first = rc.load_balanced_view(targets=0).apply_async(time.sleep, 0.05)
    with view.temp_flags(after=first):
        done = view.run_graph({"b": ["a"]}, {"a": time.time, "b": time.time})
    assert done.wait(60)
    assert [row.engine for row in done.timeline()] == [1, 1]
    assert done.timeline()[0].started >= first.completed
    assert rc.db_count({"label": "graph", "msg_id": {"$in": done.msg_ids}}) == 2


def test_a_graph_is_cancelled_as_a_whole(lb):
    done = lb.run_graph({"b": ["a"], "c": ["b"]}, {node: (time.sleep, [60]) for node in "abc"})
    with pytest.raises(RuntimeError, match="not ready"):
        done.check()
    with pytest.raises(er.TimeoutError):
        done.get(timeout=0.01)
    assert done.cancel() is True
    assert done.wait(60)
    assert not done.successful()
    assert done.cancel() is False


def test_a_mistake_submits_nothing(rc, lb):
    before = len(rc.history)
    for graph, tasks, error in (
        ({"a": ["b"], "b": ["a"]}, {"a": abs, "b": abs}, ValueError),
        ({"a": ["b"]}, {"a": abs}, ValueError),
        ({"a": []}, {"a": 5}, TypeError),
        ({"a": []}, {"a": (abs, [(x for x in ())])}, er.SerializationError),
    ):
        with pytest.raises(error):
            lb.run_graph(graph, tasks)
    assert len(rc.history) == before
    assert lb.run_graph({}).get(1) == {}


def test_an_edge_that_was_not_kept_is_named(lb):
    done = lb.run_graph({"b": ["a"]}, {"a": time.time, "b": time.time})
    done.wait(60)
    done._before = {"a": ["b"], "b": []}
    with pytest.raises(AssertionError, match=r"b → a: a began .* before b had ended"):
        done.check()


def test_random_graphs_keep_their_edges(lb):
    rng = random.Random(1)
    graph = {n: [m for m in range(n) if rng.random() < 3 / (n + 1)] for n in range(300)}
    done = lb.run_graph(graph, dict.fromkeys(graph, time.time))
    assert done.wait(60)
    assert done.check() == sum(map(len, graph.values()))
    sums = lb.run_graph(graph, {n: (add, [1]) for n in graph}, pass_results=True).get(60)
    for node, predecessors in graph.items():
        assert sums[node] == 1 + sum(sums[p] for p in predecessors)


@pytest.mark.slow
def test_a_large_graph_is_one_call(lb):
    rng = random.Random(2)
    count = 20_000
    graph = {n: list({n - 1 - rng.randrange(50) for _ in range(3)} - set(range(-60, 0))) for n in range(count)}
    done = lb.run_graph(graph, {n: (abs, [-n]) for n in graph})
    assert done.get(60) == {n: n for n in graph}
    assert done.check() > 2 * count
