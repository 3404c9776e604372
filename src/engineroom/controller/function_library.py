"""The functions clients have sent, by digest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from ..config import MIB
from ..errors import ProtocolError
from ..ids import Digest
from ..messages import Function, TaskSpec
from ..stores import TaskStore
from ..wire.functions import digest_of

#: Pickled functions kept in memory; beyond it those nobody needs at present are dropped, oldest first.
LIMIT = 256 * MIB


class Library:
    """Functions by digest, as pickles nobody here opens."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self._functions: OrderedDict[Digest, Function] = OrderedDict()
        self._bytes = 0
        #: of all functions seen in this life of the controller, but for those that were let go of
        self.names: dict[Digest, str | None] = {}
        #: those used since `watch`; None: nobody wants to know
        self._used: set[Digest] | None = None
        #: let go of: about to be dropped from the store, unless a client sends them again before
        self.leaving: set[Digest] = set()

    def add(self, functions: Iterable[Function]) -> list[Function]:
        """Take in functions; returns those that were new.

        Raises
        ------
        ProtocolError
            A function does not have the digest it is sent under.
        """
        new = []
        for function in functions:
            if self._used is not None:
                self._used.add(function.digest)
            if function.digest in self._functions:
                continue
            if digest_of(function.payload) != function.digest:
                raise ProtocolError("a function does not have the digest it was sent under")
            self._functions[function.digest] = function
            self.leaving.discard(function.digest)
            self.names[function.digest] = function.name
            self._bytes += len(function.payload)
            new.append(function)
        return new

    def get(self, digest: Digest) -> Function | None:
        """The function, which is to be used, from memory or from the store; None if neither has it."""
        if self._used is not None:
            self._used.add(digest)
        function = self._functions.get(digest)
        if function is None:
            if digest in self.leaving:
                return None
            try:
                function = self._store.get_function(digest)
            except KeyError:
                return None
            self.add([function])
        return function

    def of(self, tasks: Iterable[TaskSpec]) -> list[Function] | None:
        """The functions that tasks call; None if one is not to be had."""
        found = [self.get(digest) for digest in {task.function for task in tasks} if digest]
        return None if None in found else found  # type: ignore[return-value]

    # ------------------------------------------------------------------------------------------ what nobody uses

    def watch(self) -> None:
        """From now on remember which functions are used."""
        self._used = set()

    def let_go(self, digests: Iterable[Digest]) -> set[Digest]:
        """Forget those of these that have not been used since `watch`. From now on clients must send them again.

        They are in `leaving` until `gone`. Whoever drops them looks there first: one that was sent again is not in it.
        """
        free = set(digests) - (self._used or set())
        self.leaving |= free
        for digest in free:
            function = self._functions.pop(digest, None)
            self._bytes -= 0 if function is None else len(function.payload)
            self.names.pop(digest, None)
        return free

    def gone(self, digests: Iterable[Digest]) -> None:
        """They are not in the store any more, unless they were sent again."""
        self.leaving.difference_update(digests)

    def unwatch(self) -> None:
        """Nobody wants to know any more."""
        self._used = None

    # ------------------------------------------------------------------------------------------ memory

    def trim(self, needed: Iterable[Digest]) -> None:
        """If there are too many, drop those not needed now."""
        if self._bytes <= LIMIT:
            return
        keep = set(needed)
        for digest in [d for d in self._functions if d not in keep]:
            if self._bytes <= LIMIT // 2:
                return
            self._bytes -= len(self._functions.pop(digest).payload)

    @property
    def is_full(self) -> bool:
        return self._bytes > LIMIT
