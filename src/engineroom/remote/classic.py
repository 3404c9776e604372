"""What a classic task (`engineroom.tasks`) does on an engine.

`Work` travels as the function of such tasks, so tasks with the same function and the same `depend` share it: it is
sent once to each engine, and each engine is asked once whether its properties allow them.
"""

from __future__ import annotations

import itertools
import linecache
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..messages import Function
from ..wire.functions import digest_of, main_namespace
from .engine_calls import clear

_numbers = itertools.count(1)


class Work:
    """Runs classic tasks.

    Parameters
    ----------
    function : bytes
        The pickled function to be called; b"": tasks are expressions.
    depend : bytes
        The pickled function of the engine's properties that says whether such tasks may run there; b"": they may.
    """

    def __init__(self, function: bytes = b"", depend: bytes = b"") -> None:
        # Here, so that the globals that travel along are collected. What cannot be unpickled is told when it is called.
        self._function = _load(function)
        self._depend = _load(depend)

    def depend(self, properties: dict[str, Any]) -> Any:
        """Whether such tasks may run on an engine with these properties."""
        return self._depend is None or self._depend(properties)

    def __call__(
        self,
        what: Any,
        pull: Sequence[str] = (),
        push: Mapping[str, Any] | None = None,
        clear_before: bool = False,
        clear_after: bool = False,
    ) -> dict[str, Any]:
        """Run an expression, or call the function with `what`: (args, kwargs). Returns what is pulled, by name.

        What the function returned is in it as "result".
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
                    raise NameError(f"the task was to pull {name!r}, and there is no such name after it has run")
                results[name] = namespace[name]
            return results
        finally:
            if clear_after:
                clear()


class _Travelling:
    """What is pickled in the place of a Work: nothing needs to be unpickled here."""

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
        exec(compile(source, name, "exec"), namespace)
    finally:
        if "\n" in source or sys.exc_info()[0] is not None:  # for tracebacks, now and of functions it has defined
            linecache.cache[name] = (len(source), None, source.splitlines(True), name)
