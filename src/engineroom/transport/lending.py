"""Large buffers come to a host once: its nanny keeps them, and lends them to its engines.

    controller ══ TCP ══▶ nanny: `Lender`            the buffers, each with a number
               ══ TCP ══▶ engine: `BorrowingLink`    messages that name them (`HostFrame`)
                             nanny ── Unix socket ──▶ engine    their file descriptors

A large result is on its host before it comes to the controller. The engine gives it to the nanny, too, with a number
of the engine's own, and names that number beside it. The controller has the nanny keep it, if other tasks take it, or
drop it.

                             nanny ◀── Unix socket ── engine    its file descriptor
               ◀══ TCP ══                            engine    the result (`Results.lent`)
               ══ TCP ══▶ nanny                      whether to keep it

The Unix socket has no name in the file system, so that nothing is left if a process is killed. Its random name is
known to the nanny and to the processes that are forked from it, and both ends look which user the other one is.

An engine that does not get a buffer treats the message as lost: the session (`wire.session`) notices, and the
controller sends it again, then with the buffer itself.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import select
import socket
import struct
import time
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..cores import usable_memory
from ..shared_memory.buffer import SharedBuffer, received
from ..shared_memory.pool import Pool
from .base import HOST_FRAME_FROM, OF_AN_ENGINE, Frames, HostFrame, Link
from .unix_socket import why_not_ours

log = logging.getLogger(__name__)

#: What a lender keeps at most: a part of the memory, and bytes.
SHARE_OF_MEMORY, MOST_KEPT = 1 / 8, 8 << 30
#: After a buffer could not be had, an engine asks for so long that all are sent to itself.
FAILED_SECONDS = 60.0
#: So long the controller has to say what is to become of an engine's buffer. Its engine may have died with the result.
OFFERED_SECONDS = 60.0

_NUMBER = struct.Struct("<Q")
#: an engine's buffer: its number and its bytes
_OFFER = struct.Struct("<QQ")
_ONE_DESCRIPTOR = socket.CMSG_SPACE(array("i").itemsize)
_CLOSE_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))


def new_name() -> str:
    """Where a lender is to listen: a name that nobody can guess."""
    return f"\0engineroom-{secrets.token_hex(16)}"


class _Question:
    """Engines that wait for a buffer that has not come."""

    __slots__ = ("last_sent", "peers")

    def __init__(self) -> None:
        self.peers: list[socket.socket] = []
        #: which of our messages to the controller was the last when this was looked at first; None: it was not yet
        self.last_sent: int | None = None


class Lender:
    """Keeps buffers, and gives their descriptors to who asks for their numbers. No call waits.

    The controller's numbers rise: one that is not above the highest that has come, and is neither here nor expected
    from another host, does not come any more. A buffer of an engine was here before anybody could know its number.
    """

    def __init__(self, name: str) -> None:
        #: how many bytes it can keep
        self.room = min(MOST_KEPT, int(usable_memory() * SHARE_OF_MEMORY))
        #: has the pages of what comes from the controller
        self.pool = Pool()
        self._kept: dict[int, SharedBuffer] = {}
        #: engines' buffers of which the controller has not spoken yet, and when they came, oldest first
        self._offered: OrderedDict[int, tuple[SharedBuffer, float]] = OrderedDict()
        self._offered_bytes = 0
        self._highest = 0
        #: the controller's numbers whose buffers come from another host, at any time
        self._expected: set[int] = set()
        #: by the number of the buffer
        self._asked: dict[int, _Question] = {}
        self._peers: dict[int, socket.socket] = {}
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.setblocking(False)
        self._listening.bind(name)
        self._listening.listen(1024)
        self._epoll = select.epoll()
        self._epoll.register(self._listening, select.EPOLLIN)

    def fileno(self) -> int:
        """A file descriptor that is readable when `serve` has something to do."""
        return self._epoll.fileno()

    def keep(self, numbers: Sequence[int], frames: Iterable[Any]) -> None:
        """Buffers have come. What has a number only is one that an engine has given us."""
        frames = list(frames)
        if len(numbers) > len(frames):
            self.serve()
            for number in numbers[len(frames) :]:
                if (buffer := self._take_offered(number)) is not None:
                    self._kept[number] = buffer
        for number, frame in zip(numbers, frames, strict=False):
            buffer = frame if isinstance(frame, SharedBuffer) else self.pool.copy(frame)
            self._highest = max(number, self._highest)
            self._expected.discard(number)
            if isinstance(buffer, SharedBuffer):
                self._kept[number] = buffer
            self._answer_all(number)

    def expect(self, number: int) -> None:
        """This buffer comes (`keep`), but not in its turn."""
        self._highest = max(number, self._highest)
        self._expected.add(number)

    def kept(self, number: int) -> SharedBuffer | None:
        """A buffer that is here."""
        return self._kept.get(number)

    def is_coming(self, number: int) -> bool:
        """Whether a buffer that is not here may still come."""
        return number in self._expected or (number > self._highest and not number & OF_AN_ENGINE)

    def drop(self, numbers: Iterable[int]) -> None:
        """Nobody needs these any more. Whoever has them keeps them."""
        self.serve()
        for number in numbers:
            self._kept.pop(number, None)
            self._take_offered(number)
            if number in self._expected:
                self._expected.discard(number)
                self._answer_all(number)
        self.pool.tidy()

    def renew(self) -> None:
        """The controller begins anew: it does not know what is here, and what was on its way may be lost."""
        self._kept.clear()
        self._expected.clear()
        self._drop_offered(lambda since: True)
        for number in list(self._asked):
            self._highest = max(number, self._highest)
            self._answer_all(number)

    def confirm(self, sent: int, heard: int) -> None:
        """The controller has heard so many of the messages that we have sent, and all that it had sent before is here.

        It sends a buffer before it names it. So what was asked for before one of the messages that it has heard does
        not come any more: it was lost with a connection.
        """
        self.serve()
        for number, question in list(self._asked.items()):
            if number in self._expected:
                continue
            if question.last_sent is None:
                question.last_sent = sent
            elif question.last_sent < heard:
                self._answer_all(number)

    def serve(self) -> None:
        """Answer what has been asked."""
        asked: list[tuple[socket.socket, int]] = []
        for descriptor in self._ready():
            if descriptor in self._peers:
                asked += self._hear(self._peers[descriptor])
        for peer, number in asked:  # after all that was offered has been taken in
            if number not in self._kept and self.is_coming(number):
                self._asked.setdefault(number, _Question()).peers.append(peer)
            else:
                self._answer(peer, number)
        due = time.monotonic() - OFFERED_SECONDS
        self._drop_offered(lambda since: since < due)
        self.pool.tidy()

    def close(self) -> None:
        """End."""
        self._epoll.close()
        self._listening.close()
        for peer in self._peers.values():
            peer.close()
        self._kept.clear()
        self._offered.clear()
        self.pool.close()

    def _ready(self) -> list[int]:
        """Who has said something, those who have just connected included."""
        while True:
            ready = [descriptor for descriptor, _ in self._epoll.poll(0)]
            if self._listening.fileno() not in ready or not self._accept():
                return ready

    def _accept(self) -> bool:
        try:
            accepted, _ = self._listening.accept()
        except OSError:
            return False
        if why_not_ours(accepted):
            accepted.close()
            return True
        accepted.setblocking(False)
        self._peers[accepted.fileno()] = accepted
        self._epoll.register(accepted, select.EPOLLIN)
        return True

    def _hear(self, peer: socket.socket) -> list[tuple[socket.socket, int]]:
        """Take in what an engine offers; returns what it asks for."""
        asked = []
        try:
            while True:
                data, ancillary, _, _ = peer.recvmsg(_OFFER.size, _ONE_DESCRIPTOR, _CLOSE_ON_EXEC)
                descriptor = next((array("i", content)[0] for _, _, content in ancillary), None)
                if descriptor is not None:
                    self._take_in(descriptor, data)
                elif data:
                    asked.append((peer, *_NUMBER.unpack(data)))
                else:
                    break
        except BlockingIOError:
            return asked
        except (OSError, struct.error):
            pass
        self._forget(peer)
        return []

    def _take_in(self, descriptor: int, data: bytes) -> None:
        """An engine's buffer."""
        number, size = _OFFER.unpack(data) if len(data) == _OFFER.size else (0, 0)
        try:
            buffer = received(descriptor, size)
        except (OSError, ValueError) as error:
            log.warning("an engine has offered a buffer that is of no use: %s", error)
            return
        if isinstance(buffer, SharedBuffer) and number & OF_AN_ENGINE and number not in self._offered:
            self._offered[number] = buffer, time.monotonic()
            self._offered_bytes += size
            self._drop_offered(lambda since: self._offered_bytes > self.room)

    def _take_offered(self, number: int) -> SharedBuffer | None:
        buffer, _ = self._offered.pop(number, (None, 0.0))
        if buffer is not None:
            self._offered_bytes -= len(buffer)
        return buffer

    def _drop_offered(self, is_due: Callable[[float], bool]) -> None:
        """Drop the oldest of what was offered, as long as that is due. (The argument is when it came.)"""
        while self._offered and is_due(next(iter(self._offered.values()))[1]):
            self._take_offered(next(iter(self._offered)))

    def _answer_all(self, number: int) -> None:
        """Answer all that have asked for a buffer."""
        question = self._asked.pop(number, None)
        for peer in question.peers if question is not None else ():
            self._answer(peer, number)

    def _answer(self, peer: socket.socket, number: int) -> None:
        """Give a buffer; or say, without a descriptor, that it is not here."""
        buffer, data = self._kept.get(number), _NUMBER.pack(number)
        if buffer is None and number in self._offered:
            buffer, _ = self._offered[number]
        try:
            if buffer is None:
                peer.send(data)
            else:
                descriptors = array("i", [buffer.descriptor])
                peer.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        except OSError:  # it has ended, or does not receive
            self._forget(peer)

    def _forget(self, peer: socket.socket) -> None:
        if self._peers.pop(peer.fileno(), None) is not None:
            self._epoll.unregister(peer)
            peer.close()


