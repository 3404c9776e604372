"""What all views have in common: flags, calls, waiting."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import msgspec

from ...errors import ConfigError
from ...ids import TaskId
from ...messages import TaskOptions
from ...on_engine import engine_calls
from ...wire import functions
from .. import hints
from ..calls import call_of
from ..connection.history import RECENT, History
from ..connection.submission import Acceptance, Outgoing, tracked
from ..port import ClientPort
from ..records.query_args import plain_label, plain_metadata
from ..results.result import AsyncResult
from . import flags
from .executor import ViewExecutor
from .remote import parallel, remote
from .submission_warnings import look

#: Functions pickled by this process, shared by all clients and views.
FUNCTIONS = functions.FunctionCache(look)
#: Seconds between the submissions of two tasks of one call, in their records: they keep their order in a sort by time.
#: To make a task takes longer, so these times are not in the future.
TICK = 1e-6


class ViewClient(Protocol):
    """The client, as its views see it."""

    block: bool
    _port: ClientPort

    @property
    def outstanding(self) -> set[TaskId]:
        """msg_ids without an outcome."""

    @property
    def results(self) -> Mapping[TaskId, Any]:
        """Values by msg_id."""

    async def wait_async(self, jobs: Any = None, timeout: float | None = -1, *, cancel: bool = False) -> bool:
        """Wait for tasks, in a coroutine."""

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> Any:
        """Wait for tasks."""

    def get_result(self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = True) -> AsyncResult:
        """The result of any task."""

    def abort(self, jobs: Any = None, targets: Any = None, block: bool | None = None) -> Any:
        """End tasks that have not started."""

    def queue_status(self, targets: Any = "all", verbose: bool = False) -> Any:
        """What engines have done and have to do."""

    def purge_results(self, jobs: Any = None, targets: Any = None) -> Any:
        """Forget finished tasks."""

    def shutdown(
        self,
        targets: Any = "all",
        restart: bool = False,
        hub: bool = False,
        block: bool | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Stop engines."""


