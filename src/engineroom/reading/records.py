"""Task records, from a running cluster or from a database that no cluster uses. Nothing is written here."""

from __future__ import annotations

import contextlib
import pickletools
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from ..client import Client
from ..client.records.provenance import provenance
from ..errors import EngineroomError, StoreError, UnknownTask
from ..ids import Digest, TaskId
from ..records.database_urls import file_of
from ..records.record import TaskRecord
from ..stores import SQLiteDB, TaskStore
from ..stores.unreadable import environment_of

#: So many names of functions are remembered.
NAMES_KEPT = 1024


class Records:
    """Records of a running cluster (`client`), or of a file or a server (`store`)."""

    def __init__(self, *, client: Client | None = None, store: TaskStore | None = None, url: str = "") -> None:
        self.client, self.url = client, url
        self._store = store
        #: the digest of a function → its name
        self._names: dict[str, str] = {}
        self._file = file_of(url)
        if store is None and self._file is not None:
            # the names of functions are read from the file, as the controller does not tell them
            with contextlib.suppress(StoreError):
                self._store = SQLiteDB.open_readonly(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._store is not None:
            self._store.close()
        if self.client is not None:
            self.client.close()

    @property
    def session(self) -> str:
        """No session is that of a command."""
        return ""

    @property
    def origin(self) -> str:
        """Where the records come from, in words."""
        where = self._file or self.url
        return f"running cluster, {where}" if self.client is not None else f"{where}, no cluster is running"

    @property
    def store(self) -> TaskStore:
        """The database, where no cluster is running."""
        assert self._store is not None
        return self._store

    def find(
        self,
        query: Mapping[str, Any],
        keys: Sequence[str] | None = None,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> list[TaskRecord]:
        """Records that match."""
        if self.client is not None:
            found: list[TaskRecord] = self.client.db_query(query, keys, sort=sort, limit=limit, skip=skip)
            return found
        return self.store.find_records(query, keys, sort=sort, limit=limit, skip=skip)

    def count(self, query: Mapping[str, Any]) -> int:
        """How many match."""
        if self.client is not None:
            return self.client.db_count(query)
        return self.store.count(query)

    def distinct(self, key: str, query: Mapping[str, Any] | None = None) -> list[Any]:
        """Each value of a key in the records that match, once."""
        if self.client is not None:
            return self.client.db_distinct(key, query)
        return self.store.distinct(key, query or {})

    def group(
        self, key: str, query: Mapping[str, Any], values: str | None = None, percentiles: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        """The records that match, grouped by the value of a key: `key` and `count`, and statistics of `values`."""
        if self.client is not None:
            found: list[dict[str, Any]] = self.client.db_group(key, query, values=values, percentiles=percentiles)
            return found
        return self.store.group_by(key, query, values=values, percentiles=percentiles)

    def one(self, name: str) -> TaskRecord:
        """The record of one task.

        Parameters
        ----------
        name : str
            Its msg_id, or the beginning of it that no other msg_id has, or "<beginning>-<number>".

        Raises
        ------
        UnknownTask
            No task has such a msg_id, or several tasks have.
        """
        session, dash, number = name.partition("-")
        if not re.fullmatch(r"[\w-]+", name):
            raise UnknownTask(f"{name!r} is not a msg_id")
        patterns = [f"^{re.escape(name)}$"]
        if dash and number:
            patterns.append(f"^{re.escape(session)}[^-]*-{re.escape(number)}$")
        patterns.append(f"^{re.escape(name)}")
        for pattern in patterns:
            found = self.find({"msg_id": {"$regex": pattern}}, ["msg_id"], limit=6)
            if len(found) == 1:
                return self.find({"msg_id": found[0]["msg_id"]}, limit=1)[0]
            if found:
                several = ", ".join(record["msg_id"] for record in found[:5]) + (" …" if len(found) > 5 else "")
                raise UnknownTask(f"several tasks begin with {name!r}: {several}")
        raise UnknownTask(f"no task has a msg_id that begins with {name!r} ({self.origin})")

    def what(self, record: TaskRecord) -> str:
        """What a task runs, in a few words: the function's name, or the first line of the code."""
        code = (record.get("content") or {}).get("code")
        if code is not None:
            return str(code).strip().partition("\n")[0]
        digest = record.get("function")
        return self.function_name(digest) if digest else ""

    def provenance(self, id: TaskId) -> dict[str, Any]:
        """With what a task was made; see `Client.provenance`."""
        return self.client.provenance(id) if self.client is not None else provenance(self, id)

    def function(self, digest: str) -> dict[str, Any]:
        """The `name` and the `source` of a function in the database."""
        found = self.store.get_function(Digest(bytes.fromhex(digest)))
        return {"name": found.name or name_in_pickle(found.payload), "source": found.source}

    def environment(self, digest: str) -> dict[str, Any]:
        """An environment in the database."""
        return environment_of(digest, self.store.get_environment(digest))

    def function_name(self, digest: str) -> str:
        """The name of a function by its digest, or the first digits of the digest if the name is not known."""
        name = self._names.get(digest)
        if name is None:
            if self._store is not None:
                with contextlib.suppress(KeyError, EngineroomError, ValueError):
                    function = self._store.get_function(Digest(bytes.fromhex(digest)))
                    name = function.name or name_in_pickle(function.payload)
            if len(self._names) >= NAMES_KEPT:
                self._names = {}
            name = self._names[digest] = name or f"function {digest[:8]}"
        return name


def name_in_pickle(payload: bytes) -> str:
    """The name of a pickled function, found without unpickling it; "" if it is not clear."""
    memo: list[Any] = []
    texts: list[str] = []
    last: Any = None
    for opcode, argument, _ in pickletools.genops(payload):
        name = opcode.name
        if name == "MEMOIZE":
            memo.append(last)
            continue
        if name in ("BINGET", "LONG_BINGET") and isinstance(argument, int) and argument < len(memo):
            argument = memo[argument]
        last = argument if isinstance(argument, str) else None
        if name == "STACK_GLOBAL":
            last = None
        if isinstance(argument, str):
            if texts and texts[-1] == "__qualname__":
                return argument.removeprefix("<locals>.")
            texts.append(argument)
    if len(texts) >= 2 and len(memo) <= 4:  # by name: module, name
        module, _, _ = texts[0].partition(" ")
        return texts[1] if module == "builtins" else f"{module}.{texts[1]}"
    return ""
