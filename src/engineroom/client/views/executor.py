"""A view as a `concurrent.futures.Executor`. It behaves as the executors of the standard library do.

What differs: a task that runs can be cancelled, and an engine that dies breaks its own task alone.
"""

from __future__ import annotations

import itertools
import operator
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from typing import Any

from ...config import check_switches
from ...ids import new_uuid
from ...on_engine.initialized import Initialized
from ..results.ending import ResultIterator
from ..results.result import AsyncResult

#: `map` reads up to this many items of iterables that do not tell their length. Beyond, it reads as values are taken.
READ_AT_ONCE = 10_000


class ViewExecutor(Executor):
    """An Executor that submits through a view. Shutting it down never stops engines.

    Parameters
    ----------
    view : DirectView or LoadBalancedView
    initializer : callable, optional
        Called as `initializer(*initargs)` once in the process of each engine, before the first task of this executor
        there. If it raises, tasks on this engine end with `BrokenExecutor`, and so does every further call here.
    initargs : tuple
    """

    def __init__(
        self, view: Any, *, initializer: Callable[..., Any] | None = None, initargs: tuple[Any, ...] = ()
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, got {initializer!r}")
        if not isinstance(initargs, Iterable):
            raise TypeError(f"initargs is a tuple of the initializer's arguments, got {initargs!r}")
        self.view: Any = view
        self._closed = threading.Event()
        self._initializer, self._initargs = initializer, tuple(initargs)
        self._name = new_uuid()
        self._wrapped: dict[Hashable, Initialized] = {}
        self._broken: str | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call `fn(*args, **kwargs)` through the view.

        Raises
        ------
        RuntimeError
            The executor was shut down.
        BrokenExecutor
            The initializer has failed; there are no engines; the controller is gone.
        """
        result: AsyncResult = self.view.apply_async(self._prepared(fn), *args, **kwargs)
        return self._watched(result)

    def map(  # type: ignore[override]  # a keyword argument `fn` is the view's map's
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Call `fn` on each item; an iterator over the values in order.

        All items are submitted at once, unless `buffersize` is given, or the iterables do not tell their length and
        have more than 10,000 items: then items are read as values are taken, so that the iterables may be endless.
        A direct view reads all items first, and submits them at once.
        The first error ends the iterator, and aborts the calls that have not started; so does closing it.

        Parameters
        ----------
        timeout : float, optional
            Seconds from now until the last value must have been taken; else `next` raises TimeoutError.
        chunksize : int
            How many items make a task. With 1 the view's map chooses.
        buffersize : int, optional
            Most calls whose values have not been taken.
        kwargs
            Of the view's map.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not isinstance(chunksize, int) or chunksize < 1:
            raise ValueError(f"chunksize is a number of items, 1 or more; got {chunksize!r}")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError(f"buffersize is a number of calls, or None; got {buffersize!r}")
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize is a number of calls, 1 or more; got {buffersize!r}")
        fn = self._prepared(fn)
        lazily = buffersize is not None
        if not lazily and iterables and not all(hasattr(iterable, "__len__") for iterable in iterables):
            rows = iter(zip(*iterables, strict=False))
            head = list(itertools.islice(rows, READ_AT_ONCE + 1))
            lazily = len(head) > READ_AT_ONCE
            iterables = _columns(itertools.chain(head, rows) if lazily else head, len(iterables))
        if lazily and not hasattr(self.view, "scatter"):  # a direct view divides all items among its engines at once
            values = self.view.imap(fn, *iterables, max_outstanding=buffersize or "auto", **kwargs)
            return _values(values, deadline, values.cancel)
        if chunksize > 1:
            kwargs["chunksize"] = chunksize
        result = self._watched(self.view.map_async(fn, *iterables, **kwargs))
        return _values(iter(result), deadline, lambda: None if result.done() else result.abort())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse further calls. With `wait`, return when all tasks of the view have ended.

        Parameters
        ----------
        cancel_futures : bool
            End the view's tasks that have not started.
        """
        check_switches(wait=wait, cancel_futures=cancel_futures)
        self._closed.set()
        if cancel_futures:
            self.view.abort()
        if wait:
            self.view.wait()

    def _prepared(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """What to send for a function."""
        if self._closed.is_set():
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._broken is not None:
            raise BrokenExecutor(self._broken)
        if self._initializer is None:
            return fn
        if not callable(fn):
            raise TypeError(f"a function is needed, got {fn!r}")
        if not isinstance(fn, Hashable):
            return Initialized(fn, self._initializer, self._initargs, self._name)
        # Kept: a function that was sent before is found by its identity.
        if fn not in self._wrapped:
            self._wrapped[fn] = Initialized(fn, self._initializer, self._initargs, self._name)
        return self._wrapped[fn]

    def _watched(self, result: AsyncResult) -> AsyncResult:
        """Notice whether the initializer fails."""
        if self._initializer is not None:
            result.add_done_callback(self._look_at)
        return result

    def _look_at(self, result: Any) -> None:
        error = result.exception()
        name = getattr(error, "ename", "")
        if name == BrokenExecutor.__name__:
            self._broken = str(error)


def _columns(rows: Iterable[tuple[Any, ...]], count: int) -> tuple[Iterable[Any], ...]:
    """The columns of rows: lists of a list, else iterators."""
    if isinstance(rows, list):
        return tuple([row[index] for row in rows] for index in range(count))
    return tuple(map(operator.itemgetter(index), copy) for index, copy in enumerate(itertools.tee(rows, count)))


def _values(values: ResultIterator, deadline: float | None, end: Callable[[], Any]) -> Iterator[Any]:
    values.deadline = deadline
    try:
        yield from values
    finally:
        end()
