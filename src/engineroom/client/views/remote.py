"""Decorators that make functions run on engines."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ...config import check_switches
from .flags import yes_or_no


class CallingView(Protocol):
    """What these functions use of a view."""

    block: bool

    def temp_flags(self, **flags: Any) -> AbstractContextManager[Any]:
        """Set flags for the time of a `with` block."""

    def apply(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `f` remotely."""

    def _map_items(
        self, f: Callable[..., Any], sequences: tuple[Any, ...], ordered: bool, chunksize: int | None
    ) -> Any:
        """Call `f` on each item."""

    def _call_on_parts(
        self, f: Callable[..., Any], sequences: tuple[Any, ...], dist: str, ordered: bool, chunksize: int | None
    ) -> Any:
        """Call `f` on parts of the sequences."""


def remote(
    view: CallingView, block: bool | None = None, **flags: Any
) -> Callable[[Callable[..., Any]], RemoteFunction]:
    """Decorator: calling the function calls it through a view.

    >>> @er.remote(view, block=True)   # doctest: +SKIP
    ... def host():
    ...     import socket
    ...     return socket.gethostname()
    """
    return lambda function: RemoteFunction(view, function, block=block, **flags)


def parallel(
    view: CallingView, dist: str = "b", block: bool | None = None, ordered: bool = True, **flags: Any
) -> Callable[[Callable[..., Any]], ParallelFunction]:
    """Decorator: the function takes whole sequences and is called on parts of them in parallel.

    Its `.map(*sequences)` calls it on each item instead.
    """
    return lambda function: ParallelFunction(view, function, dist=dist, block=block, ordered=ordered, **flags)


class RemoteFunction:
    """A function whose calls go through a view."""

    def __init__(self, view: CallingView, f: Callable[..., Any], block: bool | None = None, **flags: Any) -> None:
        if not hasattr(view, "temp_flags"):
            raise TypeError(f"a view is needed, got {view!r:.60} ({type(view).__name__})")
        if block is not None:
            yes_or_no("block", block)
        if not callable(f):
            raise TypeError(f"a function is needed, got {f!r:.60} ({type(f).__name__})")
        functools.update_wrapper(self, f)
        self.__doc__ = f"{type(self).__name__} wrapping:\n{f.__doc__ or ''}"
        self.view, self.func, self.block, self.flags = view, f, block, flags

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self.view.temp_flags(**self._flags()):
            return self.view.apply(self.func, *args, **kwargs)

    def _flags(self) -> dict[str, Any]:
        block = self.view.block if self.block is None else self.block
        return {"block": block, **self.flags}


class ParallelFunction(RemoteFunction):
    """A function over sequences, run on parts of them."""

    def __init__(
        self,
        view: CallingView,
        f: Callable[..., Any],
        dist: str = "b",
        block: bool | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        **flags: Any,
    ) -> None:
        check_switches(ordered=ordered, return_exceptions=return_exceptions)
        super().__init__(view, f, block, **flags)
        if dist not in ("b", "r"):
            raise ValueError(f"dist is 'b' (blocks) or 'r' (round robin), not {dist!r}")
        self.dist, self.ordered, self.chunksize = dist, ordered, chunksize
        self.return_exceptions = return_exceptions

    def __call__(self, *sequences: Any) -> Any:
        """Call the function on parts of the sequences; the results are put together."""
        flags = self._flags()
        with self.view.temp_flags(**{**flags, "block": False}):
            result = self.view._call_on_parts(self.func, sequences, self.dist, self.ordered, self.chunksize)
        return self._given(result, flags["block"])

    def map(self, *sequences: Any) -> Any:
        """Call the function on each item of the sequences."""
        flags = self._flags()
        with self.view.temp_flags(**{**flags, "block": False}):
            result = self.view._map_items(self.func, sequences, self.ordered, self.chunksize)
        return self._given(result, flags["block"])

    def _given(self, result: Any, block: bool) -> Any:
        """What the call returns: the result, or its value."""
        if self.return_exceptions:
            result._return_exceptions = True
        return result.get() if block else result
