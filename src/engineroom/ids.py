"""The kinds of names that travel through the system, each its own type."""

import os
from typing import NewType

TaskId = NewType("TaskId", str)  #: a task's `msg_id`; made by the client
ClientId = NewType("ClientId", str)  #: `client_uuid`: one client session
EngineUuid = NewType("EngineUuid", str)  #: one life of one engine process
EngineId = NewType("EngineId", int)  #: the small number users index with; kept when a nanny restarts an engine
NannyId = NewType("NannyId", str)  #: one nanny process
Digest = NewType("Digest", bytes)  #: content address of a pickled function


def new_uuid() -> str:
    """16 hexadecimal digits of fresh randomness: enough for sessions, short enough to prefix every id."""
    return os.urandom(8).hex()
