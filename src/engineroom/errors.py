"""Every exception a user can meet::

    EngineroomError
    ├── ConfigError (ValueError)         a setting, flag or argument is not valid
    ├── ConnectionFileError (OSError)    no cluster found: the connection file is missing or broken
    ├── AuthenticationError (PermissionError)   the controller refused our key
    ├── NotAllowed (PermissionError)     our key has lesser rights than this needs
    ├── ProtocolError                    the other end speaks another protocol version, or sent an invalid message
    ├── ControllerLost (ConnectionError, BrokenExecutor)   the controller stopped answering
    ├── LaunchError (RuntimeError)       engines or a controller could not be started
    ├── SerializationError (TypeError)   an argument or a function cannot be pickled
    ├── MessageTooLarge (ValueError)     a message is larger than the limit
    ├── QueryError (ValueError)          a query names an unknown key or operator
    ├── StoreError
    │   ├── StoreBusy                    another controller owns the database
    │   ├── StoreFull                    there is no room for new tasks
    │   ├── StoreRefused                 a record holds a value that the database cannot hold
    │   └── StoreDamaged                 the database is damaged
    ├── UnknownTask (KeyError)           no such msg_id
    ├── PendingTask (RuntimeError)       the task has not finished: it cannot be resubmitted or purged yet
    ├── WaitError (RuntimeError)         a wait could never end, or waits are nested too deeply
    └── IPythonError → KernelError
        ├── NoEnginesRegistered (BrokenExecutor)
        ├── TaskAborted (concurrent.futures.CancelledError)
        ├── UnmetDependency
        └── RemoteError                  the task raised on its engine
            ├── TaskTimeout              it ran for too long
            ├── ImpossibleDependency (UnmetDependency) → InvalidDependency, DependencyTimeout
            ├── EngineError (BrokenExecutor)   the engine died or went away while it held the task
            └── CompositeError           of several tasks one raised, or more did (then an ExceptionGroup)

`TimeoutError` is the builtin; `BrokenExecutor` and `CancelledError` are those of `concurrent.futures`. Each class has a
stable `code`, used by the command line and in JSON.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError
from typing import Any, ClassVar, NoReturn, Self, TypedDict

from . import markup

TimeoutError = builtins.TimeoutError


class EngineInfo(TypedDict, total=False):
    """Where a remote error came from, and which call it was."""

    engine_id: int | None
    engine_uuid: str | None
    method: str
    #: the task
    msg_id: str | None
    #: of a map: the number of the item
    index: int | None
    #: of a part of a map that failed as a whole: its first and its last item; and the step, of items dealt round robin
    items: tuple[int, ...] | None
    #: where the engine runs
    host: str | None
    #: of the call, as a short text
    arguments: str | None


class EngineroomError(Exception):
    """Base of all errors raised by this package."""

    code: ClassVar[str] = "error"


class ConfigError(EngineroomError, ValueError):
    """A setting, flag or argument is not valid."""

    code = "config"


class ConnectionFileError(EngineroomError, OSError):
    """No cluster was found: the connection file is missing or broken."""

    code = "connection-file"


class AuthenticationError(EngineroomError, PermissionError):
    """The controller refused our key."""

    code = "authentication"


class NotAllowed(EngineroomError, PermissionError):
    """The key of this client does not allow this: its connection file has lesser rights."""

    code = "not-allowed"


class ProtocolError(EngineroomError):
    """The other end speaks another protocol version, or sent an invalid message."""

    code = "protocol"


class ControllerLost(EngineroomError, ConnectionError, BrokenExecutor):
    """The controller stopped answering."""

    code = "controller-lost"
    #: so many records of tasks could not be written before it ended
    unwritten = 0


class LaunchError(EngineroomError, RuntimeError):
    """Engines or a controller could not be started, or ended before they could be used."""

    code = "launch"


class SerializationError(EngineroomError, TypeError):
    """An argument or a function cannot be pickled; nothing was sent."""

    code = "serialization"


class MessageTooLarge(EngineroomError, ValueError):
    """A message is larger than the limit; nothing was sent."""

    code = "message-too-large"


class QueryError(EngineroomError, ValueError):
    """A query names an unknown key or operator, or an argument has the wrong type."""

    code = "query"


class StoreError(EngineroomError):
    """The task database could not read or write what was asked."""

    code = "store"


class StoreBusy(StoreError):
    """Another controller owns this database."""

    code = "store-busy"


class StoreFull(StoreError):
    """There is no space for new tasks: the disk is full, or the limit is reached."""

    code = "store-full"


class StoreRefused(StoreError):
    """The task database cannot hold a record, because of a value in it. Others are written."""

    code = "store-refused"


class StoreDamaged(StoreError):
    """The task database is damaged: the file was cut or overwritten, or bits of it have changed."""

    code = "store-damaged"


class UnknownTask(EngineroomError, KeyError):
    """There is no task with this msg_id."""

    code = "unknown-task"

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else "unknown task"


class PendingTask(EngineroomError, RuntimeError):
    """The task has not finished, so it cannot be resubmitted or purged yet."""

    code = "pending-task"


class WaitError(EngineroomError, RuntimeError):
    """A wait for tasks that could never end, or waits inside tasks that are nested too deeply."""

    code = "wait"


class IPythonError(EngineroomError):
    """Base of the errors that users of IPython.parallel know."""

    code = "ipython"


class KernelError(IPythonError):
    """Something went wrong on or with an engine.

    Attributes
    ----------
    msg_id : str or None
        The task that ended with this error; None: it is not the outcome of a task.
    index : int or None
        The number of the item in its map; None: the task is not of a map, or several items are meant.
    items : (int, int) or None
        Of a part of a map that failed as a whole: its first and its last item; and the step, with `dist="r"`.
    engine_id : int or None
    host : str or None
        Where the engine runs.
    arguments : str or None
        The arguments of the call, as a short text. None: they are not known, or `rc.record_arguments` is off.
    """

    code = "kernel"
    msg_id: str | None = None
    index: int | None = None
    items: tuple[int, ...] | None = None
    engine_id: int | None = None
    host: str | None = None
    arguments: str | None = None

    def name_call(self, info: EngineInfo) -> None:
        """Set the attributes that say which call ended with this error."""
        for key in ("msg_id", "index", "items", "engine_id", "host", "arguments"):
            if info.get(key) is not None:
                setattr(self, key, info[key])


class NoEnginesRegistered(KernelError, BrokenExecutor):
    """There is no engine to run this on."""

    code = "no-engines"


class TaskAborted(KernelError, CancelledError):
    """The task was aborted before it started, or cancelled while it was running."""

    code = "aborted"


class UnmetDependency(KernelError):
    """Raised by a task on an engine that lacks what the task needs: the task is tried on another engine."""

    code = "unmet-dependency"


class RemoteError(KernelError):
    """The task raised on its engine.

    Attributes
    ----------
    ename, evalue : str
        Name and text of the remote exception.
    traceback : str
        The engine's traceback, as text.
    engine_info : dict
        `engine_id`, `engine_uuid`, `method` ("apply" or "execute"), `msg_id`, `index`, `host` and `arguments`.
        The last four, and `engine_id`, are attributes too.

    The error that a result raises is also an instance of the exception's own class, where this process can make
    that: `except KeyError` catches it. It then has the attributes, notes, causes and context of the original.
    """

    code = "remote"
    #: the original exception, as `wire.exceptions` packs it
    _packed: bytes = b""

    def __init__(self, ename: str, evalue: str, traceback: str = "", engine_info: EngineInfo | None = None) -> None:
        # Not super(): another class, whose constructor has other arguments, may come next.
        Exception.__init__(self, ename, evalue)
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback or ""
        self.engine_info: EngineInfo = engine_info or {}
        self.name_call(self.engine_info)
        if self.traceback:
            self.add_note(f"Traceback on {_where(self.engine_info)}{_call(self.engine_info)}:\n{self.traceback}")
        elif _call(self.engine_info):
            self.add_note(f"On {_where(self.engine_info)}{_call(self.engine_info)}")

    def __str__(self) -> str:
        where = self.engine_info
        if where.get("engine_id") is None:
            return f"{self.ename}: {self.evalue}"
        return f"[{where['engine_id']}:{where.get('method', 'apply')}] {self.ename}: {self.evalue}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.ename, self.evalue, self.traceback, self.engine_info)

    def render_traceback(self) -> list[str]:
        """The remote traceback as lines, then which call it was, ending with this error."""
        call = _call(self.engine_info)
        return [*self.traceback.splitlines(), *([f"On {_where(self.engine_info)}{call}:"] if call else []), str(self)]

    _render_traceback_ = render_traceback  # IPython shows this instead of the local frames

    def _repr_html_(self) -> str:
        return markup.block(folded([(self.ename, self.evalue, self.traceback, self.engine_info)], is_open=False))

    def print_traceback(self, excid: int | None = None) -> None:
        """Print the remote traceback."""
        print("\n".join(self.render_traceback()))


class _SchedulerError(RemoteError):
    """The base of errors with which the scheduler ends a task. `ename` is the name of the class.

    They are RemoteErrors, so that `except RemoteError` around `get` catches every way in which a task can fail, but
    for TaskAborted.
    """

    def __init__(self, evalue: str = "", traceback: str = "", engine_info: EngineInfo | None = None) -> None:
        super().__init__(type(self).__name__, evalue, traceback, engine_info)

    def __str__(self) -> str:
        return self.evalue

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.evalue, self.traceback, self.engine_info)

    def render_traceback(self) -> list[str]:
        """The text, and the notes: where the task was stopped, with which arguments it was called."""
        notes = [line for note in getattr(self, "__notes__", ()) for line in note.splitlines()]
        return [f"{self.ename}: {self.evalue}", *notes]

    _render_traceback_ = render_traceback


class TaskTimeout(_SchedulerError):
    """The task ran for longer than its `run_timeout`, and was stopped."""

    code = "task-timeout"


class ImpossibleDependency(_SchedulerError, UnmetDependency):
    """No engine can ever run this task."""

    code = "impossible-dependency"


class InvalidDependency(ImpossibleDependency):
    """A dependency cannot be used: the task depends on itself, on a direct task, or on one that is not known here."""

    code = "invalid-dependency"


class DependencyTimeout(ImpossibleDependency):
    """The tasks that this one depends on did not end within its `timeout`."""

    code = "dependency-timeout"


class EngineError(RemoteError, BrokenExecutor):
    """The engine could not run this task to its end: it died, went away, or has another version of a module.

    The text says which engine, where and why.
    """

    code = "engine"

    def __init__(self, evalue: str = "", traceback: str = "", engine_info: EngineInfo | None = None) -> None:
        super().__init__("EngineError", evalue, traceback, engine_info)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.evalue, self.traceback, self.engine_info)


#: Begins the last line of a CompositeError's text.
_HINT = "To catch them: "
#: One entry of `CompositeError.elist`.
ErrorEntry = tuple[str, str, str, EngineInfo]


class CompositeError(RemoteError):
    """Tasks of a call that has several tasks raised.

    Where several raised, it is an ExceptionGroup: `except*` picks some of the errors. Where exactly one raised, it is
    an instance of that error's own class instead: `except ValueError` catches it, and it reads as that error does.

    Attributes
    ----------
    exceptions : tuple of Exception
        The error of each task that raised.
    elist : list of tuple
        (ename, evalue, traceback, engine_info) of each. `engine_info` says which call it was.
    """

    code = "composite"
    tb_limit = 4  #: how many tracebacks are shown
    exceptions: tuple[Any, ...]

    def __new__(cls, message: str, elist: Sequence[ErrorEntry], errors: Sequence[Exception] = ()) -> Self:
        """`errors`: the exceptions that `elist` describes; default: a RemoteError for each entry."""
        if cls is CompositeError:
            return _Group.__new__(_Group, message, elist, errors)  # type: ignore[return-value]
        return super().__new__(cls, message, elist, errors)

    def __init__(self, message: str, elist: Sequence[ErrorEntry], errors: Sequence[Exception] = ()) -> None:
        Exception.__init__(self, message, elist)
        self._message = message
        self.elist = [(name, value, text, info or {}) for name, value, text, info in elist]
        self.ename, self.evalue, self.traceback, self.engine_info = "CompositeError", message, "", {}

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors of other classes may not be picklable: their entries are.
        errors = [e if isinstance(e, EngineroomError) else RemoteError(*entry)
                  for e, entry in zip(self.exceptions, self.elist, strict=False)]  # fmt: skip
        return CompositeError, (self._message, self.elist, errors)

    @property
    def message(self) -> str:
        """The text. (That of a group would be its first line: pytest's `match` looks here.)"""
        return str(self)

    def __str__(self) -> str:
        lines = [self._message]
        lines += [
            f"[{_number(info)}:{info.get('method', 'apply')}]: {name}: {value}{_input(info)}"
            for name, value, _, info in self.elist[: self.tb_limit]
        ]
        if len(self.elist) > self.tb_limit:
            lines.append(f".... {len(self.elist) - self.tb_limit} more exceptions ...")
        if not any(_HINT in line for line in lines):  # a task may have raised a CompositeError
            lines.append(f"{_HINT}`except* {self._a_class()}`, or `get(return_exceptions=True)`")
        return "\n".join(lines)

    def _a_class(self) -> str:
        """The name of a class by which `except*` catches the first error."""
        first = self.exceptions[0]
        named = getattr(first, "ename", "")
        known = {cls.__name__ for cls in type(first).__mro__}
        return named if named in known else "Exception"

    def __repr__(self) -> str:
        return f"CompositeError({len(self.elist)})"

    def render_traceback(self, excid: int | None = None) -> list[str]:
        """Tracebacks of the first `tb_limit` errors, or of number `excid` alone."""
        if excid is not None:
            return self._entry(excid).render_traceback()
        lines: list[str] = []
        for index in range(min(self.tb_limit, len(self.elist))):
            lines += [*self._entry(index).render_traceback(), ""]
        if len(self.elist) > self.tb_limit:
            lines.append(f"... {len(self.elist) - self.tb_limit} more exceptions ...")
        return lines

    _render_traceback_ = render_traceback

    def _repr_html_(self) -> str:
        head = markup.block(markup.bold(type(self).__name__), ": ", self._message)
        return markup.block(head, folded(self.elist))

    def print_traceback(self, excid: int | None = None) -> None:
        """Print the remote tracebacks, or only that of number `excid`."""
        print("\n".join(self.render_traceback(excid)))

    def raise_exception(self, excid: int = 0) -> NoReturn:
        """Raise number `excid` of the collected errors."""
        if not -len(self.elist) <= excid < len(self.elist):
            raise IndexError(f"an exception with index {excid} does not exist; there are {len(self.elist)}")
        raise self.exceptions[excid]

    def _entry(self, excid: int) -> RemoteError:
        try:
            return RemoteError(*self.elist[excid])
        except IndexError:
            raise IndexError(f"an exception with index {excid} does not exist; there are {len(self.elist)}") from None


class _Group(CompositeError, ExceptionGroup[Exception]):
    """Several tasks raised. This is what `CompositeError(…)` makes."""

    def __new__(cls, message: str, elist: Sequence[ErrorEntry], errors: Sequence[Exception] = ()) -> Self:
        members = list(errors) or [RemoteError(*entry) for entry in elist] or [RemoteError("CompositeError", message)]
        return ExceptionGroup.__new__(cls, message, members)


_Group.__name__ = _Group.__qualname__ = "CompositeError"  # as tracebacks show it


class AlreadyDisplayedError(RemoteError):
    """Stands for an error whose traceback has been shown already."""

    def __init__(self, original_error: RemoteError) -> None:
        super().__init__(original_error.ename, original_error.evalue, "", original_error.engine_info)
        self.original_error = original_error

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.original_error,)

    def render_traceback(self) -> list[str]:
        """One line: how many errors were shown."""
        count = len(self.original_error.elist) if isinstance(self.original_error, CompositeError) else 1
        return [f"{count} error" if count == 1 else f"{count} errors"]

    _render_traceback_ = render_traceback