class Borrower:
    """Asks a lender for buffers."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._socket: socket.socket | None = None
        self._asked: set[int] = set()
        #: number → the buffer; None: it is not to be had
        self._come: dict[int, Any] = {}

    def ask(self, frames: Iterable[HostFrame]) -> None:
        """Ask for buffers, if that has not been done."""
        for frame in frames:
            if frame.number in self._asked or frame.number in self._come:
                continue
            try:
                self._connected().send(_NUMBER.pack(frame.number))
                self._asked.add(frame.number)
            except OSError as error:
                log.warning("the nanny of this host lends no buffers: %s", error)
                self._come[frame.number] = None

    def offer(self, buffer: SharedBuffer) -> int:
        """Give the lender a buffer of ours; returns its number. 0: it does not take it. This does not wait."""
        number = OF_AN_ENGINE | secrets.randbits(62)
        descriptors = array("i", [buffer.descriptor])
        try:
            self._connected().sendmsg(
                [_OFFER.pack(number, len(buffer))],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)],
                socket.MSG_DONTWAIT,
            )
        except OSError:
            return 0
        return number

    def has_answers(self, frames: Iterable[HostFrame]) -> bool:
        """Whether all of these have come, or are not to be had."""
        return all(frame.number in self._come for frame in frames)

    def take(self, frame: HostFrame) -> Any:
        """A buffer that has come; None: it is not to be had."""
        descriptor = self._come.pop(frame.number)
        if descriptor is None:
            return None
        try:
            return received(descriptor, frame.size)
        except (OSError, ValueError) as error:
            log.warning("a buffer that the nanny of this host lends is of no use: %s", error)
            return None

    def hear(self, timeout: float) -> None:
        """Wait for an answer, for so many seconds at most, and take in what has come."""
        connection = self._socket
        if connection is None:
            return
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        while poll.poll(timeout * 1000):
            timeout = 0.0
            try:
                data, ancillary, _, _ = connection.recvmsg(_NUMBER.size, _ONE_DESCRIPTOR, _CLOSE_ON_EXEC)
            except OSError:
                data, ancillary = b"", []
            if not data:
                self._lose()
                return
            (number,) = _NUMBER.unpack(data)
            self._asked.discard(number)
            self._come[number] = next((array("i", content)[0] for _, _, content in ancillary), None)

    def forget(self) -> None:
        """Nothing of what was asked for is needed."""
        self._lose()
        for descriptor in self._come.values():
            if descriptor is not None:
                os.close(descriptor)
        self._come.clear()

    def _connected(self) -> socket.socket:
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                made.connect(self._name)
                if why := why_not_ours(made):
                    raise OSError(errno.EPERM, why)
            except BaseException:
                made.close()
                raise
            self._socket = made
        return self._socket

    def _lose(self) -> None:
        """The lender has gone: what was asked for does not come."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._come.update(dict.fromkeys(self._asked))
        self._asked.clear()