class View:
    """Base of the views. `Client.direct_view`, `Client.load_balanced_view` and `client[...]` make them.

    Attributes
    ----------
    client : Client
        The client that made this view.
    block : bool
        Whether calls wait for their result (else they give an AsyncResult).
    targets : int, list of int or "all"
        The engines.
    label : str or None
        Put into the record of every task.
    history : History
        msg_ids of this view's tasks; reads like a list of str.
    """

    client: Any  # a Client; views do not import it, and use it as a `ViewClient`

    #: flag → what it does; each view adds its own
    FLAGS: ClassVar[dict[str, str]] = {
        "block": "whether calls wait for their result",
        "track": "whether large buffers are sent without a copy; they must not change until AsyncResult.sent",
        "targets": "the engines",
        "label": "put into the record of every task",
        "metadata": "a dict put into the record of every task",
        "retries": "how often a task is run again after failing or losing its engine",
        "run_timeout": "seconds an attempt may run before it is stopped",
        "at_most_once": "whether a task that may have been started is never started again",
    }

    def __init__(self, client: ViewClient, targets: Any, **given: Any) -> None:
        self.client = self._client = client
        self._port = client._port
        self._channel = client._port.channel
        self._history = History(self._channel.session)
        self.block = client.block
        self.track = False
        self.label: str | None = None
        self.metadata: dict[str, Any] | None = None
        self.retries = 0
        self.run_timeout: float | None = None
        self.at_most_once = False
        self.targets = targets
        self._options: TaskOptions | None = None
        self.set_flags(**given)

    @property
    def history(self) -> History:
        return self._history

    @history.setter
    def history(self, ids: Iterable[TaskId]) -> None:
        numbers = []
        for id in ids:
            number = self._history.number_of(id)
            if number is None:
                raise ValueError(f"a view's history has msg_ids of its own client, and {id!r} is none of these")
            numbers.append(number)
        self._history = History(self._channel.session, numbers)

    # ------------------------------------------------------------------------------------------ flags

    def set_flags(self, **flags: Any) -> Self:
        """Set flags of this view, as `view.flag = value` does; returns the view.

        Raises
        ------
        ConfigError
            There is no such flag, or it cannot have this value.
        """
        for name, value in flags.items():
            if name not in self.FLAGS:
                raise ConfigError(self._no_flag(name))
            setattr(self, name, value)
        return self

    @contextlib.contextmanager
    def temp_flags(self, **flags: Any) -> Iterator[Self]:
        """Set flags for the time of a `with` block."""
        before = {name: getattr(self, name) for name in self.FLAGS}
        try:
            yield self.set_flags(**flags)
        finally:
            for name, value in before.items():
                if getattr(self, name) is not value:
                    setattr(self, name, value)

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        name = type(self).__name__
        raise TypeError(
            f"a {name} belongs to the client of one process: it cannot be pickled, nor copied with all that it has. "
            "Another process, or a task, makes a client of its own, Client(), and a view of that"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.FLAGS:
            value = self._checked_flag(name, value)
            super().__setattr__("_options_stale", True)
        elif not name.startswith("_") and not self._declares(name):
            raise AttributeError(
                f"{self._no_flag(name)}. An attribute of your own is declared in the class body of a subclass, or "
                "begins with '_'"
            )
        super().__setattr__(name, value)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise hints.no_attribute(self, name, hints.OF_VIEW)

    def _declares(self, name: str) -> bool:
        """Whether the class, or the user's subclass, declares such an attribute."""
        return hasattr(type(self), name) or any(
            name in getattr(cls, "__annotations__", ()) for cls in type(self).__mro__
        )

    def _no_flag(self, name: str) -> str:
        import difflib

        near = difflib.get_close_matches(name, self.FLAGS, 1)
        hint = f"did you mean {near[0]!r}? It" if near else "it"
        return f"{type(self).__name__} has no flag {name!r}: {hint} has {', '.join(sorted(self.FLAGS))}"

    def _checked_flag(self, name: str, value: Any) -> Any:
        match name:
            case "retries":
                return flags.whole("retries", value, "a number of times, 0 or more", 0)
            case "block" | "track" | "at_most_once":
                return flags.yes_or_no(name, value)
            case "run_timeout":
                return flags.run_timeout(value)
            case "label":
                return plain_label(value)
            case "metadata":
                if value is not None and not isinstance(value, Mapping):
                    raise ConfigError(f"metadata is a dict or None; got {value!r}")
        return value

    def _task_options(self) -> TaskOptions | None:
        """The options that are sent with a task; None: the defaults."""
        if self.__dict__.get("_options_stale", True) or self.metadata is not None:  # the dict may have changed
            options = self._options_of_flags()
            self._options = None if options == TaskOptions() else options
            self.__dict__["_options_stale"] = False
        return self._options

    def _options_of_flags(self) -> TaskOptions:
        if self.at_most_once and self.retries:
            raise ConfigError(
                f"at_most_once and retries={self.retries} exclude each other: a retry starts a task a second time"
            )
        return TaskOptions(
            retries=self.retries,
            label=self.label,
            metadata=plain_metadata(self.metadata) if self.metadata else None,
            run_timeout=self.run_timeout,
            at_most_once=self.at_most_once,
        )

    # ------------------------------------------------------------------------------------------ calling

    def _send(self, tasks: Sequence[Outgoing], result: AsyncResult, track: bool | None = None) -> None:
        """Submit tasks. With `track` (None: the view's flag) the result tells when they are accepted."""
        if self.track if track is None else track:
            result._acceptance = acceptance = Acceptance(len(tasks))
            tasks = [tracked(task, acceptance) for task in tasks]
        self._note_call(tasks, result)
        self._channel.submit([(task, result) for task in tasks])

    def _note_call(self, tasks: Sequence[Outgoing], result: AsyncResult) -> None:
        """Have the first of the tasks say which of them make one result."""
        if not result._single and tasks:
            shape, first, items = result._shape_noted()
            sizes = result._sizes or {}
            call = call_of([spec.id for spec, _, _ in tasks], shape, sizes, first, items)
            spec = tasks[0][0]
            spec.options = replaced(spec.options, call=call)

    def _blocks(self, block: bool | None) -> bool:
        """Whether a call waits: what it was given, else the view's flag. Raises ConfigError."""
        return self.block if block is None else flags.yes_or_no("block", block)

    def _apply(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], block: bool) -> Any:
        raise NotImplementedError

    def apply(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `f(*args, **kwargs)` remotely: its value if `block` is set, else an AsyncResult."""
        return self._apply(f, args, kwargs, self.block)

    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call `f(*args, **kwargs)` remotely; returns an AsyncResult at once.

        Raises
        ------
        SerializationError
            The function or an argument cannot be pickled; nothing was sent.
        NoEnginesRegistered
            There is no engine.
        """
        return self._apply(f, args, kwargs, False)  # type: ignore[no-any-return]

    def apply_sync(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `f(*args, **kwargs)` remotely and wait for its value."""
        return self._apply(f, args, kwargs, True)

    def map(self, f: Callable[..., Any], /, *sequences: Any, block: bool | None = None, **kwargs: Any) -> Any:
        """Call `f` on each item of the sequences, remotely."""
        raise NotImplementedError

    def map_async(self, f: Callable[..., Any], /, *sequences: Any, **kwargs: Any) -> Any:
        """`map` that gives an AsyncMapResult at once."""
        return self.map(f, *sequences, block=False, **kwargs)

    def map_sync(self, f: Callable[..., Any], /, *sequences: Any, **kwargs: Any) -> Any:
        """`map` that waits, and gives a list."""
        return self.map(f, *sequences, block=True, **kwargs)

    def imap(self, f: Callable[..., Any], /, *sequences: Any, **kwargs: Any) -> Any:
        """`map` that gives an iterator over the results as they come."""
        return iter(self.map_async(f, *sequences, **kwargs))

    def remote(self, block: bool | None = None, **flags: Any) -> Callable[[Callable[..., Any]], Any]:
        """Decorator: calling the function calls it through this view."""
        return remote(self, block=block, **flags)

    def parallel(self, dist: str = "b", block: bool | None = None, **flags: Any) -> Callable[[Callable[..., Any]], Any]:
        """Decorator: calling the function on sequences calls it on parts of them, in parallel."""
        return parallel(self, dist=dist, block=block, **flags)

    def _call_on_parts(
        self, f: Callable[..., Any], sequences: Sequence[Any], dist: str, ordered: bool, chunksize: int | None
    ) -> Any:
        """Call `f` on parts of the sequences: what calling a ParallelFunction does."""
        raise NotImplementedError

    def _map_items(
        self, f: Callable[..., Any], sequences: Sequence[Any], ordered: bool, chunksize: int | None
    ) -> Any:
        """Call `f` on each item of the sequences: what a ParallelFunction's `map` does."""
        return self.map(f, *sequences)

    @property
    def executor(self) -> ViewExecutor:
        """A `concurrent.futures.Executor` that submits through this view."""
        return ViewExecutor(self)

    # ------------------------------------------------------------------------------------------ tasks of this view

    def _remember(self, ids: Sequence[TaskId]) -> None:
        """Note tasks that are about to be submitted."""
        for history in (self._port.history, self._history):
            if len(ids) == 1:  # quicker
                history.append(ids[0])
            else:
                history.extend(ids)

    def _remember_number(self, number: int) -> None:
        """The same of one task, by the number in its msg_id: the hot path."""
        self._port.history.add_number(number)
        self._history.add_number(number)
        if not number % RECENT:
            self._port.history.tidy()
            self._history.tidy()

    @property
    def outstanding(self) -> set[TaskId]:
        """Tasks of this view without an outcome."""
        return self.history.among(self._client.outstanding)

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for tasks (default: all of this view's). Returns whether all are done."""
        return bool(self._client.wait(self.outstanding if jobs is None else jobs, timeout))

    async def wait_async(self, jobs: Any = None, timeout: float | None = -1, *, cancel: bool = False) -> bool:
        """`wait` for coroutines: see `Client.wait_async`."""
        return await self._client.wait_async(self.outstanding if jobs is None else jobs, timeout, cancel=cancel)

    def get_result(self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = False) -> AsyncResult:
        """The result of tasks, by msg_id or by index in this view's history (default: the last)."""
        wanted = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        if isinstance(wanted, Sequence) and not isinstance(wanted, str | bytes):
            wanted = list(map(self._named, wanted))
        else:
            wanted = self._named(wanted)
        return self._client.get_result(wanted, block=block, owner=owner)

    def _named(self, job: Any) -> Any:
        """The msg_id of an index into this view's history; anything else as it is."""
        if not isinstance(job, int) or isinstance(job, bool):
            return job
        try:
            return self.history[job]
        except IndexError:
            raise IndexError(f"this view has submitted {len(self.history)} tasks; there is no number {job}") from None

    def abort(self, jobs: Any = None, targets: Any = None, block: bool | None = None) -> None:
        """End tasks that have not started: `jobs`, or those at `targets`, or all of this view's."""
        if jobs is None and targets is None:
            jobs = list(self.outstanding)
        self._client.abort(jobs, targets, block)

    def queue_status(self, targets: Any = None, verbose: bool = False) -> Any:
        """What the engines of this view have done and have to do."""
        return self._client.queue_status(self.targets if targets is None else targets, verbose)

    def purge_results(self, jobs: Any = None, targets: Any = None) -> None:
        """Forget finished tasks; see `Client.purge_results`."""
        self._client.purge_results(jobs, targets)

    def shutdown(
        self,
        targets: Any = None,
        restart: bool = False,
        hub: bool = False,
        block: bool | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Stop engines (default: this view's); see `Client.shutdown`."""
        self._client.shutdown(self.targets if targets is None else targets, restart, hub, block, timeout=timeout)

    def spin(self) -> None:
        """Kept for old code: results come by themselves."""

    @property
    def results(self) -> Mapping[TaskId, Any]:
        """Values of finished tasks by msg_id."""
        return self._client.results

    @property
    def engines_are_here(self) -> bool:
        """Whether all engines are on this host."""
        return self._port.files

    def __len__(self) -> int:
        return len(self._port.engines.resolve(self.targets))

    def _repr_html_(self) -> str:
        from ..notebook.pages import view_html

        flags = {name: getattr(self, name) for name in self.FLAGS if name not in ("targets", "block")}
        chosen = {name: value for name, value in flags.items() if value not in (None, False, 0)}
        targets = "all" if self.targets in (None, "all") else str(self.targets)
        return view_html(type(self).__name__, targets, len(self.outstanding), chosen | {"block": self.block})


def replaced(options: TaskOptions | None, **changes: Any) -> TaskOptions:
    """The options (None: the defaults) with some of them changed."""
    return msgspec.structs.replace(options or TaskOptions(), **changes)


def resolve_reference(f: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Function and arguments to send: a `Reference` is looked up on the engine, at each call."""
    if isinstance(f, engine_calls.Reference):
        return engine_calls.call_reference, (f.name, *args)
    return f, args


def check_callable(f: Any) -> None:
    """Raise TypeError if `f` cannot be called."""
    if not callable(f) and not isinstance(f, engine_calls.Reference):
        raise TypeError(f"a function is needed, got {f!r} ({type(f).__name__})")
