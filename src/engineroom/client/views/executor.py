"""A view as a `concurrent.futures.Executor`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import Any, Protocol

from ..results.result import AsyncResult


class Submitting(Protocol):
    """A view, as its executor uses it."""

    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call a function remotely."""

    def map_async(self, f: Callable[..., Any], /, *sequences: Any, **kwargs: Any) -> Any:
        """Call a function on each item."""

    def abort(self, jobs: Any = None, targets: Any = None, block: bool | None = None) -> None:
        """End tasks that have not started."""

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for tasks."""


class ViewExecutor(Executor):
    """An Executor that submits through a view. Shutting it down never stops engines."""

    def __init__(self, view: Submitting) -> None:
        self.view = view
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call `fn(*args, **kwargs)` through the view."""
        if self._closed:
            raise RuntimeError("cannot submit after shutdown")
        return self.view.apply_async(fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Call `fn` on each item; an iterator over the values in order."""
        if self._closed:
            raise RuntimeError("cannot submit after shutdown")
        result = self.view.map_async(fn, *iterables, **kwargs)
        if timeout is not None:
            return iter(result.get(timeout))
        return iter(result)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse further calls. With `wait`, return when all tasks of the view have ended."""
        self._closed = True
        if cancel_futures:
            self.view.abort()
        if wait:
            self.view.wait()
