"""Graphs of tasks: a node is a call, an edge says that one comes after another.

The controller does the waiting (`core/dependencies.py`): all nodes are submitted at once, predecessors first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, NamedTuple

from ...ids import EngineId, TaskId
from ...messages import GraphDependency, TaskDone, TaskOptions, TaskSpec
from ...wire.input_cache import ResultOf
from ..views.result_args import inputs_of, pickled_call
from .metadata import instant
from .parts import Part
from .result import AsyncResult

if TYPE_CHECKING:
    from ..connection.channel import Outgoing
    from ..views.balanced import LoadBalancedView

Node = Hashable
#: node → its predecessors
Predecessors = dict[Any, list[Any]]
#: what a node does: (function, args, kwargs)
Work = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]

#: Of many nodes, this many are named in a message.
NAMED = 5

_ANY = EngineId(-1)


def run_graph(view: LoadBalancedView, graph: Any, tasks: Mapping[Any, Any] | None, pass_results: bool) -> GraphResult:
    """Submit a graph of tasks through a view: see `LoadBalancedView.run_graph`."""
    before = predecessors_of(graph)
    order = in_order(before)
    work = work_of(graph, before, tasks or {})
    channel = view.client._channel
    if order and not channel.engines and not channel.starting:
        raise view._no_engines()
    ids = {node: channel.new_id() for node in order}
    whole = AsyncResult(
        view.client, list(ids.values()), single=False, name="graph", submitted=time.time(), label=view.label
    )
    batch = [(_outgoing(view, ids, before[node], work[node], ids[node], pass_results), whole) for node in order]
    view.history += whole._ids
    channel.submit(batch)
    return GraphResult(ids, {node: before[node] for node in order}, whole)


def _outgoing(
    view: LoadBalancedView, ids: Mapping[Any, TaskId], before: Sequence[Any], work: Work, id: TaskId, pass_results: bool
) -> Outgoing:
    function, args, kwargs = work
    first = tuple([ids[node] for node in before])
    if pass_results:
        args = (*[ResultOf((predecessor,), single=True) for predecessor in first], *args)
    pickled = view._function(function)
    payload, frames, results = pickled_call(args, kwargs)
    if frames:
        view.client._check_size(frames)
    options: TaskOptions | None = view._task_options()
    if first and pass_results:
        options = view._changed(options, inputs=(*first, *inputs_of(results, view.client)))
    else:
        if first:
            options = view._changed(options, after=GraphDependency(first))
        if results:
            options = view._changed(options, inputs=inputs_of(results, view.client))
    return TaskSpec(id, pickled.digest, payload, time.time(), _ANY, (), options), pickled, frames


# ---------------------------------------------------------------------------------------------- reading graphs


def predecessors_of(graph: Any) -> Predecessors:
    """The nodes of a graph, each with its predecessors, in the graph's order.

    Raises
    ------
    TypeError
        It is neither a directed graph of networkx nor a mapping.
    """
    if hasattr(graph, "nodes") and hasattr(graph, "predecessors"):
        return {node: list(graph.predecessors(node)) for node in graph.nodes}
    if hasattr(graph, "nodes") and hasattr(graph, "neighbors"):
        raise TypeError(f"{graph} has no directions, so nothing in it comes before another: give a DiGraph")
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
    """The nodes, each behind its predecessors.

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


# ---------------------------------------------------------------------------------------------- results


class Ran(NamedTuple):
    """Where and when a node ran; None: it did not, because one it depends on has failed."""

    node: Any
    engine: int | None
    started: datetime | None
    completed: datetime | None


