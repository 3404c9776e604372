"""The load-balanced view: the scheduler picks an engine for each task."""

from __future__ import annotations

import functools
import itertools
import operator
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from ...config import check_switches
from ...errors import ConfigError
from ...ids import EngineId, TaskId
from ...messages import Function, GraphDependency, TaskOptions, TaskSpec
from ...on_engine import task_context
from ...on_engine.functional_dependency import dependent
from ...on_engine.random_streams import Seeded, seeded
from ...wire import short_repr
from ...wire.input_cache import ResultOf
from ...wire.parts import Part
from ...wire.payload import NO_ARGUMENTS, once
from ..connection.submission import Outgoing
from ..records.query_args import plain_label
from ..results.arguments import pickled_call, pickled_items
from ..results.chunks import ChunkPlan
from ..results.graph_result import GraphResult
from ..results.map_result import AsyncMapResult, GrowingMapResult, LazyMapIterator
from ..results.partition import as_columns, check_items, split, unchanging
from ..results.result import AsyncResult
from ..waiting.waits import Need, any_done
from . import flags
from .base import FUNCTIONS, TICK, View, ViewClient, check_callable, replaced, resolve_reference
from .cache_key import cache_key, with_needs
from .constants import with_constants
from .dependency import Dependency, dependency_flag, graph_dependency
from .graph import Work, in_order, predecessors_of, work_of
from .item_options import check_one_task_per_item, options_of_items
from .result_args import inputs_of

#: A map of at most this many items is one task per item: each has its own record, result and retries.
SINGLES = 1000

_ANY = EngineId(-1)


