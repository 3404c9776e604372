"""Functions that need an initializer: it is called once in each engine's process, before the first of them.

This is what `initializer` of a `concurrent.futures` executor means for engines, which are there before the executor.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

#: executor → why its initializer failed in this process; None: it succeeded
_done: dict[str, str | None] = {}


class Initialized:
    """A function that is called once an executor's initializer has been.

    Parameters
    ----------
    function : callable
    initializer : callable
        Called as `initializer(*initargs)`.
    executor : str
        Names the executor: its initializer is called once per process.
    """

    def __init__(
        self, function: Callable[..., Any], initializer: Callable[..., Any], initargs: tuple[Any, ...], executor: str
    ) -> None:
        functools.update_wrapper(self, function, updated=())
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.function, self.initializer, self.initargs, self.executor = function, initializer, initargs, executor

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if self.executor not in _done:
            try:
                self.initializer(*self.initargs)
                _done[self.executor] = None
            except Exception:
                _done[self.executor] = traceback.format_exc()
        if (reason := _done[self.executor]) is not None:
            raise BrokenExecutor(f"the initializer of this executor failed on this engine:\n{reason}")
        return self.function(*args, **kwargs)
