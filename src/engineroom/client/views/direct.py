"""The direct view: the same work on each of some engines."""

from __future__ import annotations

import ast
import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...config import check_switches
from ...errors import EngineroomError, NoEnginesRegistered
from ...ids import EngineId, TaskId
from ...messages import TaskOptions, TaskSpec
from ...messages.bounds import Kind
from ...on_engine import engine_calls
from ...on_engine.random_streams import seeded
from ...wire import short_repr
from ...wire.payload import dumps_call, once
from .. import synced_imports
from ..magics import bind_magics
from ..records.query_args import plain_label
from ..results.map_result import AsyncMapResult
from ..results.partition import as_columns, as_sequence, split
from ..results.result import AsyncResult
from .base import FUNCTIONS, TICK, View, ViewClient, check_callable, replaced, resolve_reference
from .flags import yes_or_no
from .item_options import options_of_items

#: Cells have no function.
_NO_FUNCTION = b""


class DirectView(View):
    """Every call runs on each of `targets`; values come as a list in their order (of a single int, the one value).

    Also a dictionary over the engines' namespaces: `view["a"] = 1`, `view["a"]`.
    """

    def __init__(self, client: ViewClient, targets: Any = "all", **flags: Any) -> None:
        super().__init__(client, targets, **flags)

    def _checked_flag(self, name: str, value: Any) -> Any:
        if name == "targets" and value != "all":
            resolved = self._port.engines.resolve(value)
            return resolved[0] if isinstance(value, int) else resolved
        return super()._checked_flag(name, value)

    def _engines(self, targets: Any = None) -> tuple[list[EngineId], bool]:
        """The engines of `targets` now, and whether a single one is named by its number."""
        wanted = self.targets if targets is None else targets
        engines = self._port.engines.resolve(wanted)
        if not engines:
            if there := self._port.engines.resolve("all"):
                raise NoEnginesRegistered(f"these targets name no engine: {wanted!r}; there are engines {there}")
            raise self._port.engines.none_here()
        return engines, isinstance(wanted, int)

    def _submit(
        self,
        function: Any,
        calls: Sequence[tuple[EngineId, tuple[Any, ...], Mapping[str, Any]]],
        result: AsyncResult,
        kind: Kind = "apply",
        options: TaskOptions | None = None,
        each: Sequence[TaskOptions] | None = None,
        track: bool | None = None,
    ) -> None:
        """One task per call. Calls that share their argument tuple share its pickle and its buffers.

        `each`: the options of each call, where they differ.
        """
        function, extra = resolve_reference(function, ())
        apart: list[memoryview] = []
        pickled = FUNCTIONS.get(function, apart)
        options = options or self._task_options()
        track = self.track if track is None else yes_or_no("track", track)
        now = time.time()
        packed: dict[int, Any] = {}
        keep = once(self._port.keep(track))
        of_function = tuple(map(keep, apart))
        tasks = []
        for index, (task, (engine, args, kwargs)) in enumerate(zip(result._ids, calls, strict=True)):
            found = packed.get(id(args))
            if found is None:
                payload, frames = dumps_call((*extra, *args), kwargs, keep=keep, files=self._port.files)
                found = packed[id(args)] = payload, (*frames, *of_function)
                self._port.check_size(found[1])
            payload, frames = found
            wanted, text = options if each is None else each[index], ""
            if self._port.record_arguments:
                text = short_repr.of_items(args) if kind == "map" else short_repr.of_call(args, kwargs)
            spec = TaskSpec(task, pickled.digest, payload, now, engine, (), wanted, kind, text)
            tasks.append((spec, pickled, frames))
            now += TICK
        self._remember(result._ids)
        self._send(tasks, result, track)

    def _remember(self, ids: Sequence[TaskId]) -> None:
        super()._remember(ids)
        self._port.direct.add(ids)

    def _apply(
        self,
        function: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        block: bool,
        targets: Any = None,
        track: bool | None = None,
    ) -> Any:
        check_callable(function)
        engines, single = self._engines(targets)
        result = self._result(len(engines), single, getattr(function, "__name__", "task"))
        self._submit(function, [(engine, args, kwargs) for engine in engines], result, track=track)
        return result.get() if block else result

    def _result(self, count: int, single: bool, name: str) -> AsyncResult:
        ids = [self._channel.new_id() for _ in range(count)]
        return AsyncResult(self._port, ids, single=single, name=name, submitted=time.time(), label=self.label)

    # ------------------------------------------------------------------------------------------ code

    def execute(
        self, code: str, silent: bool = True, targets: Any = None, block: bool | None = None, label: str | None = None
    ) -> Any:
        """Run code in the engines' namespaces, as a cell: IPython's magics work.

        Parameters
        ----------
        silent : bool
            Display nothing, and keep no history.

        Returns
        -------
        AsyncResult of ExecuteReply. With `block` it is ready, and an error has been raised.
        """
        check_switches(silent=silent)
        if not isinstance(code, str):
            raise TypeError(f"code is a str, got {type(code).__name__}")
        blocks = self._blocks(block)
        engines, single = self._engines(targets)
        result = self._result(len(engines), single, "execute")
        result.label = plain_label(label) or self.label
        wished = replaced(self._task_options(), retries=0, label=result.label, silent=bool(silent))
        options = None if wished == TaskOptions() else wished
        now, source = time.time(), _encoded(code)
        tasks = [
            ((TaskSpec(id, _NO_FUNCTION, source, now, engine, (), options, "execute"), None, ()), result)  # type: ignore[arg-type]
            for id, engine in zip(result.msg_ids, engines, strict=True)
        ]
        self._remember(result._ids)
        self._note_call([task for task, _ in tasks], result)
        self._channel.submit(tasks)
        if blocks:
            result.get()
        return result

    def run(
        self, filename: str | Path, targets: Any = None, block: bool | None = None, label: str | None = None
    ) -> Any:
        """Run a local file's code on the engines."""
        if not isinstance(filename, str | os.PathLike):
            raise TypeError(f"filename is the path of a file with code; got {filename!r:.60}")
        return self.execute(Path(filename).read_text(), targets=targets, block=block, label=label)

    # ------------------------------------------------------------------------------------------ namespaces

    def push(
        self, ns: Mapping[str, Any], targets: Any = None, block: bool | None = None, track: bool | None = None
    ) -> Any:
        """Bind names in the engines' namespaces. A name may be any target of an assignment: `"a.b"`, `"a[0]"`.

        `track`: see `AsyncResult.wait_for_send`.
        """
        if not isinstance(ns, Mapping):
            raise TypeError(f"push needs a dict of names and values, got {type(ns).__name__}")
        for name in ns:
            _check_target(name)
        return self._apply(engine_calls.push, (dict(ns),), {}, self._blocks(block), targets, track)

    def pull(self, names: str | Sequence[str], targets: Any = None, block: bool | None = None) -> Any:
        """The values of names, or of expressions, in the engines' namespaces; for several a list for each engine."""
        wanted = names if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
        for name in wanted if isinstance(wanted, list) else [wanted]:
            _check_expression(name)
        return self._apply(engine_calls.pull, (wanted,), {}, self._blocks(block), targets)

    def update(self, ns: Mapping[str, Any]) -> Any:
        """`push(ns)`, as a dictionary's update."""
        return self.push(ns, block=self.block)

    def get(self, names: str | Sequence[str]) -> Any:
        """`pull(names)` that waits."""
        return self.pull(names, block=True)

    def __getitem__(self, name: str) -> Any:
        return self.pull(name, block=True)

    def __setitem__(self, name: str, value: Any) -> None:
        self.push({name: value}, block=True)

    def clear(self, targets: Any = None, block: bool | None = None) -> Any:
        """Empty the engines' namespaces."""
        return self._apply(engine_calls.clear, (), {}, self._blocks(block), targets)

    def reload_modules(
        self, names: str | Sequence[str] | None = None, targets: Any = None, block: bool | None = None
    ) -> Any:
        """Have engines load modules again; see `Client.reload_modules`. Gives the names for each engine."""
        what = "a module is named by a str, several by a list of str"
        wanted = () if names is None else ([names] if isinstance(names, str) else _texts(names, what),)
        return self._apply(engine_calls.reload_modules, wanted, {}, self._blocks(block), targets)

    # ------------------------------------------------------------------------------------------ properties

    def set_properties(self, properties: Mapping[str, Any], targets: Any = None, block: bool | None = None) -> Any:
        """Set some of the engines' properties, which classic tasks depend on."""
        if not isinstance(properties, Mapping):
            raise TypeError(f"properties are a dict of names and values, got {type(properties).__name__}")
        _names(list(properties))
        return self._apply(engine_calls.set_properties, (dict(properties),), {}, self._blocks(block), targets)

    def get_properties(
        self, keys: str | Sequence[str] | None = None, targets: Any = None, block: bool | None = None
    ) -> Any:
        """The engines' properties, or some of them, as dicts."""
        wanted = None if keys is None else _names(keys)
        return self._apply(engine_calls.get_properties, (wanted,), {}, self._blocks(block), targets)

    def has_properties(self, keys: str | Sequence[str], targets: Any = None, block: bool | None = None) -> Any:
        """Whether the engines have properties of these names: a list of bools for each engine."""
        return self._apply(engine_calls.has_properties, (_names(keys),), {}, self._blocks(block), targets)

    def del_properties(self, keys: str | Sequence[str], targets: Any = None, block: bool | None = None) -> Any:
        """Remove some of the engines' properties. An engine that lacks one of them raises, and removes none."""
        return self._apply(engine_calls.del_properties, (_names(keys),), {}, self._blocks(block), targets)

    def clear_properties(self, targets: Any = None, block: bool | None = None) -> Any:
        """Remove all of the engines' properties."""
        return self._apply(engine_calls.clear_properties, (), {}, self._blocks(block), targets)

    # ------------------------------------------------------------------------------------------ data

    def scatter(
        self,
        key: str,
        seq: Any,
        dist: str = "b",
        flatten: bool = False,
        targets: Any = None,
        block: bool | None = None,
        track: bool | None = None,
    ) -> Any:
        """Bind to `key` a part of a sequence on each engine.

        Parameters
        ----------
        dist : {"b", "r"}
            Blocks or round robin.
        flatten : bool
            Bind the item itself where a part has one item.
        track : bool, optional
            Send large buffers without a copy: see `AsyncResult.wait_for_send`. Default: the view's flag.
        """
        check_switches(flatten=flatten)
        _check_target(key)
        blocks = self._blocks(block)
        engines, single = self._engines(targets)
        pieces = split(as_sequence(seq), len(engines), dist)
        result = self._result(len(engines), single, "scatter")
        self._submit(
            engine_calls.push_part,
            [(e, (key, p, flatten), {}) for e, p in zip(engines, pieces, strict=True)],
            result,
            track=track,
        )
        return result.get() if blocks else result

    def gather(self, key: str, dist: str = "b", targets: Any = None, block: bool | None = None) -> Any:
        """Put the parts of a scattered sequence together again.

        Returns
        -------
        AsyncMapResult, or its value
            Of arrays one array, of data frames one data frame, of other sequences one list of their items. A value
            that is no sequence (a str, set, dict, scalar) is an item of the list.
        """
        _check_expression(key)
        blocks = self._blocks(block)
        engines, _ = self._engines(targets)
        result = self._map_result(len(engines), "gather", dist)
        result._sizes = None  # a part may have any number of items
        self._submit(engine_calls.pull_part, [(engine, (key, dist), {}) for engine in engines], result)
        return result.get() if blocks else result

    def _map_result(self, count: int, name: str, dist: str, **kwargs: Any) -> AsyncMapResult:
        if dist not in ("b", "r"):
            raise ValueError(f"dist is 'b' (blocks) or 'r' (round robin), not {dist!r}")
        ids = [self._channel.new_id() for _ in range(count)]
        return AsyncMapResult(self._port, ids, name=name, submitted=time.time(), label=self.label, dist=dist, **kwargs)

    def map(  # type: ignore[override]
        self,
        f: Callable[..., Any],
        /,
        *sequences: Any,
        block: bool | None = None,
        track: bool | None = None,
        return_exceptions: bool = False,
        label: str | None = None,
        labels: Iterable[str | None] | None = None,
        metadata: Iterable[Mapping[str, Any]] | None = None,
        dist: str = "b",
        seed: Any = None,
    ) -> Any:
        """Call `f` on each item: the sequences are split evenly, one task per engine.

        Parameters
        ----------
        track : bool, optional
            Send large buffers without a copy: see `AsyncResult.wait_for_send`. Default: the view's flag.
        return_exceptions : bool
            Put errors in the place of items, instead of raising them.
        labels, metadata : lists, optional
            A label, and a dict, for the record of each item. Then each item is a task.
        dist : {"b", "r"}
            Blocks or round robin.
        seed : optional
            Each item draws random numbers of its own, as in `LoadBalancedView.map`.
        """
        check_switches(return_exceptions=return_exceptions)
        check_callable(f)
        return self._call_with_parts(
            seeded(f, seed),
            "map",
            sequences,
            dist,
            block,
            label=label,
            labels=labels,
            metadata=metadata,
            track=track,
            return_exceptions=return_exceptions,
        )

    def _call_with_parts(
        self,
        f: Any,
        kind: Kind,
        sequences: Sequence[Any],
        dist: str,
        block: bool | None,
        *,
        label: str | None = None,
        labels: Any = None,
        metadata: Any = None,
        track: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call `f` on each engine with its parts of the sequences ("part"), or on their items ("map")."""
        if not sequences:
            raise TypeError("map needs at least one sequence")
        blocks = self._blocks(block)
        name = getattr(f, "__name__", "map")
        columns = as_columns(sequences, whole=kind != "map")
        function, extra = resolve_reference(f, ())
        if extra and kind == "map":
            f, columns = function, [[extra[0]] * len(columns[0]), *columns]
        engines, _ = self._engines()
        count = len(columns[0])
        engines = engines[: max(1, count)]
        options = self._task_options()
        if label is not None:
            options = replaced(options, label=plain_label(label))
        each = options_of_items(options, labels, metadata, count)
        if each is not None:
            engines = _engine_of_items(engines, count, dist)
            dist = "b"
            parts: list[Any] = [[column[i : i + 1] for i in range(count)] for column in columns]
        else:
            parts = [split(column, len(engines), dist) for column in columns]
        result = self._map_result(len(engines), name, dist, **kwargs)
        if kind != "map":
            result._sizes = None  # a part may have any number of items
        if label is not None:
            result.label = plain_label(label)
        if each is not None:
            result._each = dict(zip(result._ids, each, strict=True))
        how: list[dict[str, Any]] = [{} if dist == "b" else {"dist": dist} for _ in engines]
        if kind == "map":
            sizes = [len(part) for part in parts[0]]
            result._sizes = dict(zip(result._ids, sizes, strict=True))
            firsts = itertools.accumulate(sizes, initial=0)
            for i, (given, first) in enumerate(zip(how, firsts, strict=False)):
                given |= {"first": first} if dist == "b" else {"first": i, "step": len(engines)}
        calls = [(engine, tuple([column[i] for column in parts]), how[i]) for i, engine in enumerate(engines)]
        self._submit(f, calls, result, kind, options, each, track)
        return result.get() if blocks else result

    def _call_on_parts(
        self, f: Callable[..., Any], sequences: Sequence[Any], dist: str, ordered: bool, chunksize: int | None
    ) -> Any:
        return self._call_with_parts(f, "part", sequences, dist, None)

    # ------------------------------------------------------------------------------------------ imports

    @contextlib.contextmanager
    def sync_imports(self, local: bool = True, quiet: bool = False) -> Iterator[None]:
        """`with view.sync_imports(): import numpy as np` imports here and on the engines, under the same names.

        Parameters
        ----------
        local : bool
            Import here too. With False, the names can be used in functions that the engines run, and not here.
        quiet : bool
            Do not print which modules are imported on the engines.
        """
        check_switches(local=local, quiet=quiet)
        with synced_imports.seen(local=local, quiet=quiet) as imports:
            yield
        if imports:
            self._apply(engine_calls.import_modules, (imports,), {}, True)

    @property
    def importer(self) -> Any:
        """`sync_imports(local=True)`."""
        return self.sync_imports(True)

    # ------------------------------------------------------------------------------------------ IPython, pickling

    def activate(self, suffix: str = "") -> None:
        """Bind IPython's magics `%px`, `%autopx`, `%pxresult` and `%pxconfig`, each with this suffix, to this view.

        Raises
        ------
        RuntimeError
            This is no IPython.
        """
        bind_magics(self, suffix)

    def use_dill(self) -> AsyncResult:
        """Kept for old code: lambdas, closures and functions of scripts travel by cloudpickle anyway."""
        return self.apply_async(engine_calls.use_pickler)

    use_cloudpickle = use_dill
    use_pickle = use_dill

    def __repr__(self) -> str:
        shown = self.targets
        if shown != "all":
            with contextlib.suppress(EngineroomError, IndexError):  # the client is closed, or an engine is gone
                shown = self._port.engines.resolve(shown)
        return f"<DirectView {shown}>"


def _engine_of_items(engines: Sequence[EngineId], count: int, dist: str) -> list[EngineId]:
    """The engine of each item of a map, if each item is a task."""
    parts = split(range(count), len(engines), dist)
    found = {item: engine for engine, items in zip(engines, parts, strict=True) for item in items}
    return [found[item] for item in range(count)]


def _encoded(code: str) -> bytes:
    """Source code as it travels."""
    try:
        return code.encode()
    except UnicodeEncodeError as error:
        character = code[error.start]
        raise ValueError(
            f"the code holds a lone surrogate, {character!r}, at position {error.start}: that is half a character, and "
            "no Python source. Write the escape sequence in its place"
        ) from None


def _check_target(name: Any) -> None:
    """Raise TypeError or ValueError if this is nothing that a value can be bound to on an engine."""
    if not (isinstance(name, str) and name.isidentifier()):
        _require_text(name)
        try:
            parsed = ast.parse(f"{name} = 0").body
        except (SyntaxError, ValueError):
            parsed = []
        if len(parsed) != 1 or not isinstance(parsed[0], ast.Assign) or len(parsed[0].targets) != 1:
            raise ValueError(f"nothing can be bound to {name!r:.60}: it is no name, nor anything like a.b or a[0]")


def _check_expression(name: Any) -> None:
    """Raise TypeError or ValueError if this is neither a name nor another expression."""
    if not (isinstance(name, str) and name.isidentifier()):
        _require_text(name)
        try:
            ast.parse(name.strip(), mode="eval")
        except (SyntaxError, ValueError):
            raise ValueError(f"{name!r:.60} is no name, nor another expression") from None


def _require_text(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"a name is a str, got {name!r:.60} ({type(name).__name__})")


def _names(keys: Any) -> list[str]:
    """The names of properties."""
    return _texts([keys] if isinstance(keys, str) else keys, "a property is named by a str, several by a list of str")


def _texts(values: Any, what: str) -> list[str]:
    """Texts as a list. `what` says what is needed."""
    if not isinstance(values, Iterable):
        raise TypeError(f"{what}; got {values!r:.60} ({type(values).__name__})")
    texts = list(values)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{what}; got {text!r:.60}")
    return texts