#: Errors that Engineroom itself gives a task as its outcome. They are raised as what they are; an exception of the
#: user's code is raised as a RemoteError.
OUTCOMES: dict[str, Callable[[str], EngineroomError]] = {
    cls.__name__: cls
    for cls in (
        TaskAborted,
        EngineError,
        NoEnginesRegistered,
        TaskTimeout,
        ImpossibleDependency,
        InvalidDependency,
        DependencyTimeout,
        UnmetDependency,
        UnknownTask,
        PendingTask,
        QueryError,
        StoreError,
        StoreBusy,
        StoreFull,
        StoreRefused,
        StoreDamaged,
        SerializationError,
        ProtocolError,
        AuthenticationError,
        NotAllowed,
        ConfigError,
        MessageTooLarge,
    )
}


def _number(info: EngineInfo) -> str:
    return "?" if info.get("engine_id") is None else str(info["engine_id"])


def shown_arguments(arguments: str) -> str:
    """The arguments of a call, as they stand after "called with".

    >>> shown_arguments("('x')")
    ": 'x'"
    """
    if arguments == "()":
        return " no arguments"
    inner = arguments.removeprefix("(")
    return f": {inner.removesuffix(')') if inner != arguments and not inner.endswith('…') else inner}"


def _where(info: EngineInfo) -> str:
    return f"engine {_number(info)}" + (f" ({info['host']})" if info.get("host") else "")