class BorrowingLink:
    """A link whose messages may name buffers that the lender of this host has. They wait until these have come."""

    def __init__(self, link: Link, name: str) -> None:
        """`link`: one that takes host frames; `name`: of the lender."""
        self._link, self._borrower = link, Borrower(name)
        self.shares_memory = link.shares_memory
        #: what has come; the first message waits for its buffers
        self._waiting: deque[Frames] = deque()
        self._failed_until = 0.0
        self.fileno, self.send, self.flush, self.refused = link.fileno, link.send, link.flush, link.refused
        self.wake = link.wake

    @property
    def takes_host_frames(self) -> bool:
        """Whether the controller may send messages that name buffers."""
        return time.monotonic() >= self._failed_until

    def take_renewed(self) -> bool:
        """See `Link`. What waits for buffers has come through the connection before, and is lost with it."""
        is_renewed = self._link.take_renewed()
        if is_renewed and self._waiting:
            self._waiting.clear()
            self._borrower.forget()
        return is_renewed

    def lend(self, buffer: Any) -> int:
        """See `Link`."""
        is_fit = isinstance(buffer, SharedBuffer) and len(buffer) >= HOST_FRAME_FROM and self.takes_host_frames
        return self._borrower.offer(buffer) if is_fit else 0

    def receive(self, limit: int = 64, timeout: float = 0.0) -> list[Frames]:
        """See `Link`."""
        waiting = self._waiting
        arrived = self._link.receive(limit, 0.0 if waiting else timeout)
        if not waiting and not any(map(_host_frames, arrived)):
            return arrived
        waiting.extend(arrived)
        whole: list[Frames] = []
        while waiting and len(whole) < limit:
            wanted = _host_frames(waiting[0])
            if wanted:
                self._borrower.ask(wanted)
                if not self._borrower.has_answers(wanted):
                    self._borrower.hear(0.0 if whole else timeout)
                    if not self._borrower.has_answers(wanted):
                        break
            frames = self._filled(waiting.popleft())
            if frames is not None:
                whole.append(frames)
        return whole

    def _filled(self, frames: Frames) -> Frames | None:
        """A message with its buffers; None: it is lost, as not all are to be had."""
        borrowed = {frame: self._borrower.take(frame) for frame in set(_host_frames(frames))}
        filled = [borrowed[frame] if isinstance(frame, HostFrame) else frame for frame in frames]
        if any(frame is None for frame in filled):
            self._failed_until = time.monotonic() + FAILED_SECONDS
            return None
        return filled

    def close(self, linger: float = 0.0) -> None:
        """See `Link`."""
        self._link.close(linger)
        self._borrower.forget()


def _host_frames(frames: Frames) -> list[HostFrame]:
    return [frame for frame in frames if isinstance(frame, HostFrame)] if len(frames) > 1 else []
