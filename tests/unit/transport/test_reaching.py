"""Connections to several addresses at a time."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from engineroom.transport import reaching
from engineroom.transport.reaching import address_of, attempts


@pytest.fixture
def there() -> Iterator[tuple[str, int]]:
    """An address at which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """An address from which nothing comes back: the queue of what listens there is full."""
    with contextlib.ExitStack() as opened, socket.create_server(("127.0.0.2", 0), backlog=0) as listening:
        address = listening.getsockname()
        for _ in range(8):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield address


def closed(port: int) -> tuple[str, int]:
    """An address at which nobody listens."""
    return "127.0.0.3", port


def test_each_attempt_says_how_it_ended(there: tuple[str, int]):
    found = {attempt.host: attempt for attempt in attempts([closed(there[1]), ("no-such-host.invalid", 1), there], 5.0)}
    assert isinstance(found["127.0.0.3"].error, ConnectionRefusedError)
    assert isinstance(found["no-such-host.invalid"].error, socket.gaierror)
    assert found["no-such-host.invalid"].ip == ""
    connection = found["127.0.0.1"].connection
    assert connection is not None
    assert connection.getpeername() == there
    connection.close()


def test_an_address_that_says_nothing_does_not_keep_the_next_ones_waiting(
    there: tuple[str, int], silent: tuple[str, int]
):
    with contextlib.closing(attempts([silent, there], 60.0)) as tried:
        first = next(tried)
    assert first.host == "127.0.0.1"
    assert first.connection is not None
    first.connection.close()


def test_an_address_that_says_nothing_is_given_up(silent: tuple[str, int]):
    [attempt] = attempts([silent], 0.2)
    assert isinstance(attempt.error, TimeoutError)


def test_the_first_has_a_head_start(there: tuple[str, int], monkeypatch: pytest.MonkeyPatch):
    begun: list[str] = []
    begin = reaching._begin
    monkeypatch.setattr(reaching, "_begin", lambda found: begun.append(found[-1][0]) or begin(found))
    with contextlib.closing(attempts([there, ("127.0.0.9", 1)], 5.0)) as tried:
        connection = next(tried).connection
    assert connection is not None
    connection.close()
    assert begun == ["127.0.0.1"]


def test_attempts_that_nobody_wants_any_more_end(silent: tuple[str, int]):
    until = time.monotonic() + 0.3
    assert list(attempts([silent] * 20, 600.0, lambda: time.monotonic() > until)) == []


def test_a_name_that_cannot_be_one_has_no_address():
    [attempt] = attempts([("a" * 70 + ".b", 1)], 5.0)
    assert isinstance(attempt.error, socket.gaierror)


@pytest.mark.parametrize("url", ["tcp://", "tcp://host", "tcp://host:", "tcp://host:0", "tcp://host:70000", "tcp://:1"])
def test_a_url_without_host_or_port_is_no_address(url: str):
    with pytest.raises(ValueError, match="is no address"):
        address_of(url)
    assert address_of("tcp://[::1]:5") == ("::1", 5)
