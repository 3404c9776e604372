"""The environments of clients: each tells of its own once, with its first tasks.

A client that has gone may have tasks that have not ended, whose records come later. It may also come back: then it
tells again. So of those that have gone only the latest are kept, and those with tasks: others come and go for months.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from ...ids import ClientId

#: Of clients that have gone, so many are kept, the latest, whether or not they have tasks.
GONE_KEPT = 500


class ClientEnvironments:
    """The digest of each client's environment."""

    def __init__(self) -> None:
        self.digests: dict[ClientId, str] = {}
        #: those of them that have gone, the first first
        self._gone: dict[ClientId, None] = {}
        #: with more than these, it is time to look
        self._most = 2 * GONE_KEPT

    def tell(self, client: ClientId, digest: str) -> None:
        """A client tells of its environment."""
        self.digests[client] = digest
        self._gone.pop(client, None)

    def left(self, client: ClientId, busy: Callable[[], Collection[ClientId]]) -> None:
        """A client has gone. `busy`: says which have tasks that have not ended. It takes long, and is asked rarely."""
        if client not in self.digests:
            return
        self._gone[client] = None
        if len(self._gone) > self._most:
            kept = busy()
            for each in [each for each in list(self._gone)[:-GONE_KEPT] if each not in kept]:
                del self._gone[each], self.digests[each]
            self._most = max(2 * GONE_KEPT, 2 * len(self._gone))
