"""Connections of a dashboard that ask nothing: strangers of this host may connect, and keep nobody out."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'engineroom[dashboard]'")

from engineroom.dashboard import server
from engineroom.dashboard.source import Records


class Nowhere:
    """A place without records."""

    name = "nowhere"
    log_folder: Path | None = None

    def is_running(self) -> bool:
        return False

    def retention(self) -> dict[str, Any] | None:
        return None

    def open(self) -> Records:
        raise NotImplementedError

    def purge(self, query: dict[str, Any]) -> int:
        raise NotImplementedError


@pytest.fixture
def port() -> Iterator[int]:
    """A dashboard in a thread of this process."""
    dashboard = server.Dashboard(Nowhere())
    thread = threading.Thread(target=dashboard.serve)
    thread.start()
    yield int(dashboard.url.split(":")[2].split("/")[0])
    dashboard.stop()
    thread.join(30)
    assert not thread.is_alive()


def connect(port: int, sent: bytes = b"") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=30)
    made.sendall(sent)
    return made


@pytest.mark.parametrize("silent_seconds", [0.2])
@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT"])
def test_who_asks_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch, silent_seconds: float, sent: bytes, request: Any):
    monkeypatch.setattr(server, "SILENT_SECONDS", silent_seconds)
    with connect(request.getfixturevalue("port"), sent) as stranger, contextlib.suppress(ConnectionResetError):
        while stranger.recv(65536):  # ends when the connection does: after 30 s this raises
            pass


def test_a_new_connection_takes_the_place_of_a_silent_one(monkeypatch: pytest.MonkeyPatch, port: int):
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 20)
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(connect(port)) for _ in range(60)]
        for _ in range(5):
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            link.request("GET", "/")
            assert link.getresponse().status == 401
            link.close()
        ended = 0
        for stranger in strangers:
            stranger.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                with contextlib.suppress(ConnectionResetError):
                    assert stranger.recv(1) == b""
                ended += 1
        assert ended >= 40
