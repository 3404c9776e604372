"""Large buffers that engines across hosts need go to each host once: to the nanny, which lends them to its engines.

The engines get messages that name these buffers (see `transport.lending`). The nanny keeps a buffer until we say that
no message will name it any more: when it was not used for some seconds, or when there is no room for others.

Large results of its engines a nanny has before we have them. It keeps those that unfinished tasks take as arguments, so
that they need not be sent back.

What is kept belongs to one session of the nanny. After its next Hello it is another peer here, which has nothing.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from ...messages import DropBuffers, KeepBuffers, Message
from ...shared_memory.buffer import key_of
from ...transport.base import HOST_FRAME_FROM, OF_AN_ENGINE, HostFrame
from ..presence.peers import Peer, Peers

#: A buffer that was not used for so many seconds is dropped …
KEPT_SECONDS = 10.0
#: … and after so few, if buffers of more than so many bytes were used later: push after push must not fill memory.
MANY_KEPT_SECONDS, MANY = 2.0, 256 << 20


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

    def sweep(self) -> None:
        """Have nannies drop what was not used for some seconds; forget nannies that have gone."""
        for nanny, kept in list(self._kept.items()):
            if self._peers.by_uuid.get(nanny.uuid) is not nanny:
                del self._kept[nanny]
                continue
            self._drop(nanny, kept)

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
        kept, size = self._kept.setdefault(nanny, _Kept()), memoryview(frame).nbytes
        self._drop(nanny, kept, room_for=size)
        if not self._peers.send(nanny, KeepBuffers([number]), content):
            return False
        kept.buffers[key_of(frame)] = number, frame, self._clock()
        kept.bytes += size
        return True

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
            kept.bytes = later
            numbers.append(number)
        if numbers:
            self._peers.send(nanny, DropBuffers(numbers))