def _call(info: EngineInfo) -> str:
    """Which call it was, as the end of a sentence; "": it is not known."""
    parts = [f"task {info['msg_id']}"] if info.get("msg_id") else []
    return "".join(f", {part}" for part in parts + input_parts(info))


#: Entries that a notebook shows of a CompositeError: those that are alike are one.
_SHOWN = 20
#: What differs between tracebacks of one cause: numbers of cells, which each engine counts for itself, and addresses.
_OWN_NUMBERS = r"<cell \d+>|<ipython-input-\d+-|Cell In ?\[\d+\]|0x[0-9a-f]+"


def folded(elist: Sequence[ErrorEntry], is_open: bool = False) -> markup.Html:
    """Errors as lines of HTML; a click opens a traceback. Errors of several engines that are alike are one line."""
    alike: dict[tuple[str, str, str], list[ErrorEntry]] = {}
    for entry in elist:
        ename, evalue, traceback, _ = entry
        alike.setdefault((ename, evalue, re.sub(_OWN_NUMBERS, "", traceback)), []).append(entry)
    parts = [_folded_alike(entries, is_open) for entries in list(alike.values())[:_SHOWN]]
    if len(alike) > _SHOWN:
        parts.append(markup.block(f"… {markup.plural(len(alike) - _SHOWN, 'more kind')} of error …"))
    return markup.join(*parts)


