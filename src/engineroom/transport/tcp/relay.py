"""Hosts pass large buffers on to each other, so that the controller sends each of them once.

    controller   ══ the buffer ══▶          nanny A
                 ── "nanny A has it" ──▶    nanny B, nanny C
    nanny B, C   ── "the next piece!" ──▶   nanny A: `RelayDoor`
    `RelayFetches` ◀══ the piece ══

A piece is passed on as soon as it is there, while the rest is still on its way. So a buffer takes to many hosts about
as long as to three.

Who may have a buffer the controller says, by a ticket: an HMAC of the buffer's number, made with a secret that only it
and the nanny of the relay know. The connection is encrypted, and both ends show certificates: that of the relay the
controller has told to those it sends there; the other one follows from a key of this life of the controller, which it
tells to nannies only.

Each failure ends in the same way: the nanny says that it has not got the buffer, and the controller sends it.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import select
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ...errors import ConnectionFileError
from ...messages import buffer_ticket
from ...shared_memory.pool import Blank, Pool
from ..addresses import url_of
from ..stream_listener import StreamListener
from .certificates import new_identity
from .entrance import TcpEntrance
from .link import TcpLink

log = logging.getLogger(__name__)

#: Bytes of a piece; and how many pieces are asked for ahead.
PIECE, AHEAD = 512 << 10, 8
#: Pieces that others wait for at most, as they are not here yet.
MOST_WAITING = 10_000
#: A relay that cannot be connected to within so many seconds is given up …
REACH_SECONDS = 2.0
#: … and one that has given no piece for so many.
PATIENCE_SECONDS = 10.0
#: Who has begun to fetch a buffer gets the rest, also if it is dropped here, unless nothing was asked for so long.
SERVED_SECONDS = 10.0
#: A connection that fetches nothing is closed after so many seconds.
IDLE_SECONDS = 10.0

#: a question: the buffer's number, the ticket, where the piece begins
_WANTED = struct.Struct("<Q16sQ")
#: the answer: the buffer's number and where the piece begins; then comes the piece, or nothing: it is not to be had
_PIECE = struct.Struct("<QQ")


class Part(NamedTuple):
    """What is here of a buffer: so many bytes, from its beginning."""

    memory: Any
    filled: int


class RelayDoor:
    """Gives others the pieces that they ask for. No call waits.

    Parameters
    ----------
    host : str
        The address to listen at.
    key : str
        Of all relays of this life of the controller.
    """

    def __init__(self, host: str, key: str) -> None:
        self.certificate, secret = new_identity()
        entrance = TcpEntrance(url_of(host, "*"), key, secret=secret)
        self._listener = StreamListener([entrance], max_message_size=_WANTED.size)
        self.secret = secrets.token_bytes(32)
        #: number → (who waits, where its piece begins)
        self._waiting: dict[int, list[tuple[bytes, int]]] = {}
        #: number → who has begun to fetch it, and when each has got the last piece; and the whole buffers of these
        self._fetching: dict[int, dict[bytes, float]] = {}
        self._whole: dict[int, Any] = {}

    @property
    def urls(self) -> Sequence[str]:
        """Where it listens."""
        return self._listener.urls

    def fileno(self) -> int:
        """A file descriptor that is readable when `serve` has something to do."""
        return self._listener.fileno()

    def serve(self, find: Callable[[int], Part | None]) -> None:
        """Answer what can be answered. `find`: what is here of a buffer with this number; None: it will not come."""
        while arrived := self._listener.receive():
            for peer, frames in arrived:
                if len(frames) == 1 and len(frames[0]) == _WANTED.size:
                    self._take(peer, *_WANTED.unpack(frames[0]))
        for number, waiting in list(self._waiting.items()):
            part = find(number)
            if part is None and (whole := self._whole.get(number)) is not None:
                part = Part(whole, memoryview(whole).nbytes)
            left = [(peer, start) for peer, start in waiting if not self._answer(peer, number, start, part)]
            if left:
                self._waiting[number] = left
            else:
                del self._waiting[number]
            if part is not None and part.filled == memoryview(part.memory).nbytes > 0:
                self._whole[number] = part.memory
        self._let_go(time.monotonic())

    def _let_go(self, now: float) -> None:
        """Forget who has fetched all, or asks no more, and keep nothing for these."""
        for number, fetching in list(self._fetching.items()):
            for peer in [peer for peer, since in fetching.items() if now - since > SERVED_SECONDS]:
                del fetching[peer]
            if not fetching:
                del self._fetching[number]
        for number in self._whole.keys() - self._fetching.keys():
            del self._whole[number]

    def hold(self, number: int, buffer: Any) -> None:
        """A buffer has come whole, and is dropped at once: who has begun to fetch it gets the rest."""
        if number in self._fetching or number in self._waiting:
            self._whole[number] = buffer

    def close(self) -> None:
        """End."""
        self._listener.close()
        self._waiting.clear()
        self._fetching.clear()
        self._whole.clear()

    def _take(self, peer: bytes, number: int, shown: bytes, start: int) -> None:
        """A question."""
        if not hmac.compare_digest(shown, buffer_ticket(self.secret, number)):
            self._refuse(peer, number, start)
            return
        self._listener.admit(peer)
        if sum(map(len, self._waiting.values())) >= MOST_WAITING:
            self._refuse(peer, number, start)
        else:
            self._waiting.setdefault(number, []).append((peer, start))

    def _answer(self, peer: bytes, number: int, start: int, part: Part | None) -> bool:
        """Give a piece, or say that it is not to be had. False: it may come."""
        if part is None:
            self._refuse(peer, number, start)
            return True
        view = memoryview(part.memory)
        if not view.nbytes:
            return False
        end = min(start + PIECE, view.nbytes)
        if start >= end:
            self._refuse(peer, number, start)
            return True
        if end > part.filled:
            return False
        self._listener.send(peer, [_PIECE.pack(number, start), view[start:end]])
        fetching = self._fetching.setdefault(number, {})
        if end < view.nbytes:
            fetching[peer] = time.monotonic()
        else:
            fetching.pop(peer, None)
        return True

    def _refuse(self, peer: bytes, number: int, start: int) -> None:
        self._listener.send(peer, [_PIECE.pack(number, start)])


class Source(NamedTuple):
    """Where a buffer is to be fetched."""

    urls: Sequence[str]
    certificate: str
    #: its number there, and what lets us have it
    number: int
    ticket: bytes


class _Fetch:
    """A buffer that is being fetched."""

    __slots__ = ("asked", "blank", "filled", "is_reached", "size", "source", "unneeded", "when")

    def __init__(self, source: Source, size: int, blank: Blank) -> None:
        self.source, self.size, self.blank = source, size, blank
        #: bytes that were asked for, and that have come, from the beginning
        self.asked = self.filled = 0
        #: when a piece has come, or this began
        self.when = time.monotonic()
        #: whether the relay has answered since: that there is a connection does not show that it takes our certificate
        self.is_reached = False
        #: whether the controller has dropped it meanwhile: who asks for it now gets it, then it goes
        self.unneeded = False


class Outcome(NamedTuple):
    """How fetching a buffer has ended."""

    number: int
    #: None: it was not to be had, and the relay could perhaps not even be reached
    buffer: Any = None
    unreachable: bool = False
    unneeded: bool = False


class RelayFetches:
    """Fetches buffers from other hosts. No call waits.

    Parameters
    ----------
    key : str
        Of all relays of this life of the controller.
    pool : Pool
        Has the pages for the buffers.
    """

    def __init__(self, key: str, pool: Pool) -> None:
        self._key, self._pool = key, pool
        #: by the number of the buffer here
        self._fetches: dict[int, _Fetch] = {}
        #: by the relay's certificate: the link, and when it was used
        self._links: dict[str, tuple[TcpLink, float]] = {}
        self._epoll = select.epoll()

    def fileno(self) -> int:
        """A file descriptor that is readable when `advance` has something to do."""
        return self._epoll.fileno()

    def begin(self, number: int, size: int, source: Source) -> bool:
        """Fetch a buffer of so many bytes. False: there is no room for it, or the source is none."""
        blank = self._pool.blank(size)
        if blank is None:
            return False
        if source.certificate not in self._links:
            try:
                link = TcpLink(source.urls, self._key, certificate=source.certificate)
            except ConnectionFileError as error:  # another nanny has said so: it must not end this one
                log.warning("a relay of another host is of no use: %s", error)
                return False
            self._links[source.certificate] = link, time.monotonic()
            self._epoll.register(link, select.EPOLLIN)
        self._fetches[number] = _Fetch(source, size, blank)
        return True

    def part(self, number: int) -> Part | None:
        """What has come of a buffer; None: it is not being fetched."""
        fetch = self._fetches.get(number)
        return None if fetch is None else Part(fetch.blank.room, fetch.filled)

    def let_end(self, numbers: Iterable[int]) -> list[int]:
        """Nobody needs these any more, but who asks for them now. Returns those that are not being fetched."""
        others = []
        for number in numbers:
            if number in self._fetches:
                self._fetches[number].unneeded = True
            else:
                others.append(number)
        return others

    def advance(self) -> list[Outcome]:
        """Take in what has come, and ask for more. Returns what has ended."""
        failed: dict[int, bool] = {}
        for certificate, (link, _) in self._links.items():
            while arrived := link.receive():
                for frames in arrived:
                    self._take(certificate, frames, failed)
            if link.take_renewed():  # what was asked for is lost
                for number, fetch in self._of(certificate):
                    fetch.asked = 0
                    if fetch.is_reached:
                        failed[number] = False
        self._ask()
        self._look_at_clock(failed)
        outcomes = []
        for number, fetch in list(self._fetches.items()):
            if number in failed:
                outcomes.append(Outcome(number, None, failed[number], fetch.unneeded))
            elif fetch.filled == fetch.size:
                outcomes.append(Outcome(number, fetch.blank.finish(), False, fetch.unneeded))
            else:
                continue
            del self._fetches[number]
        return outcomes

    def close(self) -> None:
        """End."""
        self._fetches.clear()
        for certificate in list(self._links):
            self._hang_up(certificate)
        self._epoll.close()

    def _of(self, certificate: str) -> list[tuple[int, _Fetch]]:
        """What is fetched from a relay."""
        return [each for each in self._fetches.items() if each[1].source.certificate == certificate]

    def _take(self, certificate: str, frames: Sequence[Any], failed: dict[int, bool]) -> None:
        """An answer."""
        theirs, start = _PIECE.unpack(frames[0]) if len(frames[0]) == _PIECE.size else (0, 0)
        for number, fetch in self._of(certificate):
            fetch.is_reached = True
            if fetch.source.number == theirs and start == fetch.filled:
                if len(frames) != 2 or memoryview(frames[1]).nbytes != min(PIECE, fetch.size - start):
                    failed[number] = False
                    continue
                fetch.blank.room[start : start + frames[1].nbytes] = frames[1]
                fetch.filled += frames[1].nbytes
                fetch.when = time.monotonic()

    def _ask(self) -> None:
        """Ask for the next pieces."""
        now = time.monotonic()
        for fetch in self._fetches.values():
            source = fetch.source
            link, _ = self._links[source.certificate]
            self._links[source.certificate] = link, now
            while fetch.asked < min(fetch.size, fetch.filled + AHEAD * PIECE):
                link.send([_WANTED.pack(source.number, source.ticket, fetch.asked)])
                fetch.asked = min(fetch.asked + PIECE, fetch.size)

    def _look_at_clock(self, failed: dict[int, bool]) -> None:
        """Give up what takes too long; close connections that nobody uses."""
        now = time.monotonic()
        for number, fetch in self._fetches.items():
            link, _ = self._links[fetch.source.certificate]
            if link.is_connected:
                if fetch.filled < fetch.size and now - fetch.when > PATIENCE_SECONDS:
                    failed[number] = False
            elif fetch.is_reached:
                failed[number] = False
            elif link.refused() or now - fetch.when > REACH_SECONDS:
                failed[number] = True
        for certificate, (_, used) in list(self._links.items()):
            if now - used > IDLE_SECONDS and not self._of(certificate):
                self._hang_up(certificate)

    def _hang_up(self, certificate: str) -> None:
        link, _ = self._links.pop(certificate)
        self._epoll.unregister(link)
        link.close()