class LoadBalancedView(View):
    """The scheduler gives each task to an engine: to the one that has least to do, unless flags say otherwise.

    Attributes
    ----------
    after, follow : Dependency or None
        `after`: a task may run once these tasks have ended. `follow`: it runs on an engine on which one of these ran.
        Set to an AsyncResult, a msg_id, or a list of those.
    timeout : float or None
        Seconds within which both must be met, from the submission on; None: no limit.
    priority : int
        Higher ones go first.
    resources : dict or None
        How much of each named resource the engine must have: `{"gpu": 1}`.
    run_timeout : float or None
        Seconds an attempt may run before it is stopped; None: no limit.
    at_most_once : bool
        Never start a task again that may have been started, whatever dies: it ends with an EngineError.
    scheme : str or None
        The scheme that chooses engines; None: the controller's.
    cache : bool
        Answer a call from the database if an equal one, made under this flag, has succeeded before.
    """

    FLAGS: ClassVar[dict[str, str]] = {
        **View.FLAGS,
        "after": "tasks that must have ended before",
        "follow": "tasks on whose engines to run",
        "timeout": "seconds for dependencies to be met",
        "priority": "higher ones go first",
        "resources": "how much of each named resource the engine must have",
        "scheme": "who chooses engines",
        "cache": "answer calls from the database if equal ones have succeeded before",
    }

    def __init__(self, client: ViewClient, targets: Any = None, **given: Any) -> None:
        self._restricted_to: tuple[EngineId, ...] | None = None
        self.after: Dependency | None = None
        self.follow: Dependency | None = None
        self.timeout: float | None = None
        self.priority = 0
        self.resources: dict[str, int] | None = None
        self.scheme: str | None = None
        self.cache = False
        self._has_warned = False
        super().__init__(client, targets, **given)

    def _checked_flag(self, name: str, value: Any) -> Any:
        if name == "targets":
            if value is None or value == "all":
                self._restricted_to = None
                return None
            resolved = self._port.engines.resolve(value)
            if not resolved:
                raise ConfigError("targets name no engine: such a task could run nowhere")
            self._restricted_to = tuple(resolved)
            return resolved
        match name:
            case "after" | "follow":
                return dependency_flag(name, value)
            case "timeout":
                return flags.timeout(value)
            case "priority":
                return flags.whole("priority", value, "a whole number of at most 31 bits", 1 - (1 << 31))
            case "resources":
                return flags.resources(value)
            case "scheme":
                return flags.scheme(value)
            case "cache":
                if flags.yes_or_no("cache", value) and not self._port.keeps:
                    warnings.warn(
                        "cache=True has no effect: this controller keeps no task records (NoDB)", stacklevel=4
                    )
        return super()._checked_flag(name, value)

    def _options_of_flags(self) -> TaskOptions:
        return self._changed(
            super()._options_of_flags(),
            targets=self._restricted_to,
            after=graph_dependency(self.after, self._port),
            follow=graph_dependency(self.follow, self._port),
            timeout=self.timeout,
            priority=self.priority,
            resources=self.resources,
            scheme=self.scheme,
        )

    def _waiting_for(self, options: TaskOptions | None, results: Sequence[AsyncResult]) -> TaskOptions | None:
        """The options of a call that has these results among its arguments."""
        return self._changed(options, inputs=inputs_of(results, self._port)) if results else options

    def _comparable(
        self,
        options: TaskOptions | None,
        function: Any,
        pickled: Function,
        kind: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> TaskOptions:
        """The options of a call that may be answered from the database."""
        return replaced(options, cache=cache_key(options, function, pickled, kind, args, kwargs))

    def _check_timeout(self, options: TaskOptions, function: Any) -> None:
        """Say so, once, if the flag `timeout` has no effect: most likely `run_timeout` is meant."""
        waits = options.after or options.follow or options.inputs or options.run_timeout is not None
        if waits or isinstance(function, dependent) or self._has_warned:
            return
        self._has_warned = True
        warnings.warn(
            f"timeout={options.timeout:g} limits how long a task waits for the tasks that it depends on, and this task "
            f"depends on none. To limit how long it runs, set run_timeout={options.timeout:g}",
            stacklevel=5,
        )

    def _changed(self, options: TaskOptions | None, **changes: Any) -> TaskOptions:
        """The options with some changed. Raises ConfigError if the scheme cannot honour them."""
        changed = replaced(options, **changes)
        flags.check_pure(changed, self._channel.scheme)
        return changed

    def apply_with_flags(
        self, f: Callable[..., Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **given: Any
    ) -> Any:
        """`apply` with flags for this call alone."""
        with self.temp_flags(**given):
            return self._apply(f, tuple(args), {**(kwargs or {})}, self.block)

    def run_graph(
        self, graph: Any, tasks: Mapping[Any, Any] | None = None, *, pass_results: bool = False
    ) -> GraphResult:
        """Run a graph of tasks: each node once its predecessors have succeeded. All nodes are submitted at once.

        Parameters
        ----------
        graph : networkx.DiGraph or mapping
            An edge u → v means: v after u. A mapping names the predecessors of each node, as for `graphlib`.
        tasks : mapping, optional
            What each node does: `f`, `(f, args)` or `(f, args, kwargs)`. Default: the node's attribute `task`, or the
            node itself, if it can be called.
        pass_results : bool
            Call a node's function with the results of its predecessors, in the graph's order, before its own
            arguments. The results do not pass through the client.

        Returns
        -------
        GraphResult
            Node → AsyncResult.

        Raises
        ------
        ValueError
            There is a cycle, or a node has no task; the message names it.

        Examples
        --------
        >>> def total(*parts): return sum(parts)                                      # doctest: +SKIP
        >>> done = view.run_graph({"sum": ["a", "b"]}, {"a": (abs, [-1]), "b": (abs, [-2]), "sum": total},
        ...                       pass_results=True)                                  # doctest: +SKIP
        >>> done["sum"].get()                                                         # doctest: +SKIP
        3
        """
        check_switches(pass_results=pass_results)
        predecessors = predecessors_of(graph)
        order = in_order(predecessors)
        work = work_of(graph, predecessors, tasks or {})
        if order:
            self._port.engines.require()
        ids = {node: self._channel.new_id() for node in order}
        whole = AsyncResult(
            self._port, list(ids.values()), single=False, name="graph", submitted=time.time(), label=self.label
        )
        batch: list[Outgoing] = []
        for node in order:
            before = tuple([ids[predecessor] for predecessor in predecessors[node]])
            batch.append(self._graph_task(ids[node], work[node], before, pass_results))
        self._remember(whole._ids)
        self._send(batch, whole)
        return GraphResult(ids, {node: predecessors[node] for node in order}, whole)

    def _graph_task(self, id: TaskId, work: Work, before: tuple[TaskId, ...], pass_results: bool) -> Outgoing:
        """The task of a node; `before` are the tasks of its predecessors."""
        function, args, kwargs = work
        if pass_results:
            args = (*[ResultOf((predecessor,), single=True) for predecessor in before], *args)
        apart: list[memoryview] = []
        keep, pickled = self._port.keep(self.track), FUNCTIONS.get(function, apart)
        payload, frames, results = pickled_call(args, kwargs, keep=keep, files=self._port.files)
        frames = (*frames, *map(keep, apart))
        if frames:
            self._port.check_size(frames)
        options = self._task_options()
        if before and pass_results:
            options = self._changed(options, inputs=(*before, *inputs_of(results, self._port)))
        else:
            if before:
                options = self._changed(options, after=GraphDependency(before))
            options = self._waiting_for(options, results)
        text = short_repr.of_call(args, kwargs) if self._port.record_arguments else ""
        spec = TaskSpec(id, pickled.digest, payload, time.time(), _ANY, (), options, "apply", text)
        return spec, pickled, frames

    def _apply(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], block: bool) -> Any:
        if not block:
            return self._submit(function, args, kwargs, self._task_options())
        # The thread that waits sends the task, too. In an engine it does not: it runs other tasks meanwhile.
        return self._submit(function, args, kwargs, self._task_options(), waits=not task_context.may_wait()).get()

    def _submit(
        self,
        function: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: TaskOptions | None,
        *,
        waits: bool = False,
    ) -> AsyncResult:
        channel = self._channel
        if not channel.engines and not channel.starting:
            self._port.engines.require()
        if type(function).__name__ == "Reference":
            function, args = resolve_reference(function, args)
        elif not callable(function):
            check_callable(function)
        apart: list[memoryview] = []
        port, cache = self._port, self.cache
        pickled = FUNCTIONS.get(function, None if cache else apart)
        call = with_needs(args, kwargs) if cache else (args, kwargs)
        if args or kwargs:
            payload, frames, results = pickled_call(*call, keep=port.keep(self.track), files=port.files)
            text = short_repr.of_call(args, kwargs) if port.record_arguments else ""
            if results:
                options = self._waiting_for(options, results)
        else:
            payload, frames = NO_ARGUMENTS
            text = "()" if port.record_arguments else ""
        if apart:
            frames = (*frames, *map(port.keep(self.track), apart))
        if cache:
            options = self._comparable(options, function, pickled, "apply", args, kwargs)
        if options is not None and options.timeout is not None:
            self._check_timeout(options, function)
        now = time.time()
        if frames:
            port.check_size(frames)
        number = channel.next_number()
        id = channel.id_of(number)
        result = AsyncResult(port, (id,), name=getattr(function, "__name__", "task"), submitted=now)
        if options is not None:
            result._options, result.label = options, options.label
        self._remember_number(number)
        task = TaskSpec(id, pickled.digest, payload, now, _ANY, (), options, "apply", text), pickled, frames
        if self.track:
            self._send([task], result)
        else:
            channel.submit_one(task, result, waits=waits)
        return result

    def map(  # type: ignore[override]
        self,
        f: Callable[..., Any],
        /,
        *sequences: Any,
        block: bool | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        label: str | None = None,
        labels: Iterable[str | None] | None = None,
        metadata: Iterable[Mapping[str, Any]] | None = None,
        seed: Any = None,
    ) -> Any:
        """Call `f` on each item of the sequences (together, as the builtin `map` does).

        Parameters
        ----------
        *sequences : iterables
            Of equal length, or cut to the shortest.
        block : bool, optional
            Wait and give a list; default: the view's flag.
        chunksize : int, optional
            Items per task. Default: one, for up to 1,000 items, under the flag `cache`, and with `labels` or
            `metadata`; for more items, as many as take about a tenth of a second.
        ordered : bool
            With False, iterating the result gives items as they come.
        return_exceptions : bool
            Put errors in the place of items, instead of raising them.
        labels, metadata : lists, optional
            A label, and a dict, for the record of each item. Then each item is a task.
        seed : int, sequence of int, or numpy.random.SeedSequence, optional
            Each item draws random numbers of its own, from `er.task_rng()`, `random` and `numpy.random`. They depend
            on the seed and the item's index alone. Default: as the engine's generators are.

        Returns
        -------
        AsyncMapResult or list

        Raises
        ------
        ValueError
            `labels` or `metadata` has more entries than there are items, or fewer.
        """
        check_switches(ordered=ordered, return_exceptions=return_exceptions)
        check_callable(f)
        if not sequences:
            raise TypeError("map needs at least one sequence")
        if chunksize is not None:
            if not hasattr(chunksize, "__index__") or operator.index(chunksize) < 1:
                raise ValueError(f"chunksize is a number of items, 1 or more; got {chunksize!r}")
            chunksize = operator.index(chunksize)
        columns = as_columns(sequences)
        count = len(columns[0])
        self._port.engines.require()
        options = self._task_options()
        if label is not None:
            options = replaced(options, label=plain_label(label))
        each = options_of_items(options, labels, metadata, count)
        if each is not None:
            check_one_task_per_item(chunksize)
            chunksize = 1
        blocks = self._blocks(block)
        common: dict[str, Any] = {
            "name": getattr(f, "__name__", "map"),
            "submitted": time.time(),
            "label": label or self.label,
            "ordered": ordered,
            "return_exceptions": return_exceptions,
        }
        f = seeded(f, seed)
        result: AsyncMapResult
        growing = None
        if chunksize is None and count > SINGLES and not self.cache:
            growing = None if self.track else unchanging(columns)
            chunksize = -(-count // SINGLES)  # pickled at once, unless the rest of the items is sure not to change
        if growing is not None:
            plan = ChunkPlan(count, len(self._channel.engines))
            begin = 0

            def prepare(chunks: list[list[Sequence[Any]]]) -> tuple[list[TaskId], Callable[[AsyncResult], None]]:
                nonlocal begin
                first, begin = begin, begin + sum(len(columns[0]) for columns in chunks)
                return self._prepare_chunks(f, chunks, [options] * len(chunks), first)

            result = GrowingMapResult(self._port, prepare, growing, plan, options=options, **common)
        else:
            size = chunksize or 1
            chunks = [[column[start : start + size] for column in columns] for start in range(0, count, size)]
            ids, submit = self._prepare_chunks(f, chunks, each or [options] * len(chunks))
            sizes = {id: len(columns[0]) for id, columns in zip(ids, chunks, strict=True)} if size > 1 else None
            result = AsyncMapResult(self._port, ids, sizes=sizes, dist="b", **common)
            result._options = options
            if each is not None:
                result._each = dict(zip(ids, each, strict=True))
            submit(result)
        return result.get() if blocks else result

    def _prepare_chunks(
        self,
        f: Any,
        chunks: Sequence[Sequence[Sequence[Any]]],
        options: Sequence[TaskOptions | None],
        begin: int = 0,
    ) -> tuple[list[TaskId], Callable[[AsyncResult], None]]:
        """Pickle chunks of a map's items, each a list of columns of arguments; `options` has those of each chunk.

        `begin` is the number of the first item.

        Returns
        -------
        ids : list of str
            One task for each chunk.
        submit : callable
            Submits the tasks for a result. It pickles nothing, and does not wait.
        """
        f, extra = resolve_reference(f, ())
        if extra:
            chunks = [[[extra[0]] * len(columns[0]), *columns] for columns in chunks]
        if chunks and any(type(column) is range for column in chunks[0]):  # one item is pickled sooner than a range
            chunks = [[list(c) if type(c) is range and len(c) == 1 else c for c in columns] for columns in chunks]
        apart: list[memoryview] = []
        pickled, now = FUNCTIONS.get(f, None if self.cache else apart), time.time()
        tasks: list[Outgoing] = []
        files, keep = self._port.files, once(self._port.keep(self.track))
        of_function = tuple(map(keep, apart))
        sent = chunks if self.cache else with_constants(chunks, files=files)
        for columns, arguments, own in zip(chunks, sent, options, strict=True):
            call: Any = (tuple(arguments), {"first": begin} if begin else {})
            call = with_needs(*call) if self.cache else call
            payload, frames, results = pickled_items(call, columns, begin, keep=keep, files=files)
            frames = (*frames, *of_function)
            if frames:
                self._port.check_size(frames)
            task_options = self._waiting_for(own, results) if results else own
            if task_options is not None and task_options.timeout is not None:
                self._check_timeout(task_options, f)
            if self.cache:
                items = tuple(list(c) if type(c) in (range, tuple) else c for c in columns)  # the same to `f`
                where = {"first": begin} if isinstance(f, Seeded) else {}
                task_options = self._comparable(task_options, f, pickled, "chunk", items, where)
            text = short_repr.of_items(columns) if self._port.record_arguments else ""
            spec = TaskSpec(self._channel.new_id(), pickled.digest, payload, now, _ANY, (), task_options, "map", text)
            now += TICK
            tasks.append((spec, pickled, frames))
            begin += len(columns[0])
        ids = [spec.id for spec, _, _ in tasks]

        def submit(result: AsyncResult) -> None:
            self._remember(ids)
            self._send(tasks, result)

        return ids, submit

    def imap(
        self,
        f: Callable[..., Any],
        /,
        *sequences: Iterable[Any],
        ordered: bool = True,
        max_outstanding: int | str = "auto",
        return_exceptions: bool = False,
        seed: Any = None,
    ) -> LazyMapIterator:
        """Call `f` on each item lazily: items are read as results are taken, so the sequences may be endless.

        Parameters
        ----------
        ordered : bool
            With False, results come as they are ready.
        max_outstanding : int or "auto"
            Most tasks without an outcome at a time; "auto": 10 per engine; 0: no limit.
        seed : int, sequence of int, or numpy.random.SeedSequence, optional
            As for `map`.

        Returns
        -------
        LazyMapIterator
        """
        check_switches(ordered=ordered, return_exceptions=return_exceptions)
        check_callable(f)
        if not sequences:
            raise TypeError("imap needs at least one sequence")
        if max_outstanding != "auto" and (not isinstance(max_outstanding, int) or max_outstanding < 0):
            raise ValueError(f"max_outstanding is a number of tasks, 0 or more, or 'auto'; got {max_outstanding!r}")
        for sequence in sequences:
            check_items(sequence)
        items: Iterator[tuple[Any, ...]] = zip(*sequences, strict=False)
        return LazyMapIterator(
            self._lazily(seeded(f, seed), items, self._task_options(), ordered, max_outstanding),
            return_exceptions,
            self._port,
        )

    def _lazily(
        self,
        f: Any,
        items: Iterator[tuple[Any, ...]],
        options: TaskOptions | None,
        ordered: bool,
        limit: int | str,
    ) -> Iterator[Any]:
        """The entries of a `LazyMapIterator`, and a `Need` before what is not there."""
        most = max(1, 10 * len(self._port.engines)) if limit == "auto" else int(limit) or 1 << 60
        out: deque[AsyncResult] = deque()
        ready: list[AsyncResult] = []
        numbered = enumerate(items)
        while True:
            for index, arguments in itertools.islice(numbered, most - len(out)):
                out.append(self._submit_item(f, index, arguments, options))
            if not out:
                return
            if ordered:
                ready.append(out.popleft())
            else:
                waiting = list(out)
                yield Need(functools.partial(any_done, waiting), waiting)
                ready = [result for result in waiting if result.done()]
                out = deque(result for result in waiting if result not in ready)
            while ready:
                result = ready.pop(0)
                if not result.done():
                    yield Need(result.done, (result,))
                value = result._all_values()[0]
                yield value.value[0] if type(value) is Part else value

    def _submit_item(
        self, f: Any, index: int, arguments: tuple[Any, ...], options: TaskOptions | None
    ) -> AsyncResult:
        """Submit one item of an `imap`: a chunk of one item, as of `map`."""
        if not self._channel.engines and not self._channel.starting:
            self._port.engines.require()
        ids, submit = self._prepare_chunks(f, [[(argument,) for argument in arguments]], [options], index)
        result = AsyncResult(self._port, ids, name=getattr(f, "__name__", "map"), submitted=time.time())
        if options is not None:
            result._options, result.label = options, options.label
        submit(result)
        return result

    def _map_items(
        self, f: Callable[..., Any], sequences: Sequence[Any], ordered: bool, chunksize: int | None
    ) -> Any:
        return self.map(f, *sequences, ordered=ordered, chunksize=chunksize)

    def _call_on_parts(
        self, f: Callable[..., Any], sequences: Sequence[Any], dist: str, ordered: bool, chunksize: int | None
    ) -> Any:
        columns = as_columns(sequences, whole=True)
        length = len(columns[0])
        count = -(-length // chunksize) if chunksize else len(self)
        parts = [split(column, max(1, min(count, length)), dist) for column in columns]
        apart: list[memoryview] = []
        pickled, options = FUNCTIONS.get(f, None if self.cache else apart), self._task_options()
        began = now = time.time()
        tasks: list[Outgoing] = []
        keep = once(self._port.keep(self.track))
        of_function = tuple(map(keep, apart))
        for arguments in zip(*parts, strict=True):
            how = {} if dist == "b" else {"dist": dist}
            call = with_needs(arguments, how) if self.cache else (arguments, how)
            payload, frames, results = pickled_call(*call, keep=keep, files=self._port.files)
            frames = (*frames, *of_function)
            self._port.check_size(frames)
            task_options = self._waiting_for(options, results)
            if self.cache:
                task_options = self._comparable(task_options, f, pickled, f"part {dist}", arguments, {})
            text = short_repr.of_call(arguments, {}) if self._port.record_arguments else ""
            spec = TaskSpec(self._channel.new_id(), pickled.digest, payload, now, _ANY, (), task_options, "part", text)
            now += TICK
            tasks.append((spec, pickled, frames))
        ids, name = [spec.id for spec, _, _ in tasks], getattr(f, "__name__", "parallel")
        result = AsyncMapResult(self._port, ids, name=name, submitted=began, label=self.label, ordered=ordered)
        result._sizes = None  # a part may have any number of items
        self._remember(result._ids)
        self._send(tasks, result)
        return result.get() if self.block else result

    def register_joblib_backend(self, name: str = "ipyparallel", make_default: bool = False) -> None:
        """Make joblib run its calls through this view: `with joblib.parallel_backend(name): …`.

        Raises
        ------
        ImportError
            joblib is not installed.
        """
        from ..interop.joblib_backend import register

        register(self, name, make_default)

    def __repr__(self) -> str:
        return f"<LoadBalancedView {'all' if self.targets is None else self.targets}>"