def _folded_alike(entries: Sequence[ErrorEntry], is_open: bool) -> markup.Html:
    """One line for errors that are alike."""
    ename, evalue, traceback, info = entries[0]
    numbers = list(dict.fromkeys(_number(info) for _, _, _, info in entries))
    engines = ", ".join(numbers[:12]) + (", …" if len(numbers) > 12 else "")
    where = "" if numbers == ["?"] else f"[{engines}:{info.get('method', 'apply')}] "
    input = _input(info)
    times = "" if len(entries) == 1 else f" — {markup.plural(len(entries), 'task')}{', the first:' if input else ''}"
    line = markup.join(markup.quiet(where), markup.bold(ename), ": ", evalue, markup.quiet(times + input))
    call = _call(info)
    body = [traceback.rstrip("\n")] if traceback else []
    if call:
        body.append(f"On {_where(info)}{call}")
    return markup.details(line, markup.pre("\n".join(body)), is_open=is_open) if body else markup.block(line)


def _input(info: EngineInfo) -> str:
    """The input of a call, in brackets; "": it is not known."""
    parts = input_parts(info)
    return f" [{', '.join(parts)}]" if parts else ""


def input_parts(info: EngineInfo) -> list[str]:
    """Which items of a map a call had, and its arguments, in words."""
    parts = [f"item {info['index']}"] if info.get("index") is not None else []
    if items := info.get("items"):
        parts.append(f"items {items[0]} to {items[1]}" + "".join(f" in steps of {step}" for step in items[2:]))
    if arguments := info.get("arguments"):
        parts.append(f"called with{shown_arguments(arguments)}")
    return parts
