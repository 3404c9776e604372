"""The ids of tasks, clients, engines, nannies and functions, each a type of its own."""

import hashlib
import os
from typing import NewType

TaskId = NewType("TaskId", str)  #: a task's `msg_id`; made by the client
ClientId = NewType("ClientId", str)  #: `client_uuid`: one client session
EngineUuid = NewType("EngineUuid", str)  #: one engine process
EngineId = NewType("EngineId", int)  #: the small number by which users index engines; a restarted engine keeps it
NannyId = NewType("NannyId", str)  #: one nanny process
Digest = NewType("Digest", bytes)  #: content address of a pickled function


def new_uuid() -> str:
    """16 random hexadecimal digits: unique enough for a session, short enough to prefix every id."""
    return os.urandom(8).hex()


def client_of(id: str) -> ClientId:
    """The client session that made a task's id."""
    return ClientId(id.rpartition("-")[0])


def digest_of(payload: bytes) -> Digest:
    """The content address of a pickled function: 16 bytes."""
    return Digest(hashlib.blake2b(payload, digest_size=16).digest())
