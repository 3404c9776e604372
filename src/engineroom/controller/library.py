"""The functions clients have sent, by digest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from ..config import MIB
from ..errors import ProtocolError
from ..ids import Digest
from ..messages import Function
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
        #: of all functions seen in this life of the controller
        self.names: dict[Digest, str | None] = {}

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._functions

    def add(self, functions: Iterable[Function]) -> list[Function]:
        """Take in functions; returns those that were new.

        Raises
        ------
        ProtocolError
            A function does not have the digest it is sent under.
        """
        new = []
        for function in functions:
            if function.digest in self._functions:
                continue
            if digest_of(function.payload) != function.digest:
                raise ProtocolError("a function does not have the digest it was sent under")
            self._functions[function.digest] = function
            self.names[function.digest] = function.name
            self._bytes += len(function.payload)
            new.append(function)
        return new

    def get(self, digest: Digest) -> Function | None:
        """The function, from memory or from the store; None if neither has it."""
        function = self._functions.get(digest)
        if function is None:
            try:
                function = self._store.get_function(digest)
            except KeyError:
                return None
            self.add([function])
        return function

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
