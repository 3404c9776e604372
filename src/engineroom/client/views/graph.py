"""Graphs of tasks: a node is a call, an edge says that one call comes after another.

Here a graph is read and checked. `LoadBalancedView.run_graph` submits all its nodes at once; the controller decides
when each may run (`core/dependencies.py`). The results are in `results/graph_result.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

#: node → its predecessors
Predecessors = dict[Any, list[Any]]
#: what a node does: (function, args, kwargs)
Work = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]

#: Of many nodes, this many are named in a message.
NAMED = 5

# ---------------------------------------------------------------------------------------------- reading graphs


def predecessors_of(graph: Any) -> Predecessors:
    """The nodes of a graph, each with its predecessors, in the graph's order.

    Raises
    ------
    TypeError
        The graph is neither a directed graph of networkx nor a mapping.
    """
    if hasattr(graph, "nodes") and hasattr(graph, "predecessors"):
        return {node: list(graph.predecessors(node)) for node in graph.nodes}
    if hasattr(graph, "nodes") and hasattr(graph, "neighbors"):
        raise TypeError(f"{graph} has no directions, so no node comes before another: give a DiGraph")
    if not isinstance(graph, Mapping):
        raise TypeError(
            f"a graph is a networkx.DiGraph, or a dict of nodes and lists of their predecessors; got {graph!r}"
        )
    before: Predecessors = {}
    for node, predecessors in graph.items():
        if isinstance(predecessors, str | bytes) or not isinstance(predecessors, Iterable):
            raise TypeError(f"the predecessors of {node!r} are given as a list; got {predecessors!r}")
        before[node] = list(dict.fromkeys(predecessors))
    for predecessors in list(before.values()):
        for node in predecessors:
            before.setdefault(node, [])
    return before


def in_order(before: Predecessors) -> list[Any]:
    """The nodes in an order in which predecessors come first.

    Raises
    ------
    ValueError
        There is a cycle; the message names it.
    """
    try:
        return list(TopologicalSorter(before).static_order())
    except CycleError as error:
        cycle = " → ".join(map(str, error.args[1]))
        raise ValueError(f"the graph has a cycle, so nothing in it could begin: {cycle}") from None


def work_of(graph: Any, before: Predecessors, tasks: Mapping[Any, Any]) -> dict[Any, Work]:
    """What each node does.

    Raises
    ------
    ValueError
        Nodes have nothing to do, or tasks have no node; the message names them.
    TypeError
        A task is not a function, nor a tuple that begins with one.
    """
    if not isinstance(tasks, Mapping):
        raise TypeError(f"tasks is a dict of nodes and what they call, {{node: (f, args)}}; got {tasks!r:.60}")
    strangers = [node for node in tasks if node not in before]
    if strangers:
        raise ValueError(f"tasks are given for what is no node of the graph: {_named(strangers)}")
    attributes: Any = graph.nodes if hasattr(graph, "nodes") else {}
    work, idle = {}, []
    for node in before:
        task = tasks[node] if node in tasks else attributes[node].get("task") if attributes else None
        if task is None:
            task = node
            if not callable(node):
                idle.append(node)
                continue
        work[node] = _work(node, task)
    if idle:
        raise ValueError(
            f"these nodes have nothing to do: {_named(idle)}. Give tasks={{node: (f, args)}}, a node attribute 'task', "
            "or functions as nodes"
        )
    return work


def _work(node: Any, task: Any) -> Work:
    defaults: tuple[Any, ...] = (None, (), {})
    given = task if isinstance(task, tuple) and 1 <= len(task) <= 3 else (task,)
    function, args, kwargs = *given, *defaults[len(given) :]
    fits = isinstance(args, Iterable) and not isinstance(args, str | bytes | Mapping) and isinstance(kwargs, Mapping)
    if not callable(function) or not fits:
        raise TypeError(f"the task of {node!r} is f, (f, args) or (f, args, kwargs); got {task!r}")
    return function, tuple(args), kwargs


def _named(nodes: Sequence[Any]) -> str:
    names = ", ".join(map(str, nodes[:NAMED]))
    return f"{names} and {len(nodes) - NAMED:,} more" if len(nodes) > NAMED else names


