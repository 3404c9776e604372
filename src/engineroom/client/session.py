"""Who a client is, in the records of its tasks. It has no connection and no state."""

from __future__ import annotations


class Session:
    """The identity of a client; its attribute `session` is the `client_uuid` of its tasks' records."""

    def __init__(self, uuid: str) -> None:
        self.session = uuid
