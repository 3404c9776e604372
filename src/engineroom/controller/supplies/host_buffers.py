"""Large buffers that engines across hosts need go to each host once: to the nanny, which lends them to its engines.

If several hosts need one, we send it to the first. It passes it on to the next two, each of which passes it on to two
(see `transport.tcp.relay`). A nanny that cannot fetch a buffer gets it from us.

The engines get messages that name these buffers (see `transport.lending`). The nanny keeps a buffer until we say that
no message will name it any more: when it was not used for some seconds, or when there is no room for others.

Large results of its engines a nanny has before we have them. It keeps those that unfinished tasks take as arguments, so
that they need not be sent back.

What is kept belongs to one session of the nanny. After its next Hello it is another peer here, which has nothing.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from ...messages import BufferNotFetched, DropBuffers, FetchBuffer, KeepBuffers, Message, RelayOpened, buffer_ticket
from ...shared_memory.buffer import key_of
from ...transport.addresses import is_loopback
from ...transport.base import HOST_FRAME_FROM, OF_AN_ENGINE, HostFrame
from ..presence.peers import Peer, Peers

log = logging.getLogger(__name__)

#: A buffer that was not used for so many seconds is dropped …
KEPT_SECONDS = 10.0
#: … and after so few, if buffers of more than so many bytes were used later: push after push must not fill memory.
MANY_KEPT_SECONDS, MANY = 2.0, 256 << 20


#: Smaller buffers we send to each host: to have another host asked for them takes about as long.
RELAYED_FROM = 4 << 20
#: To so many others a host passes a buffer on.
FAN_OUT = 2
#: A nanny that could not connect to another one does not try again for so many seconds. Who has failed with so many
#: others fetches nothing meanwhile, and from whom so many others have failed to fetch passes nothing on.
UNREACHABLE_SECONDS, FAILURES = 300.0, 2


class _Copy:
    """A buffer at one nanny."""

    __slots__ = ("nanny", "passed_on", "source")

    def __init__(self, nanny: Peer, source: Peer | None) -> None:
        """`source`: the nanny that it was to come from; None: from us."""
        self.nanny, self.source = nanny, source
        #: to so many others
        self.passed_on = 0


class _Kept:
    """What one nanny has."""

    def __init__(self) -> None:
        #: what tells a buffer from others (`key_of`) → (its number, the buffer, when it was used), the latest last
        self.buffers: OrderedDict[Any, tuple[int, Any, float]] = OrderedDict()
        self.bytes = 0


class HostBuffers:
    """Knows which buffers the nannies have."""

    def __init__(self, peers: Peers, clock: Callable[[], float]) -> None:
        self._peers, self._clock = peers, clock
        self._kept: dict[Peer, _Kept] = {}
        #: the results of this turn that nannies have: `key_of` each → (the nanny, the number, the buffer)
        self._lent: dict[Any, tuple[Peer, int, Any]] = {}
        #: nannies that pass buffers on
        self._relays: dict[Peer, RelayOpened] = {}
        #: uuids of two nannies, the first of which could not connect to the second → until when that counts
        self._failures: dict[tuple[str, str], float] = {}
        #: `key_of` each buffer → the nannies that have it, or fetch it, the first one first
        self._copies: dict[Any, list[_Copy]] = {}
        #: of the latest buffer. A later life of the controller has higher numbers, too.
        self._number = time.time_ns()

    def send(self, engine: Peer, message: Message, frames: Sequence[Any]) -> None:
        """Send a message with large buffers to an engine."""
        nanny = self._peers.nanny_of(engine) if engine.lends and frames else None
        if nanny is not None and nanny.lends:
            frames = [self._placed(nanny, frame) for frame in frames]
        self._peers.send(engine, message, frames)

    def lent(self, engine: Peer, numbers: Sequence[int], frames: Sequence[Any]) -> None:
        """The nanny of an engine has these results, too. Other numbers than those of engines' buffers are of no use."""
        nanny = self._peers.nanny_of(engine)
        if nanny is not None and nanny.lends:
            for number, frame in zip(numbers, frames, strict=False):
                if number & OF_AN_ENGINE:
                    self._lent[key_of(frame)] = nanny, number, frame

    def keep(self, frames: Sequence[Any]) -> None:
        """Tasks will take these results as arguments: a nanny that has one keeps it."""
        for frame in frames if self._lent else ():
            nanny, number, _ = self._lent.get(key_of(frame), (None, 0, None))
            if nanny is None or memoryview(frame).nbytes > nanny.lends:
                continue
            if self._have_kept(nanny, number, frame, ()):
                del self._lent[key_of(frame)]

    def drop_lent(self) -> None:
        """The turn ends: of what is lent, nobody needs what has not been kept."""
        if not self._lent:
            return
        numbers: dict[Peer, list[int]] = {}
        for nanny, number, _ in self._lent.values():
            numbers.setdefault(nanny, []).append(number)
        self._lent.clear()
        for nanny, unused in numbers.items():
            self._peers.send(nanny, DropBuffers(unused))

    def on_relay_opened(self, nanny: Peer, message: RelayOpened, _: Sequence[Any]) -> None:
        """A nanny passes buffers on."""
        self._relays[nanny] = message

    def on_not_fetched(self, nanny: Peer, message: BufferNotFetched, _: Sequence[Any]) -> None:
        """A nanny has not got a buffer from another one: it gets it from us."""
        buffers = self._kept[nanny].buffers if nanny in self._kept else {}
        key, frame = next(((k, f) for k, (number, f, _) in buffers.items() if number == message.number), (None, None))
        source = next((copy.source for copy in self._copies.get(key, ()) if copy.nanny is nanny), None)
        if message.unreachable and source is not None:
            self._failures[nanny.uuid, source.uuid] = self._clock() + UNREACHABLE_SECONDS
            log.warning("%s cannot connect to %s: large data comes to it another way", nanny.host, source.host)
        if frame is None or not self._peers.send(nanny, KeepBuffers([message.number]), [frame]):
            self._peers.send(nanny, DropBuffers([message.number]))

    def sweep(self) -> None:
        """Have nannies drop what was not used for some seconds; forget nannies that have gone."""
        for nanny, kept in list(self._kept.items()):
            if self._is_gone(nanny):
                del self._kept[nanny]
                for key in kept.buffers:
                    self._forget_copy(nanny, key)
            else:
                self._drop(nanny, kept)
        for nanny in [each for each in self._relays if self._is_gone(each)]:
            del self._relays[nanny]
        now = self._clock()
        for pair in [each for each, until in self._failures.items() if until <= now]:
            del self._failures[pair]

    def _is_gone(self, nanny: Peer) -> bool:
        return self._peers.by_uuid.get(nanny.uuid) is not nanny

    def _placed(self, nanny: Peer, frame: Any) -> Any:
        """What to send to an engine of this nanny in the place of a buffer."""
        size = memoryview(frame).nbytes
        if not HOST_FRAME_FROM <= size <= nanny.lends:
            return frame
        buffers, key = self._kept.setdefault(nanny, _Kept()).buffers, key_of(frame)
        if (known := buffers.pop(key, None)) is not None:
            number, same, _ = known
            buffers[key] = number, same, self._clock()
            return HostFrame(number, size)
        self._number += 1
        return HostFrame(self._number, size) if self._have_kept(nanny, self._number, frame, [frame]) else frame

    def _have_kept(self, nanny: Peer, number: int, frame: Any, content: Sequence[Any]) -> bool:
        """Have a nanny keep a buffer, and drop others if there is no room. `content`: (), if the nanny has it.

        False: it cannot be told.
        """
        kept, size, key = self._kept.setdefault(nanny, _Kept()), memoryview(frame).nbytes, key_of(frame)
        self._drop(nanny, kept, room_for=size)
        source = self._source(nanny, key, size) if content else None
        if source is not None:
            theirs, _, _ = self._kept[source.nanny].buffers[key]
            is_told = self._peers.send(nanny, self._fetching(source.nanny, theirs, number, size))
        else:
            is_told = self._peers.send(nanny, KeepBuffers([number]), content)
        if not is_told:
            return False
        if source is not None:
            source.passed_on += 1
        self._copies.setdefault(key, []).append(_Copy(nanny, source.nanny if source is not None else None))
        kept.buffers[key] = number, frame, self._clock()
        kept.bytes += size
        return True

    def _source(self, nanny: Peer, key: Any, size: int) -> _Copy | None:
        """The copy of a buffer that a nanny is to fetch; None: it gets the buffer from us."""
        if size < RELAYED_FROM or nanny not in self._relays:
            return None
        for copy in self._copies.get(key, ()):
            relay = self._relays.get(copy.nanny)
            if relay is None or copy.passed_on >= FAN_OUT or self._is_gone(copy.nanny) or not relay.urls:
                continue
            is_near = nanny.host == copy.nanny.host or not is_loopback(relay.urls[0])
            if is_near and self._may_connect(nanny, copy.nanny):
                return copy
        return None

    def _may_connect(self, nanny: Peer, other: Peer) -> bool:
        """Whether a nanny can probably connect to another one."""
        failures = self._failures
        if not failures:
            return True
        own = sum(1 for uuid, _ in failures if uuid == nanny.uuid)
        others = sum(1 for _, uuid in failures if uuid == other.uuid)
        return (nanny.uuid, other.uuid) not in failures and own < FAILURES and others < FAILURES

    def _fetching(self, source: Peer, theirs: int, number: int, size: int) -> FetchBuffer:
        relay = self._relays[source]
        return FetchBuffer(number, size, theirs, buffer_ticket(relay.secret, theirs), relay.urls, relay.certificate)

    def _forget_copy(self, nanny: Peer, key: Any) -> None:
        left = [copy for copy in self._copies.get(key, ()) if copy.nanny is not nanny]
        if left:
            self._copies[key] = left
        else:
            self._copies.pop(key, None)

    def _drop(self, nanny: Peer, kept: _Kept, room_for: int = 0) -> None:
        """Have a nanny drop what was not used for some seconds, and the oldest until there is room for more."""
        now, numbers = self._clock(), []
        while kept.buffers:
            key, (number, buffer, used) = next(iter(kept.buffers.items()))
            later = kept.bytes - memoryview(buffer).nbytes
            seconds = MANY_KEPT_SECONDS if later > MANY else KEPT_SECONDS
            if kept.bytes + room_for <= nanny.lends and now - used <= seconds:
                break
            del kept.buffers[key]
            self._forget_copy(nanny, key)
            kept.bytes = later
            numbers.append(number)
        if numbers:
            self._peers.send(nanny, DropBuffers(numbers))
