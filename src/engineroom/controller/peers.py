"""Who is connected: clients, engines and nannies, each known since its Hello."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import _version
from ..errors import AuthenticationError, ProtocolError
from ..ids import EngineId
from ..messages import Hello, Message, Pong, Refused, Welcome
from ..transport import Listener
from ..wire import frames
from ..wire.input_cache import ValueCache

log = logging.getLogger(__name__)

DECODERS: dict[str, Callable[[bytes], Any]] = {
    "client": frames.decode_from_client,
    "engine": frames.decode_from_engine,
    "nanny": frames.decode_from_nanny,
}


class Peer:
    """One connected process."""

    __slots__ = (
        "address",
        "decode",
        "engine",
        "functions",
        "host",
        "last_heard",
        "nanny",
        "promised",
        "received",
        "role",
        "sent",
        "uuid",
        "values",
    )

    def __init__(self, address: bytes, hello: Hello, now: float) -> None:
        self.address = address
        self.role = hello.role
        self.uuid = hello.uuid
        self.host = hello.host
        self.decode = DECODERS[hello.role]
        self.last_heard = now
        #: messages since Hello / Welcome, to notice lost ones
        self.received = 1
        self.sent = 0
        #: engines: their number, their nanny, and the digests of the functions they have
        self.engine = EngineId(-1)
        self.nanny = hello.nanny
        self.host = hello.host
        self.functions: set[bytes] = set()
        #: … and the results it has since its Hello
        self.values: ValueCache[None] = ValueCache()
        #: nannies: how many engines they mean to have
        self.promised = 0


class Peers:
    """The peers by address, and the door they come in through."""

    def __init__(self, listener: Listener, key: str) -> None:
        self._listener = listener
        self._key = key.encode()
        self._known: dict[bytes, Peer] = {}
        #: uuid → peer
        self.by_uuid: dict[str, Peer] = {}
        self.engines: dict[EngineId, Peer] = {}
        #: messages thrown away because they made no sense
        self.dropped = 0

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._known.values()))

    def role(self, role: str) -> list[Peer]:
        """All peers of a role."""
        return [peer for peer in self._known.values() if peer.role == role]

    def receive(self, address: bytes, header: bytes, now: float) -> tuple[Peer, Message] | Hello | None:
        """Decode a message: from a known peer, or the Hello of a new one; None if it is worth nothing."""
        peer = self._known.get(address)
        try:
            if peer is not None:
                peer.last_heard = now
                peer.received += 1
                message = peer.decode(header)
                return message if type(message) is Hello else (peer, message)
            return frames.decode_hello(header)
        except ProtocolError as error:
            if peer is None and _is_ping(header):  # known to an earlier life of the controller: it will say Hello
                self._listener.send(address, [frames.encode(Pong(0, known=False))])
                return None
            self.dropped += 1
            if peer is not None:
                self.forget(peer)
                self._refuse(address, error)
            if peer is None:  # perhaps known to an earlier life of the controller: it will say Hello
                log.info("dropped a message of somebody who has not said Hello: %s", error)
            elif self.dropped & (self.dropped - 1) == 0:  # 1st, 2nd, 4th, 8th …: a flood does not fill the log
                log.warning("dropped a message that makes no sense (%d so far): %s", self.dropped, error)
            return None

    def admit(self, address: bytes, hello: Hello, now: float) -> Peer | None:
        """Let a peer in, or refuse it and say why."""
        try:
            if not hmac.compare_digest(hello.key.encode(), self._key):
                raise AuthenticationError("the key is wrong")
            if hello.version != _version.PROTOCOL_VERSION:
                raise ProtocolError(
                    f"it speaks protocol version {hello.version}, this controller (engineroom {_version.__version__}) "
                    f"speaks {_version.PROTOCOL_VERSION}. Use the same release at both ends."
                )
            if hello.role not in DECODERS:
                raise ProtocolError(f"a peer is a client, an engine or a nanny, not {hello.role!r}")
        except (AuthenticationError, ProtocolError) as error:
            log.warning("refused a %.20r: %s", hello.role, error)
            self._refuse(address, error)
            return None
        before = self._known.get(address)
        peer = Peer(address, hello, now)
        if before is not None:
            peer.functions, peer.promised, peer.engine = before.functions, before.promised, before.engine
        self._known[address] = self.by_uuid[peer.uuid] = peer
        return peer

    def forget(self, peer: Peer) -> None:
        """The peer is gone."""
        if self._known.get(peer.address) is peer:
            del self._known[peer.address]
        if self.by_uuid.get(peer.uuid) is peer:
            del self.by_uuid[peer.uuid]
        if self.engines.get(peer.engine) is peer:
            del self.engines[peer.engine]

    def send(self, peer: Peer, message: Message, buffers: Sequence[Any] = ()) -> bool:
        """Send to a peer. What cannot be sent is made up for when the peer notices that it misses something."""
        header = frames.encode(message)
        peer.sent += 1
        try:
            return self._listener.send(peer.address, [header, *buffers])
        except Exception:  # as if it were lost on the way
            log.exception("a message to %s %s could not be sent", peer.role, peer.uuid)
            return False

    def welcome(self, peer: Peer, message: Welcome) -> None:
        """Greet a peer; both ends count messages from here."""
        self._listener.send(peer.address, [frames.encode(message)])
        peer.sent, peer.received = 0, 1

    def pong(self, peer: Peer, sent: int) -> None:
        """Answer a Ping, and say whether all that the peer sent has come."""
        peer.sent += 1
        self._listener.send(peer.address, [frames.encode(Pong(peer.sent, known=sent == peer.received))])

    def _refuse(self, address: bytes, error: AuthenticationError | ProtocolError) -> None:
        self._listener.send(address, [frames.encode(Refused(error.code, str(error)))])


def _is_ping(header: bytes) -> bool:
    return len(header) < 32 and b"ping" in header
