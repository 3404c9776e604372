"""The results of a graph of tasks: node → AsyncResult. Submitting one is in `views/graph.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ... import markup
from ...config import check_optional_switches
from ...ids import TaskId
from ...messages import TaskDone
from ..pictures.graph import GraphPicture
from ..pictures.timeline import Timeline
from .drawing import draw
from .edge_check import check_order
from .result import AsyncResult, ResultPart


class GraphResult(Mapping[Any, AsyncResult]):
    """The results of a graph of tasks: node → AsyncResult. `LoadBalancedView.run_graph` returns it."""

    def __init__(self, ids: dict[Any, TaskId], predecessors: Mapping[Any, Sequence[Any]], whole: AsyncResult) -> None:
        self._ids = ids
        self._before = predecessors
        self._whole = whole
        self._parts: dict[Any, AsyncResult] = {}

    def __getitem__(self, node: Any) -> AsyncResult:
        part = self._parts.get(node)
        if part is None:
            part = self._parts[node] = ResultPart(self._whole, self._ids[node])
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
            Of the tasks that failed. A task whose predecessor failed is impossible.
        """
        check_optional_switches(return_exceptions=return_exceptions)
        values = self._whole.get(timeout, return_exceptions)
        return dict(zip(self._ids, values, strict=True))

    def wait(self, timeout: float | None = -1) -> bool:
        """Wait until all have ended; returns whether they have."""
        return bool(self._whole.wait(timeout))

    async def get_async(
        self, timeout: float | None = None, return_exceptions: bool | None = None, *, cancel: bool = False
    ) -> dict[Any, Any]:
        """`get` for coroutines: see `AsyncResult.get_async`."""
        check_optional_switches(return_exceptions=return_exceptions)
        values = await self._whole.get_async(timeout, return_exceptions, cancel=cancel)
        return dict(zip(self._ids, values, strict=True))

    def __await__(self) -> Any:
        """`await graph_result` is `get()` for coroutines."""
        return self.get_async().__await__()

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
        """End the tasks that have not started."""
        self._whole.abort()

    def cancel(self) -> bool:
        """End all tasks, also those that are running: see `AsyncResult.cancel`."""
        return self._whole.cancel()

    # ------------------------------------------------------------------------------------------ what has happened

    def check(self) -> int:
        """Compare the recorded times with the edges; returns how many edges were compared.

        Times are those of the engines' hosts: where clocks differ, tasks may seem to overlap.

        Raises
        ------
        AssertionError
            A task began before its predecessor had ended; the message names the edge.
        RuntimeError
            Not ready yet.
        """
        if not self.ready():
            raise RuntimeError(f"{self!r} is not ready: its times are known at the end")
        return check_order(self._reports(), self._before)

    def timeline(self) -> Timeline:
        """Where and when each node ran, by start: rows of type `Ran`. Nodes that did not run come last.

        A notebook shows it as a picture: a row for each engine. `save("….svg")` writes that to a file.
        """
        rows = (self._whole._ran(id)._replace(node=node, function=None) for node, id in self._ids.items())
        return Timeline(rows, now=datetime.now(UTC), named=True)

    def picture(self) -> GraphPicture:
        """The graph as a picture: nodes in layers, from left to right, in the colours of their states.

        A notebook shows it, and shows it for the GraphResult itself, too. `save("….svg")` writes it to a file.
        """
        states = {node: self._whole._ran(id).state for node, id in self._ids.items()}
        return GraphPicture(self._before, states)

    def _reports(self) -> dict[Any, TaskDone | None]:
        found = {node: self._whole._outcomes.get(id) for node, id in self._ids.items()}
        return {node: done if isinstance(done, TaskDone) else None for node, done in found.items()}

    def draw(self, ax: Any = None) -> Any:
        """Draw the graph: a bar for each node, from its start to its end, in the colour of its engine.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            matplotlib or networkx is not installed: `pip install engineroom[graph]`.
        RuntimeError
            Not ready yet.
        """
        if not self.ready():
            raise RuntimeError(f"{self!r} is not ready: its times are known at the end")
        return draw(self.timeline(), self._before, ax)

    def _repr_html_(self) -> str:
        from .shown import result_html

        whole = self._whole
        elapsed = None if whole._submitted is None else f"{whole.elapsed:.3g} s"
        facts = [("label", whole.label), ("elapsed", elapsed)]
        told = result_html(whole._ids, whole._outcomes, facts, "GraphResult", "task", whole.progress, len(self))
        return markup.block(markup.Html(told), markup.Html(self.picture()._repr_html_()))

    def __repr__(self) -> str:
        edges = sum(map(len, self._before.values()))
        state = "finished" if self.ready() else f"pending: {self.progress}/{len(self)}"
        return f"<GraphResult({len(self)} nodes, {edges} edges): {state}>"