class GraphResult(Mapping[Any, AsyncResult]):
    """The results of a graph of tasks: node → AsyncResult. Not made by hand: `LoadBalancedView.run_graph` gives it."""

    def __init__(self, ids: dict[Any, TaskId], before: Predecessors, whole: AsyncResult) -> None:
        self._ids = ids
        self._before = before
        self._whole = whole
        self._parts: dict[Any, AsyncResult] = {}

    def __getitem__(self, node: Any) -> AsyncResult:
        part = self._parts.get(node)
        if part is None:
            part = self._parts[node] = Part(self._whole, self._ids[node])
        return part

    def __iter__(self) -> Iterator[Any]:
        """The nodes, each behind its predecessors."""
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def msg_ids(self) -> list[TaskId]:
        """The tasks' ids, in the order of the nodes."""
        return list(self._ids.values())

    # ------------------------------------------------------------------------------------------ waiting and values

    def get(  # type: ignore[override]  # of an AsyncResult, not of a dict
        self, timeout: float | None = None, return_exceptions: bool | None = None
    ) -> dict[Any, Any]:
        """Values by node.

        Parameters
        ----------
        timeout : float, optional
            Seconds; None or negative: no limit.
        return_exceptions : bool, optional
            Put errors in the place of values instead of raising them.

        Raises
        ------
        TimeoutError
            Not ready in time. The tasks go on.
        RemoteError, CompositeError, ImpossibleDependency …
            Of the tasks that failed. What comes after a task that failed is impossible.
        """
        values = self._whole.get(timeout, return_exceptions)
        return dict(zip(self._ids, values, strict=True))

    def wait(self, timeout: float | None = -1) -> bool:
        """Wait until all have ended; returns whether they have."""
        return bool(self._whole.wait(timeout))

    def ready(self) -> bool:
        """Whether all have ended."""
        return self._whole.done()

    def successful(self) -> bool:
        """Whether none has failed.

        Raises
        ------
        RuntimeError
            Not ready yet.
        """
        return self._whole.successful()

    @property
    def progress(self) -> int:
        """How many have ended."""
        return self._whole.progress

    def abort(self) -> None:
        """End what has not started."""
        self._whole.abort()

    def cancel(self) -> bool:
        """Have all of it ended: see `AsyncResult.cancel`."""
        return self._whole.cancel()

    # ------------------------------------------------------------------------------------------ what has happened

    def check(self) -> int:
        """Compare the recorded times with the edges; returns how many edges were compared.

        Times are those of the engines' clocks: between hosts whose clocks differ, so do they.

        Raises
        ------
        AssertionError
            A task began before one it comes after had ended; the message names the edge.
        RuntimeError
            Not ready yet.
        """
        if not self.ready():
            raise RuntimeError(f"{self!r} is not ready: its times are known at the end")
        outcomes, compared = self._outcomes(), 0
        for node, done in outcomes.items():
            if done is None or done.started is None:
                continue
            for before in self._before[node]:
                first = outcomes[before]
                compared += 1
                if first is None or first.started is None:
                    raise AssertionError(f"{before} → {node}: {node} ran, and {before} did not")
                if done.started < first.completed:
                    early = first.completed - done.started
                    raise AssertionError(f"{before} → {node}: {node} began {early:.6f} s before {before} had ended")
        return compared

    def timeline(self) -> list[Ran]:
        """Where and when each node ran, by the time it began; what did not run comes last."""
        rows = []
        for node, done in self._outcomes().items():
            if done is None or done.started is None:
                rows.append(Ran(node, None, None, None))
            else:
                rows.append(Ran(node, done.engine, instant(done.started), instant(done.completed)))
        return sorted(rows, key=lambda row: (row.started is None, row.started and row.started.timestamp()))

    def _outcomes(self) -> dict[Any, TaskDone | None]:
        found = {node: self._whole._outcomes.get(id) for node, id in self._ids.items()}
        return {node: done if isinstance(done, TaskDone) else None for node, done in found.items()}

    def draw(self, ax: Any = None) -> Any:
        """Draw the graph: a bar for each node, from its start to its end, in the colour of its engine.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where; default: a new figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            matplotlib is not installed: `pip install engineroom[graph]`.
        RuntimeError
            Not ready yet.
        """
        from .drawing import draw

        if not self.ready():
            raise RuntimeError(f"{self!r} is not ready: its times are known at the end")
        return draw(self.timeline(), self._before, ax)

    def __repr__(self) -> str:
        edges = sum(map(len, self._before.values()))
        state = "finished" if self.ready() else f"pending: {self.progress}/{len(self)}"
        return f"<GraphResult({len(self)} nodes, {edges} edges): {state}>"
