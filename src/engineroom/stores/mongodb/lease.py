"""The lease on a MongoDB database: one controller at a time writes to it.

A document names the owner and the end of the lease, by the server's clock. The owner renews it. Others are refused
until it ends, unless the owner is known to be dead: a process of this machine that no longer exists.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil

from ...errors import StoreBusy, StoreError
from ...system.processes import birth_of, boot_id

#: Seconds that a lease lasts. It is renewed three times in that time.
LEASE_SECONDS = 15.0

_OWNER = {"_id": "owner"}


class Lease:
    """Ownership of a database, taken on construction; StoreBusy if somebody else has it."""

    def __init__(self, database: Any, name: str, seconds: float = LEASE_SECONDS) -> None:
        self._collection, self._database, self._name, self._seconds = database.lease, database, name, seconds
        self._token = uuid.uuid4().hex
        self._renewed = 0.0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._take()
        self._thread = threading.Thread(target=self._keep, name="store-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """StoreBusy if the database is no longer ours. The server is asked only if the lease may have ended."""
        if time.monotonic() - self._renewed > self._seconds:
            self._renew()

    def release(self) -> None:
        """Give the database up. Errors are ignored, because the lease ends by itself."""
        import pymongo

        self._ended.set()
        self._thread.join()
        try:
            with pymongo.timeout(1.0):
                self._collection.delete_one({**_OWNER, "token": self._token})
        except pymongo.errors.PyMongoError:
            pass

    def _now(self) -> datetime:
        now: datetime = self._database.client.admin.command("hello")["localTime"]
        return now.replace(tzinfo=UTC)

    def _claim(self) -> dict[str, Any]:
        until = self._now() + timedelta(seconds=self._seconds)
        return {"token": self._token, "until": until, "beat": uuid.uuid4().hex, **_this_process()}

    def _take(self) -> None:
        from pymongo.errors import DuplicateKeyError

        for _ in range(3):  # of several processes that read the same document, only one can change it
            began = time.monotonic()
            try:
                self._collection.insert_one({**_OWNER, **self._claim()})
            except DuplicateKeyError:
                held = self._collection.find_one(_OWNER)
                if held is None:
                    continue
                left = (held["until"] - self._now()).total_seconds()
                if left > 0 and not _is_dead(held):
                    raise StoreBusy(
                        f"{self._name} belongs to another controller: process {held['pid']} on {held['host']}. Stop it "
                        f"first, or name another database. If it died, its lease runs out in {left:.0f} s."
                    ) from None
                same = {**_OWNER, "beat": held["beat"]}
                if not self._collection.update_one(same, {"$set": self._claim()}).matched_count:
                    continue
            self._renewed = began
            return
        raise StoreBusy(f"{self._name} was taken by another controller at this moment")

    def _renew(self) -> None:
        with self._lock:
            began = time.monotonic()
            mine = {**_OWNER, "token": self._token}
            if not self._collection.update_one(mine, {"$set": self._claim()}).matched_count:
                raise StoreBusy(f"{self._name} has been taken over by another controller; this one writes no more")
            self._renewed = began

    def _keep(self) -> None:
        from pymongo.errors import PyMongoError

        while not self._ended.wait(self._seconds / 3):
            try:
                self._renew()
            except (PyMongoError, StoreError):
                continue  # `check` reports it at the next write


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    born = psutil.Process().create_time()  # version 0.2.0 reads this, instead of the birth
    return {"pid": pid, "birth": birth_of(pid), "born": born, "host": socket.gethostname(), "on": _machine()}


def _machine() -> str:
    """A name that is the same for processes which see each other's process ids."""
    boot = boot_id()
    if boot:
        with contextlib.suppress(OSError):
            return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    return uuid.uuid4().hex  # unknown: never equal


def _is_dead(held: dict[str, Any]) -> bool:
    """Whether the owner was a process of this machine that has ended."""
    if held.get("on") != _machine():
        return False
    birth = birth_of(held["pid"])
    return bool(held.get("birth", birth) != birth)  # the lease of version 0.2.0 has none: then it has to run out
