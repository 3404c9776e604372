"""The connection to a MongoDB server: asks again when it breaks, and reports errors as ours."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ...errors import QueryError, StoreError
from ..query.deadline import Deadline
from .server import brief, codec, connect, hosts_of, masked

#: Seconds to try again after a broken connection.
PATIENCE_SECONDS = 10.0
#: Times to send what breaks the connection.
TRIES = 3

_DEFAULT_DATABASE = "engineroom"
_TIMED_OUT = 50

_T = TypeVar("_T")


class Connection:
    """A client of the server and the database that its URL names. Nothing is asked yet."""

    def __init__(self, url: str, query_seconds: float, patience: float) -> None:
        #: without the password
        self.url = masked(url)
        self.query_seconds, self._patience = query_seconds, patience
        self.closed = False
        self._client = connect(url)
        name = self._client.get_default_database(_DEFAULT_DATABASE).name
        self.database: Any = self._client.get_database(name, codec_options=codec())

    def close(self) -> None:
        self.closed = True
        self._client.close()

    def ping(self) -> None:
        """Ask the server whether it is there."""
        self._client.admin.command("ping")

    def again(self, ask: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Ask the server; ask again for a while if the connection breaks."""
        from pymongo.errors import ConnectionFailure

        deadline, pause = time.monotonic() + self._patience, 0.05
        while True:
            try:
                return ask(*args, **kwargs)
            except ConnectionFailure:
                if self.closed or time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, 1.0)

    def read(self, ask: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """The same, with errors reported."""
        with self.reported("read"):
            return self.again(ask, *args, **kwargs)

    def survives(self, ask: Callable[..., object], *args: Any) -> bool:
        """Ask. False: the question breaks the connection each time, though the server answers others."""
        from pymongo.errors import ConnectionFailure

        for _ in range(TRIES):
            try:
                ask(*args)
                return True
            except ConnectionFailure:
                self.again(self.ping)
        return False

    @contextlib.contextmanager
    def reported(self, what: str) -> Iterator[None]:
        """Errors of the server and the connection, as ours."""
        from pymongo import errors

        if self.closed:
            raise StoreError(f"cannot {what}: {self.url} is closed")
        try:
            yield
        except errors.ConnectionFailure as error:
            raise StoreError(
                f"cannot {what}: no MongoDB server answers at {hosts_of(self._client)} ({brief(error)})"
            ) from None
        except errors.ExecutionTimeout as error:
            raise Deadline(self.query_seconds).passed() from error
        except errors.OperationFailure as error:
            if error.code == _TIMED_OUT:
                raise Deadline(self.query_seconds).passed() from error
            if error.code in (18, 8000) or "auth" in str(error).lower():
                raise StoreError(f"{self.url} refuses the user or the password ({brief(error)})") from None
            if what in ("read", "count"):
                raise QueryError(f"the MongoDB server does not answer this query: {brief(error)}") from error
            raise StoreError(f"the MongoDB server could not {what}: {brief(error)}") from error
        except (errors.PyMongoError, OverflowError) as error:
            raise StoreError(f"the MongoDB server could not {what}: {brief(error)}") from error
