"""How an engine runs a task of the classic interface (`engineroom.tasks`).

A `Work` is pickled as the function of such tasks. Tasks with the same function and the same `depend` share one. It is
sent once to each engine, and each engine checks once whether its properties allow these tasks.
"""

from __future__ import annotations

import itertools
import linecache
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..ids import digest_of
from ..messages import Function
from ..wire.functions import main_namespace
from ..wire.script_globals import execute
from .engine_calls import clear

_numbers = itertools.count(1)


class Work:
    """Runs classic tasks.

    Parameters
    ----------
    function : bytes
        The pickled function to be called; b"": the tasks are expressions.
    depend : bytes
        The pickled function of the engine's properties that decides whether these tasks may run there; b"": they may.
    """

    def __init__(self, function: bytes = b"", depend: bytes = b"") -> None:
        # Unpickled here, so that the globals that travel with them are collected. An error is raised at the call.
        self._function = _load(function)
        self._depend = _load(depend)

    def depend(self, properties: dict[str, Any]) -> Any:
        """Whether these tasks may run on an engine with these properties."""
        return self._depend is None or self._depend(properties)

    def __call__(
        self,
        what: Any,
        pull: Sequence[str] = (),
        push: Mapping[str, Any] | None = None,
        clear_before: bool = False,
        clear_after: bool = False,
    ) -> dict[str, Any]:
        """Run the expression `what`, or call the function with `what` = (args, kwargs).

        Returns the pulled values by name. "result" is what the function returned.
        """
        namespace, results = main_namespace(), {}
        try:
            if clear_before:
                clear()
            if push:
                namespace.update(push)
            if self._function is None:
                _execute(what, namespace)
            else:
                results["result"] = self._function(*what[0], **what[1])
            for name in pull:
                if name not in namespace:
                    raise NameError(f"the task pulls {name!r}, but no such name is defined after it has run")
                results[name] = namespace[name]
            return results
        finally:
            if clear_after:
                clear()


class _Travelling:
    """Pickled in place of a Work, so that the client need not unpickle the functions."""

    def __init__(self, function: bytes, depend: bytes) -> None:
        self._parts = function, depend

    def __reduce__(self) -> tuple[Any, ...]:
        return Work, self._parts


def pickled_work(function: bytes = b"", depend: bytes = b"") -> Function:
    """The `Work` of these pickled functions, pickled."""
    payload = pickle.dumps(_Travelling(function, depend), 5)
    return Function(digest_of(payload), payload)


def _load(pickled: bytes) -> Callable[..., Any] | None:
    if not pickled:
        return None
    try:
        function: Callable[..., Any] = pickle.loads(pickled)
    except Exception as error:
        return _raiser(error)
    return function


def _raiser(error: Exception) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    return fail


def _execute(source: str, namespace: dict[str, Any]) -> None:
    name = f"<task {next(_numbers) % 1000}>"
    try:
        execute(compile(source, name, "exec"), namespace)
    finally:
        if "\n" in source or sys.exc_info()[0] is not None:  # for tracebacks, also of functions that the source defines
            linecache.cache[name] = (len(source), None, source.splitlines(True), name)
