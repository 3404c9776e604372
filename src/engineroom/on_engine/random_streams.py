"""Random numbers for tasks: a stream of its own for each item of a map that was given a seed.

The stream of item i is that of `numpy.random.SeedSequence(seed).spawn(n)[i]`. It depends on the seed and on i alone:
not on engines, chunks, or how often the item was tried.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .engine_calls import Reference, call_reference


class _Stream:
    """The random numbers of one item."""

    def __init__(self, entropy: Any, key: tuple[int, ...]) -> None:
        self._entropy, self._key = entropy, key
        self._generator: Any = None

    @property
    def generator(self) -> Any:
        if self._generator is None:
            import numpy

            self._generator = numpy.random.default_rng(numpy.random.SeedSequence(self._entropy, spawn_key=self._key))
        return self._generator

    def words(self) -> list[int]:
        """Eight numbers of 32 bits that seed the older generators."""
        digest = hashlib.blake2b(repr((self._entropy, self._key)).encode(), digest_size=32).digest()
        return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 32, 4)]


#: of the item that is running
_current: _Stream | None = None
#: of this process: (its pid, the generator)
_of_process: tuple[int, Any] | None = None


def task_rng() -> Any:
    """The random numbers of the running item of a map: a `numpy.random.Generator`.

    In `view.map(f, …, seed=…)` each item has a generator of its own, and each call in the item gives the same one.
    Anywhere else, also outside of tasks, it is one generator of this process, seeded by the operating system.

    >>> def draw(n):                                              # doctest: +SKIP
    ...     return er.task_rng().normal(size=n).mean()
    >>> view.map_sync(draw, [1000] * 8, seed=1)                   # doctest: +SKIP
    """
    global _of_process
    if _current is not None:
        return _current.generator
    if _of_process is None or _of_process[0] != os.getpid():
        import numpy

        _of_process = os.getpid(), numpy.random.default_rng()
    return _of_process[1]


class Seeded:
    """A function of the items of a map, each with random numbers of its own.

    While it runs an item, `task_rng`, the functions of `random` and those of `numpy.random` draw from streams that
    depend on the seed and the item alone. Afterwards, `random` and `numpy.random` are as they were.
    """

    def __init__(self, f: Callable[..., Any], entropy: Any, key: tuple[int, ...] = ()) -> None:
        functools.update_wrapper(self, f, updated=())
        self.f, self.entropy, self.key = f, entropy, key

    def __call__(self, item: int, *args: Any) -> Any:
        with _drawing_from(_Stream(self.entropy, (*self.key, item))):
            return self.f(*args)

    def items(self, first: int, step: int) -> Callable[..., Any]:
        """A function to be called with the arguments of items `first`, `first + step`, … in turn."""
        item = first - step

        def call(*args: Any) -> Any:
            nonlocal item
            item += step
            return self(item, *args)

        return call

    def __reduce__(self) -> tuple[Any, ...]:
        return Seeded, (self.f, self.entropy, self.key)


def seeded(f: Callable[..., Any], seed: Any) -> Callable[..., Any]:
    """A function with the `seed` of its map; None: the function itself.

    Raises
    ------
    ValueError
        The seed is neither a whole number, nor some of them, nor a SeedSequence of numpy.
    """
    if seed is None:
        return f
    if isinstance(f, Reference):
        f = functools.partial(call_reference, f.name)
    if hasattr(seed, "spawn_key") and hasattr(seed, "entropy"):
        return Seeded(f, seed.entropy, tuple(seed.spawn_key))
    try:
        return Seeded(f, tuple(map(_whole, seed)) if hasattr(seed, "__iter__") else _whole(seed))
    except TypeError:
        raise ValueError(
            f"seed is a whole number, 0 or more, several of them, or a numpy.random.SeedSequence; got {seed!r}"
        ) from None


def _whole(value: Any) -> int:
    number = operator.index(value)
    if number < 0 or isinstance(value, bool):
        raise TypeError
    return number


@contextmanager
def _drawing_from(stream: _Stream) -> Iterator[None]:
    global _current
    numpy = _numpy()
    before, state = _current, random.getstate()
    legacy = None if numpy is None else numpy.random.get_state(legacy=False)
    try:
        _current, words = stream, stream.words()
        random.seed(sum(word << 32 * place for place, word in enumerate(words)))
        if numpy is not None:
            numpy.random.seed(words)
        yield
    finally:
        _current = before
        random.setstate(state)
        if numpy is not None:
            numpy.random.set_state(legacy)


@functools.cache
def _numpy() -> Any:
    """numpy, if it is installed. The function may import it only when it runs, and then draw from `numpy.random`."""
    try:
        import numpy
    except ImportError:
        return None
    return numpy


def reseed() -> None:
    """Give this process random numbers of its own. (`random` does so by itself in a forked process; numpy does not.)"""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
