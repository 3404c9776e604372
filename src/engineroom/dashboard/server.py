"""The dashboard's process: listens on this host alone, writes its link into a private file, serves until it is told
to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..config import write_private
from ..errors import ConfigError
from .live import Live
from .routes import application
from .security import Access, Guard, new_token
from .source import Place, Source

#: Seconds that open connections have at the end.
FAREWELL = 1
#: Seconds in which a connection has to ask something.
SILENT_SECONDS = 10.0
#: Connections at once. Anybody on this host may connect, so that a new one takes the place of one that asks nothing.
MOST_CONNECTIONS = 200


class Dashboard:
    """A dashboard of one place.

    Parameters
    ----------
    place : Place
        What it shows.
    port : int
        Where it listens; 0: a free port.
    read_only : bool
        Whether all actions are refused.
    hosts : iterable of str
        More names by which browsers may call this host: a proxy's.
    link_file : Path, optional
        A file (mode 0600) that gets the link, and is removed at the end.
    token : str, optional
        The secret of the link; default: a new one.

    Raises
    ------
    ConfigError
        The port cannot be had.
    """

    def __init__(
        self,
        place: Place,
        *,
        port: int = 0,
        read_only: bool = False,
        hosts: Iterable[str] = (),
        link_file: Path | None = None,
        token: str | None = None,
    ) -> None:
        self._socket = _listen(port)
        number = self._socket.getsockname()[1]
        access = Access(token or new_token(), number, read_only=read_only, hosts=hosts)
        #: the link: whoever has it may read, and act unless the dashboard is read-only
        self.url = f"http://127.0.0.1:{number}/?token={access.token}"
        self._link_file = link_file
        self._source = Source(place)
        app, live = application(self._source, access)
        config = uvicorn.Config(
            Guard(app, access), log_level="warning", access_log=False, lifespan="off", ws="none", server_header=False,
            proxy_headers=False, timeout_graceful_shutdown=FAREWELL, http=_Connection,
        )  # fmt: skip
        self._server = _Server(config, live)

    def serve(self) -> None:
        """Serve until `stop`, SIGINT or SIGTERM."""
        if self._link_file is not None:
            found = {"url": self.url, "pid": os.getpid(), "host": socket.gethostname()}
            write_private(self._link_file, json.dumps(found))
        try:
            self._server.run(sockets=[self._socket])
        finally:
            if self._link_file is not None:
                self._link_file.unlink(missing_ok=True)
            self._source.close()
            self._socket.close()

    def stop(self) -> None:
        """Have `serve` return, from any thread."""
        self._server.should_exit = True


class _Connection(H11Protocol):
    """One that asks nothing, or never ends its question, is closed: no stranger keeps others out."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        mine = (each for each in self.connections if isinstance(each, _Connection))
        others = [each for each in mine if not each.transport.is_closing()]
        if len(others) >= MOST_CONNECTIONS:
            for silent in [each for each in others if each.is_silent][:1]:
                silent.transport.abort()
        super().connection_made(transport)
        self._look_again()

    @property
    def is_silent(self) -> bool:
        """Whether no question is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _look_again(self) -> None:
        self._last_seen = self.cycle
        self._next_look = self.loop.call_later(SILENT_SECONDS, self._look)

    def _look(self) -> None:
        if self.is_silent and self.cycle is self._last_seen:
            self.transport.abort()
        else:
            self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        super().connection_lost(exc)


class _Server(uvicorn.Server):
    """Ends the streams of events first, otherwise it would wait for them; returns after a signal, and is not killed."""

    def __init__(self, config: uvicorn.Config, live: Live) -> None:
        super().__init__(config)
        self._live = live

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGINT and SIGTERM. uvicorn's own sends itself the signal again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._live.close()
        await super().shutdown(sockets)


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()  # whoever has the link may connect at once
    except (OSError, OverflowError) as error:
        listener.close()
        why = getattr(error, "strerror", None) or error
        hint = "Without --port it finds a free one"
        raise ConfigError(f"the dashboard cannot listen on port {port}: {why}. {hint}") from None
    listener.set_inheritable(False)
    return listener
