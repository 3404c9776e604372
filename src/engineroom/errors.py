"""Every exception a user can meet.

    EngineroomError
    ├── ConfigError (ValueError)         a setting, flag or argument is not valid
    ├── ConnectionFileError (OSError)    no cluster found: the connection file is missing or broken
    ├── AuthenticationError (PermissionError)   the controller refused our key
    ├── ProtocolError                    the other end speaks another protocol version, or sent an invalid message
    ├── ControllerLost (ConnectionError) the controller stopped answering
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
    └── IPythonError → KernelError
        ├── NoEnginesRegistered
        ├── TaskAborted
        ├── TaskTimeout
        ├── UnmetDependency → ImpossibleDependency → InvalidDependency, DependencyTimeout
        └── RemoteError                  the task raised on its engine
            ├── EngineError              the engine died or went away while it held the task
            └── CompositeError           several tasks raised

`TimeoutError` is the builtin. Each class has a stable `code`, used by the command line and in JSON.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NoReturn, TypedDict

TimeoutError = builtins.TimeoutError


class EngineInfo(TypedDict, total=False):
    """Where a remote error came from."""

    engine_id: int | None
    engine_uuid: str | None
    method: str


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


class ProtocolError(EngineroomError):
    """The other end speaks another protocol version, or sent an invalid message."""

    code = "protocol"


class ControllerLost(EngineroomError, ConnectionError):
    """The controller stopped answering."""

    code = "controller-lost"


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


class IPythonError(EngineroomError):
    """Base of the errors that users of IPython.parallel know."""

    code = "ipython"


class KernelError(IPythonError):
    """Something went wrong on or with an engine."""

    code = "kernel"


class NoEnginesRegistered(KernelError):
    """There is no engine to run this on."""

    code = "no-engines"


class TaskAborted(KernelError):
    """The task was aborted before it started, or cancelled while it was running."""

    code = "aborted"


class TaskTimeout(KernelError):
    """The task ran for longer than its `run_timeout`, and was stopped."""

    code = "task-timeout"


class UnmetDependency(KernelError):
    """Raised by a task on an engine that lacks what the task needs: the task is tried on another engine."""

    code = "unmet-dependency"


class ImpossibleDependency(UnmetDependency):
    """No engine can ever run this task."""

    code = "impossible-dependency"


class InvalidDependency(ImpossibleDependency):
    """A dependency cannot be used: the task depends on itself, on a direct task, or on a task of another cluster."""

    code = "invalid-dependency"


class DependencyTimeout(ImpossibleDependency):
    """The tasks that this one depends on did not end within its `timeout`."""

    code = "dependency-timeout"


class RemoteError(KernelError):
    """The task raised on its engine.

    Attributes
    ----------
    ename, evalue : str
        Name and text of the remote exception.
    traceback : str
        The engine's traceback, as text.
    engine_info : dict
        `engine_id`, `engine_uuid` and `method` ("apply" or "execute").
    """

    code = "remote"

    def __init__(self, ename: str, evalue: str, traceback: str = "", engine_info: EngineInfo | None = None) -> None:
        super().__init__(ename, evalue)
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback or ""
        self.engine_info: EngineInfo = engine_info or {}
        if self.traceback:
            self.add_note(f"Traceback on {_where(self.engine_info)}:\n{self.traceback}")

    def __str__(self) -> str:
        where = self.engine_info
        if where.get("engine_id") is None:
            return f"{self.ename}: {self.evalue}"
        return f"[{where['engine_id']}:{where.get('method', 'apply')}] {self.ename}: {self.evalue}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.ename, self.evalue, self.traceback, self.engine_info)

    def render_traceback(self) -> list[str]:
        """The remote traceback as lines, ending with this error."""
        return [*self.traceback.splitlines(), str(self)]

    _render_traceback_ = render_traceback  # IPython shows this instead of the local frames

    def print_traceback(self, excid: int | None = None) -> None:
        """Print the remote traceback to stderr."""
        print("\n".join(self.render_traceback()), file=sys.stderr)


class EngineError(RemoteError):
    """The engine died or went away while it held this task; the text says which, where and why."""

    code = "engine"

    def __init__(self, evalue: str = "", traceback: str = "", engine_info: EngineInfo | None = None) -> None:
        super().__init__("EngineError", evalue, traceback, engine_info)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.evalue, self.traceback, self.engine_info)


#: One entry of `CompositeError.elist`.
ErrorEntry = tuple[str, str, str, EngineInfo]


class CompositeError(RemoteError):
    """Several tasks raised; `elist` holds (ename, evalue, traceback, engine_info) of each."""

    code = "composite"
    tb_limit = 4  #: how many tracebacks are shown

    def __init__(self, message: str, elist: Sequence[ErrorEntry]) -> None:
        Exception.__init__(self, message, elist)
        self.message = message
        self.elist = list(elist)
        self.ename, self.evalue, self.traceback, self.engine_info = "CompositeError", message, "", {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.elist)

    def __str__(self) -> str:
        lines = [self.message]
        lines += [
            f"[{_number(info)}:{info.get('method', 'apply')}]: {name}: {value}"
            for name, value, _, info in self.elist[: self.tb_limit]
        ]
        if len(self.elist) > self.tb_limit:
            lines.append(f".... {len(self.elist) - self.tb_limit} more exceptions ...")
        return "\n".join(lines)

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

    def print_traceback(self, excid: int | None = None) -> None:
        """Print the remote tracebacks to stderr, or only that of number `excid`."""
        print("\n".join(self.render_traceback(excid)), file=sys.stderr)

    def raise_exception(self, excid: int = 0) -> NoReturn:
        """Raise number `excid` of the collected errors as a `RemoteError`."""
        raise self._entry(excid)

    def _entry(self, excid: int) -> RemoteError:
        try:
            return RemoteError(*self.elist[excid])
        except IndexError:
            raise IndexError(f"an exception with index {excid} does not exist; there are {len(self.elist)}") from None


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


def collect_exceptions(results: Iterable[Any], method: str = "unspecified") -> list[Any]:
    """Return the results if none of them is an exception.

    Raises
    ------
    BaseException
        One result is an exception: it is raised.
    CompositeError
        Several are.
    """
    collected = list(results)
    failed = [r for r in collected if isinstance(r, BaseException)]
    if not failed:
        return collected
    if len(failed) == 1:
        raise failed[0]
    elist: list[ErrorEntry] = []
    for error in failed:
        if isinstance(error, CompositeError):
            elist += error.elist
        elif isinstance(error, RemoteError):
            elist.append((error.ename, error.evalue, error.traceback, error.engine_info))
        else:
            elist.append((type(error).__name__, str(error), "", {"method": method}))
    raise CompositeError(f"one or more exceptions raised in: {method}", elist)


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
        ConfigError,
        MessageTooLarge,
    )
}


def _number(info: EngineInfo) -> str:
    number = info.get("engine_id")
    return "?" if number is None else str(number)


def _where(info: EngineInfo) -> str:
    return f"engine {_number(info)}"
