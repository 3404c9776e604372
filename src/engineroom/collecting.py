"""What the result of several tasks raises: the errors of the tasks, put together.

One error alone keeps its own class, and is a `CompositeError` too. So `except ValueError` and `except CompositeError`
both catch it, as does `except*`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from .errors import CompositeError, EngineInfo, ErrorEntry, KernelError, RemoteError, TaskAborted


def collect_exceptions(results: Iterable[Any], method: str = "unspecified") -> list[Any]:
    """Return the results of several tasks if none of them is an exception.

    Parameters
    ----------
    method : str
        What was called, for the text.

    Raises
    ------
    CompositeError
        Tasks have failed: see `together`.
    BaseException
        The only exception is no outcome of a task that has run: it is raised as it is.
    """
    collected = list(results)
    failed = [r for r in collected if isinstance(r, BaseException)]
    if failed:
        raise together(failed, method)
    return collected


def together(failed: Sequence[BaseException], method: str, *, single: bool = False) -> BaseException:
    """The exception for the errors of tasks. `single`: of the only task of a call, whose error is raised as it is."""
    if len(failed) == 1:
        return failed[0] if single else _only_one(failed[0], method)
    elist: list[ErrorEntry] = []
    errors: list[Exception] = []
    for error in failed:
        if isinstance(error, CompositeError):
            elist += error.elist
            errors += error.exceptions
            continue
        errors.append(error if isinstance(error, Exception) else RemoteError(type(error).__name__, str(error)))
        elist.append(_entry(error, method))
    return CompositeError(_message(method), elist, errors)


def _message(method: str) -> str:
    return f"one or more exceptions raised in: {method}"


def _entry(error: BaseException, method: str) -> ErrorEntry:
    if isinstance(error, RemoteError):
        return error.ename, error.evalue, error.traceback, error.engine_info
    info: EngineInfo = {"method": method}
    if isinstance(error, KernelError) and error.msg_id is not None:
        info |= {"engine_id": error.engine_id, "msg_id": error.msg_id, "index": error.index, "host": error.host,
                 "arguments": error.arguments, "items": error.items}  # fmt: skip
    return type(error).__name__, str(error), "", info


# ---------------------------------------------------------------------------------------------- exactly one


class OnlyOne(CompositeError):
    """Exactly one of several tasks raised. Each instance has a class of its error's class and this one."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _only_one, (self.exceptions[0], self._message.partition(": ")[2])

    def __str__(self) -> str:
        return str(self.exceptions[0])

    def __repr__(self) -> str:
        return repr(self.exceptions[0])

    def render_traceback(self, excid: int | None = None) -> list[str]:
        """The traceback of the error, as the error itself shows it."""
        [error] = self.exceptions
        return error.render_traceback() if isinstance(error, RemoteError) else super().render_traceback(excid)

    _render_traceback_ = render_traceback


@functools.lru_cache(maxsize=256)
def _class_for(kind: Any) -> type[OnlyOne]:
    """A class for `OnlyOne`s that are instances of another class too. TypeError if Python cannot make it."""
    return type(kind.__name__, (OnlyOne, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def _only_one(error: BaseException, method: str) -> BaseException:
    """The same error, also as a CompositeError. `error` stays as it is."""
    if isinstance(error, CompositeError | TaskAborted) or not isinstance(error, KernelError):
        return error
    elist = [_entry(error, method)]
    if isinstance(error, ExceptionGroup):  # its `exceptions` are its own members
        return CompositeError(_message(method), elist, [error])
    kind: Any = type(error)
    try:
        reduced: Any = error.__reduce_ex__(4)
        make, arguments, *_ = reduced
        made = make(*arguments)
        made.__dict__.update(vars(error))
        made.__class__ = _class_for(kind)
    except Exception:  # a class of the user that cannot be copied, or whose instances have a layout of their own
        return CompositeError(_message(method), elist, [error])
    made.__cause__, made.__context__ = error.__cause__, error.__context__
    made.__suppress_context__ = error.__suppress_context__
    made.elist, made.exceptions, made._message = elist, (error,), _message(method)
    made.ename, made.evalue, made.traceback, made.engine_info = elist[0]
    return made  # type: ignore[no-any-return]
