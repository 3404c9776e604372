"""The large buffers that a nanny keeps for its engines: they come from the controller, from engines, from other hosts.

`Lender` hands them to the engines (`transport.lending`). `RelayDoor` and `RelayFetches` exchange them with other hosts
(`transport.tcp.relay`), if the controller wants that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import ProtocolError
from ...messages import BufferNotFetched, DropBuffers, FetchBuffer, KeepBuffers, Message, RelayOpened
from ...transport.lending import Lender
from ...transport.tcp.link import TcpLink
from ...transport.tcp.relay import Part, RelayDoor, RelayFetches, Source
from ...wire import frames as wire

log = logging.getLogger(__name__)


class NannyBuffers:
    """Keeps them. No call waits.

    Parameters
    ----------
    lender : Lender
        Has them.
    link : TcpLink
        That of the nanny.
    send : callable
        Says something to the controller.
    """

    def __init__(self, lender: Lender, link: TcpLink, send: Callable[[Message], None]) -> None:
        self._lender, self._link, self._send = lender, link, send
        self._door: RelayDoor | None = None
        self._fetches: RelayFetches | None = None

    def descriptors(self) -> list[int]:
        """File descriptors: if one is readable, `serve` has something to do."""
        parts = (self._lender, self._door, self._fetches)
        return [part.fileno() for part in parts if part is not None]

    def serve(self) -> None:
        """Do what can be done now."""
        self._lender.serve()
        if self._fetches is not None:
            for ended in self._fetches.advance():
                if ended.buffer is not None:
                    self._lender.keep([ended.number], [ended.buffer])
                else:
                    self._send(BufferNotFetched(ended.number, ended.unreachable))
                if ended.unneeded:
                    self._lender.drop([ended.number])
                    if self._door is not None and ended.buffer is not None:
                        self._door.hold(ended.number, ended.buffer)
        if self._door is not None:
            self._door.serve(self._find)

    def welcome(self, relay_key: str) -> None:
        """The controller begins anew: it does not know what is here. `relay_key`: see `Welcome`."""
        self._lender.renew()
        self._close_relay()
        if not relay_key or not self._link.own_address:
            return
        try:
            self._door = RelayDoor(self._link.own_address, relay_key)
        except OSError as error:
            log.warning("this host passes no large buffers on to others: %s", error)
            return
        self._fetches = RelayFetches(relay_key, self._lender.pool)
        self._send(RelayOpened(list(self._door.urls), self._door.certificate, self._door.secret))

    def confirm(self, sent: int, heard: int) -> None:
        """See `Lender`."""
        self._lender.confirm(sent, heard)

    def on_keep(self, message: KeepBuffers, frames: Sequence[Any]) -> None:
        """Buffers have come, or an engine's is to be kept."""
        self._lender.keep(message.numbers, frames)

    def on_fetch(self, message: FetchBuffer, _: Sequence[Any]) -> None:
        """A buffer is to be had from another host."""
        self._lender.expect(message.number)
        source = Source(message.urls, message.certificate, message.theirs, message.ticket)
        if self._fetches is None or not self._fetches.begin(message.number, message.size, source):
            self._send(BufferNotFetched(message.number))

    def on_drop(self, message: DropBuffers, _: Sequence[Any]) -> None:
        """Nobody needs these any more."""
        numbers = message.numbers if self._fetches is None else self._fetches.let_end(message.numbers)
        self._lender.drop(numbers)

    def close(self) -> None:
        """End."""
        self._close_relay()
        self._lender.close()

    def _close_relay(self) -> None:
        for part in (self._door, self._fetches):
            if part is not None:
                part.close()
        self._door = self._fetches = None

    def _find(self, number: int) -> Part | None:
        """What is here of a buffer; None: it does not come."""
        buffer = self._lender.kept(number)
        if buffer is not None:
            return Part(buffer, len(buffer))
        part = self._fetches.part(number) if self._fetches is not None else None
        return part or self._arriving(number) or (Part(b"", 0) if self._lender.is_coming(number) else None)

    def _arriving(self, number: int) -> Part | None:
        """The part of a buffer that has come from the controller, if its message is the one that is coming now."""
        frames, filled = self._link.arriving()
        if len(frames) < 2:
            return None
        try:
            message = wire.decode_to_nanny(bytes(frames[0]))
        except ProtocolError:
            return None
        if isinstance(message, KeepBuffers) and message.numbers[len(frames) - 2 : len(frames) - 1] == [number]:
            return Part(frames[-1], filled)
        return None
