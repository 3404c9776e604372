"""Decorators that make functions run on engines."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...remote import engine_calls

if TYPE_CHECKING:
    from . import View


def remote(view: View, block: bool | None = None, **flags: Any) -> Callable[[Callable[..., Any]], RemoteFunction]:
    """Decorator: calling the function calls it through a view.

    >>> @er.remote(view, block=True)   # doctest: +SKIP
    ... def host():
    ...     import socket
    ...     return socket.gethostname()
    """
    return lambda function: RemoteFunction(view, function, block=block, **flags)


def parallel(
    view: View, dist: str = "b", block: bool | None = None, ordered: bool = True, **flags: Any
) -> Callable[[Callable[..., Any]], ParallelFunction]:
    """Decorator: the function takes whole sequences and is called on parts of them in parallel.

    Its `.map(*sequences)` calls it on each item instead.
    """
    return lambda function: ParallelFunction(view, function, dist=dist, block=block, ordered=ordered, **flags)


class RemoteFunction:
    """A function whose calls go through a view."""

    def __init__(self, view: View, f: Callable[..., Any], block: bool | None = None, **flags: Any) -> None:
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
        view: View,
        f: Callable[..., Any],
        dist: str = "b",
        block: bool | None = None,
        ordered: bool = True,
        chunksize: int | None = None,
        **flags: Any,
    ) -> None:
        super().__init__(view, f, block, **flags)
        self.dist, self.ordered, self.chunksize = dist, ordered, chunksize

    def __call__(self, *sequences: Any) -> Any:
        """Call the function on parts of the sequences; the results are put together."""
        from . import DirectView

        with self.view.temp_flags(**self._flags()):
            view: Any = self.view
            if not isinstance(view, DirectView):
                return view._parted_balanced(self.func, sequences, self.dist, self.ordered, self.chunksize)
            return view._parted(self.func, engine_calls.apply_to_part, sequences, self.dist, None)

    def map(self, *sequences: Any) -> Any:
        """Call the function on each item of the sequences."""
        from . import LoadBalancedView

        with self.view.temp_flags(**self._flags()):
            if isinstance(self.view, LoadBalancedView):
                return self.view.map(self.func, *sequences, ordered=self.ordered, chunksize=self.chunksize)
            return self.view.map(self.func, *sequences)
