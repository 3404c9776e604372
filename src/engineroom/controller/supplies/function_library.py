"""The functions that tasks call, by digest: those that clients have sent, and those that were read from the store.

Nothing here reads the store: intake has missing functions read, and adds them before the core hears of their tasks.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from operator import attrgetter

from ...config import MIB
from ...errors import ProtocolError
from ...ids import Digest, digest_of
from ...messages import Function, TaskSpec

#: Bytes of pickled functions kept in memory. Beyond it, functions that no unfinished task calls are dropped, oldest
#: first.
LIMIT = 256 * MIB

_function_of = attrgetter("function")


class FunctionLibrary:
    """Functions in memory, as pickles that the controller never opens."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._functions: OrderedDict[Digest, Function] = OrderedDict()
        self._bytes = 0
        #: the names of all functions seen since the controller started, except forgotten ones
        self.names: dict[Digest, str | None] = {}
        #: when each of them was used last
        self._used: dict[Digest, float] = {}

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._functions

    def add(self, functions: Iterable[Function]) -> list[Function]:
        """Take in functions; returns those that were new.

        Raises
        ------
        ProtocolError
            A function does not have the digest it is sent under.
        """
        new, now = [], self._clock()
        for function in functions:
            digest = function.digest
            if digest not in self._functions:
                if digest_of(function.payload) != digest:
                    raise ProtocolError("a function does not have the digest it was sent under")
                self._functions[digest] = function
                self.names[digest] = function.name
                self._bytes += len(function.payload)
                new.append(function)
            self._used[digest] = now
        return new

    def get(self, digest: Digest) -> Function | None:
        """The function, if it is in memory."""
        return self._functions.get(digest)

    def use(self, tasks: Iterable[TaskSpec]) -> list[Digest]:
        """Note that these tasks call their functions now; returns the functions that are not in memory."""
        missing, now = [], self._clock()
        for digest in set(map(_function_of, tasks)):
            if digest:
                self._used[digest] = now
                if digest not in self._functions:
                    missing.append(digest)
        return missing

    def of(self, tasks: Iterable[TaskSpec]) -> list[Function]:
        """The functions that these tasks call, as far as they are in memory."""
        found = (self._functions.get(digest) for digest in dict.fromkeys(task.function for task in tasks))
        return [function for function in found if function is not None]

    def forget_unused(self, digests: Iterable[Digest], since: float) -> set[Digest]:
        """Forget those of these functions that were not used since this moment; returns them.

        A client that calls one of them again is asked to send it again.
        """
        forgotten = {digest for digest in digests if self._used.get(digest, since - 1) < since}
        for digest in forgotten:
            self._drop(digest)
            self.names.pop(digest, None)
            self._used.pop(digest, None)
        return forgotten

    # ------------------------------------------------------------------------------------------ memory

    @property
    def is_full(self) -> bool:
        """Whether `trim` has something to do."""
        return self._bytes > LIMIT

    def trim(self, needed: Iterable[Digest]) -> None:
        """If there is too much, drop functions that are not needed now."""
        if not self.is_full:
            return
        keep = set(needed)
        for digest in [d for d in self._functions if d not in keep]:
            if self._bytes <= LIMIT // 2:
                return
            self._drop(digest)

    def _drop(self, digest: Digest) -> None:
        function = self._functions.pop(digest, None)
        if function is not None:
            self._bytes -= len(function.payload)
