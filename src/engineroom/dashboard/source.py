"""Where the dashboard's records come from: a running cluster, or else its database; and the way back when it returns.

Questions block, so each runs in one of a few threads: the web server's own thread never waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..client import Client
from ..client.connection.connecting import has_ended
from ..errors import ControllerLost, EngineroomError
from ..reading.records import Records
from ..records.database_urls import file_of

T = TypeVar("T")

#: Threads for questions of viewers; each has a connection of its own to a database file.
THREADS = 4
#: Seconds after which a question is given up.
ANSWER_SECONDS = 60.0
#: Seconds between two looks whether a cluster runs again.
RETRY_SECONDS = 1.0


class Place(Protocol):
    """A cluster or a database, as the command line names it."""

    @property
    def name(self) -> str:
        """What the page is called."""

    @property
    def log_folder(self) -> Path | None:
        """Where the cluster's processes write their logs; None: unknown."""

    def is_running(self) -> bool:
        """Whether the cluster runs."""

    def retention(self) -> dict[str, Any] | None:
        """What is kept in the database, as settings; None: unknown."""

    def open(self) -> Records:
        """Its records: of the running cluster, or of the database."""

    def purge(self, query: dict[str, Any]) -> int:
        """Delete the records that match from a database that no cluster uses; returns how many."""


class Source:
    """The records of one place, opened again whenever its cluster ends or begins to run."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._records: Records | None = None
        self._looked = 0.0
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="dashboard")
        #: counts how often the records were opened
        self.opened = 0

    def records(self) -> Records:
        """The records, now.

        Raises
        ------
        EngineroomError
            There is neither a running cluster nor a database that can be read.
        """
        with self._lock:
            current = self._records
            if current is not None and not self._is_out_of_date(current):
                return current
            if current is not None:
                self._close()
            self._records = self.place.open()
            self.opened += 1
            return self._records

    def _is_out_of_date(self, records: Records) -> bool:
        client = records.client
        if client is not None and client.closed:
            return True
        now = time.monotonic()
        if now - self._looked < RETRY_SECONDS:
            return False
        self._looked = now
        if client is not None:  # killed, and not started again: its connection file names a process that is gone
            return has_ended(client.connection) and not self.place.is_running()
        return self.place.is_running()

    def client(self) -> Client:
        """The client of the running cluster.

        Raises
        ------
        ControllerLost
            No cluster is running.
        """
        client = self.records().client
        if client is None:
            raise ControllerLost("no cluster is running: this needs one")
        return client

    @property
    def file(self) -> Path | None:
        """The database, if it is a file on this host."""
        path = file_of(self.records().url)
        return path if path is not None and path.exists() else None

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer to a question that blocks, from a thread.

        Raises
        ------
        TimeoutError
            It took too long.
        """
        asked = asyncio.get_running_loop().run_in_executor(self._pool, question)
        try:
            return await asyncio.wait_for(asked, ANSWER_SECONDS)
        except TimeoutError:
            raise TimeoutError(f"there was no answer within {ANSWER_SECONDS:g} s") from None

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            self._close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _close(self) -> None:
        records, self._records = self._records, None
        if records is not None:
            with contextlib.suppress(EngineroomError, OSError):
                records.__exit__(None, None, None)
