"""Links and listeners over TCP: who can connect to whom, and what strangers can do."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import wait_until

from engineroom.config import ConnectionInfo
from engineroom.errors import ConnectionFileError
from engineroom.messages.rights import RIGHTS, Rights, key_with_rights
from engineroom.shared_memory.buffer import SHARED_FROM, SharedBuffer
from engineroom.shared_memory.pool import Pool
from engineroom.transport import connect, new_identity, stream_link, stream_listener
from engineroom.transport.reaching import address_of
from engineroom.transport.stream import STRANGER_BYTES, greeting, pack
from engineroom.transport.stream_listener import StreamListener
from engineroom.transport.tcp import entrance, sealed_socket
from engineroom.transport.tcp.certificates import certificate, link_context
from engineroom.transport.tcp.entrance import TcpEntrance
from engineroom.transport.tcp.link import TcpLink

CERTIFICATE, SECRET = new_identity()


@contextmanager
def listening(url: str = "tcp://127.0.0.1", key: str = "the key", secret: str = SECRET) -> Iterator[StreamListener]:
    listener = StreamListener([TcpEntrance(url, key, secret=secret)])
    try:
        yield listener
    finally:
        listener.close()


@contextmanager
def linked(listener: StreamListener, key: str = "the key", certificate: str = CERTIFICATE) -> Iterator[TcpLink]:
    link = TcpLink([listener.urls[0]], key, certificate=certificate)
    try:
        yield link
    finally:
        link.close()


@pytest.fixture
def listener() -> Iterator[StreamListener]:
    before = set(threading.enumerate())
    with listening() as listener:
        yield listener
    assert set(threading.enumerate()) == before


def raw(listener: StreamListener) -> socket.socket:
    """A stranger's connection."""
    return socket.create_connection(address_of(listener.urls[0]), timeout=20)


def with_key(listener: StreamListener) -> ssl.SSLSocket:
    """A connection of somebody who has the key, and says what he likes."""
    return link_context(CERTIFICATE, "the key").wrap_socket(raw(listener))


def heard(listener: StreamListener, seconds: float = 5.0) -> list[tuple[bytes, list[bytes]]]:
    return [(peer, [bytes(part) for part in parts]) for peer, parts in listener.receive(timeout=seconds)]


def is_closed(stranger: socket.socket) -> bool:
    """Whether the listener has closed a connection."""
    stranger.setblocking(False)
    try:
        while stranger.recv(1 << 16):
            pass
        return True
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


def assert_serves(listener: StreamListener) -> None:
    """A link that comes now is heard and answered."""
    with linked(listener) as link:
        link.send([b"hello"])
        [(peer, parts)] = wait_until(lambda: heard(listener, 0.1))
        assert parts == [b"hello"]
        assert listener.send(peer, [b"welcome"])
        assert wait_until(lambda: link.receive(timeout=0.1)) == [[b"welcome"]]
        assert not link.refused()


# ---------------------------------------------------------------------------------------------- certificates


def test_a_certificate_follows_from_its_seed():
    assert certificate(bytes(32)) == certificate(bytes(32))
    assert certificate(bytes(32)) != certificate(b"x" * 32)
    assert new_identity() != new_identity()


def test_what_is_encrypted_has_keys_of_its_own_for_each_connection(listener: StreamListener):
    with with_key(listener) as one:
        assert one.version() == "TLSv1.3"
        assert one.cipher()[0] in ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")


# ---------------------------------------------------------------------------------------------- who may come in


@pytest.mark.parametrize("url", ["tcp://127.0.0.1", "tcp://127.0.0.1:*", "tcp://[::1]", "tcp://*", "tcp://localhost"])
def test_addresses(url: str):
    if "[" in url and not socket.has_ipv6:
        pytest.skip("NOT TESTED: this host has no IPv6")
    with listening(url) as listener:
        assert_serves(listener)


def test_of_several_addresses_the_one_that_was_reached_last_is_tried_first(listener: StreamListener):
    _, port = address_of(listener.urls[0])
    urls = [f"tcp://127.0.0.2:{port}", f"tcp://no-such-host.invalid:{port}", listener.urls[0]]
    link = TcpLink(urls, "the key", certificate=CERTIFICATE)
    try:
        link.send([b"hello"])
        [(_, parts)] = wait_until(lambda: heard(listener, 0.1))
        assert parts == [b"hello"]
        assert link._addresses[0] == ("127.0.0.1", port)
        assert [host for host, _ in link._addresses[1:]] == ["127.0.0.2", "no-such-host.invalid"]
    finally:
        link.close()


def test_another_controller_at_one_of_the_addresses_is_passed_over(listener: StreamListener):
    with listening("tcp://127.0.0.3", secret=new_identity()[1]) as other:
        link = TcpLink([other.urls[0], listener.urls[0]], "the key", certificate=CERTIFICATE)
        try:
            for _ in range(2):
                link.send([b"hello"])
                [(_, parts)] = wait_until(lambda: heard(listener, 0.1))
                assert parts == [b"hello"]
                link._lose()
            assert not link.refused()
            assert other.receive(timeout=0) == []
        finally:
            link.close()


def test_a_link_to_addresses_where_only_another_controller_listens_is_refused(listener: StreamListener):
    with listening("tcp://127.0.0.3", secret=new_identity()[1]) as other:
        [url] = other.urls
        link = TcpLink([f"tcp://127.0.0.2:{address_of(url)[1]}", url], "the key", certificate=CERTIFICATE)
        try:
            wait_until(link.refused)
        finally:
            link.close()


@pytest.mark.parametrize("url", ["tcp://", "tcp://host", "tcp://host:", "tcp://host:0", "tcp://host:70000", "tcp://:1"])
def test_an_address_that_is_none_is_refused(url: str):
    with pytest.raises(ConnectionFileError, match="names no controller"):
        connect(ConnectionInfo(url=url, key="k", certificate=CERTIFICATE))


@pytest.mark.parametrize("wrong", ["", "nonsense", "bm9uc2Vuc2U="])
def test_a_connection_file_without_a_certificate_is_refused(wrong: str):
    with pytest.raises(ConnectionFileError, match=r"certificate|names no controller"):
        connect(ConnectionInfo(url="tcp://127.0.0.1:1", key="k", certificate=wrong))


def test_a_listener_needs_a_key_and_a_secret():
    for key, secret in (("", SECRET), ("key", "")):
        with pytest.raises(ValueError, match="needs a key"):
            StreamListener([TcpEntrance("tcp://127.0.0.1", key, secret=secret)])


def is_refused(listener: StreamListener, link: TcpLink) -> None:
    link.send([b"hello"])

    def refused() -> bool:
        assert heard(listener, 0.02) == []
        assert link.receive(timeout=0.02) == []
        return link.refused()

    wait_until(refused)


@pytest.mark.fault(28)
@pytest.mark.parametrize("rights", RIGHTS)
def test_each_key_of_the_cluster_gets_through(listener: StreamListener, rights: Rights):
    with linked(listener, key_with_rights("the key", rights)) as link:
        link.send([b"hello"])
        assert [parts for _, parts in wait_until(lambda: heard(listener))] == [[b"hello"]]


def test_a_link_with_another_key_is_refused(listener: StreamListener):
    with linked(listener, key="another key") as link:
        is_refused(listener, link)
    assert_serves(listener)


def test_a_link_refuses_another_controller(listener: StreamListener):
    with linked(listener, certificate=new_identity()[0]) as link:
        is_refused(listener, link)
    assert_serves(listener)


@pytest.mark.fault(28)
def test_who_has_no_certificate_is_not_heard(listener: StreamListener):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(raw(listener)) as stranger:
        with contextlib.suppress(OSError):  # it may have been turned away already
            stranger.sendall(greeting(b"n" * 16) + b"".join(pack([b"hello"])[0]))
        wait_until(lambda: is_closed(stranger))
    assert heard(listener, 0.05) == []
    assert_serves(listener)


def test_an_older_tls_is_refused(listener: StreamListener):
    context = link_context(CERTIFICATE, "the key")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    with raw(listener) as stranger, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(stranger)


# ---------------------------------------------------------------------------------------------- strangers


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", os.urandom(200_000)])
def test_a_stranger_is_turned_away_in_time(listener: StreamListener, monkeypatch: pytest.MonkeyPatch, said: bytes):
    monkeypatch.setattr(entrance, "HANDSHAKE_SECONDS", 0.1)
    monkeypatch.setattr(entrance, "STRANGER_LEAST_SECONDS", 0.05)
    with raw(listener) as stranger:
        try:
            stranger.sendall(said)
        except ConnectionError:
            return
        wait_until(lambda: is_closed(stranger))
    assert_serves(listener)


def test_the_oldest_of_too_many_strangers_makes_room(listener: StreamListener, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(entrance, "MOST_STRANGERS", 4)
    monkeypatch.setattr(entrance, "STRANGER_LEAST_SECONDS", 0.05)
    strangers = [raw(listener) for _ in range(12)]
    try:
        assert_serves(listener)
        assert is_closed(strangers[0])
    finally:
        for stranger in strangers:
            stranger.close()


def test_all_that_have_had_their_time_make_room_at_once(listener: StreamListener, monkeypatch: pytest.MonkeyPatch):
    """Not one in each pause: then few silent connections would keep everybody out for long."""
    monkeypatch.setattr(entrance, "MOST_STRANGERS", 4)
    monkeypatch.setattr(entrance, "STRANGER_LEAST_SECONDS", 0.05)
    monkeypatch.setattr(entrance, "ACCEPT_PAUSE_SECONDS", 3600.0)
    strangers = [raw(listener) for _ in range(12)]
    try:
        assert_serves(listener)
    finally:
        for stranger in strangers:
            stranger.close()


def test_the_loop_does_not_wait_for_handshakes(listener: StreamListener):
    """It sees a connection only when its handshake is complete."""
    with raw(listener) as stranger:
        stranger.sendall(b"\x16\x03\x01\x02\x00\x01\x00")  # the beginning of a handshake
        assert listener.receive(timeout=0.05) == []
        assert not listener._connections
        assert_serves(listener)


def test_who_has_the_key_and_says_nonsense_is_closed(listener: StreamListener):
    for nonsense in (b"nonsense that is no greeting", greeting(b"n" * 16) + b"nonsense, not a message of ours"):
        with with_key(listener) as peer:
            peer.sendall(nonsense)
            wait_until(lambda peer=peer: listener.receive(timeout=0.01) or is_closed(peer))
    assert_serves(listener)


def test_nobody_brings_file_descriptors(listener: StreamListener):
    head = pack([b"x", Pool().copy(bytes(SHARED_FROM))])[0]
    with with_key(listener) as peer:
        peer.sendall(greeting(b"n" * 16) + b"".join(map(bytes, head)))
        wait_until(lambda: listener.receive(timeout=0.01) or is_closed(peer))


def test_before_a_peer_is_admitted_it_may_send_little_and_not_for_long(
    listener: StreamListener, monkeypatch: pytest.MonkeyPatch
):
    with linked(listener) as link:
        link.send([bytes(STRANGER_BYTES + 1)])
        wait_until(lambda: not listener.receive(timeout=0.01) and link._socket is not None and not listener._peers)
    monkeypatch.setattr(stream_listener, "STRANGER_SECONDS", 0.1)
    with linked(listener) as link:
        link.send([b"hello"])
        [(peer, _)] = wait_until(lambda: [h for h in heard(listener, 0.1) if h[1] == [b"hello"]])
        wait_until(lambda: listener.receive(timeout=0.05) or not listener.send(peer, [b"x"]))


# ---------------------------------------------------------------------------------------------- what is sent


def test_of_a_shared_buffer_the_content_is_sent(listener: StreamListener):
    shared = Pool().copy(b"content_" * SHARED_FROM)
    assert isinstance(shared, SharedBuffer)
    with linked(listener) as link:
        link.send([b"head", shared, b"tail"])
        parts: list[Any] = wait_until(lambda: [parts for _, parts in heard(listener, 0.1)])[0]
        assert parts == [b"head", bytes(shared), b"tail"]
        [peer] = listener._peers
        listener.admit(peer)
        assert listener.send(peer, [b"head", shared])
        [[_, back]] = wait_until(lambda: [*listener.receive(), *link.receive(timeout=0.05)])
        assert bytes(back) == bytes(shared)
        assert not link.shares_memory


def test_what_comes_right_behind_the_handshake_is_heard(listener: StreamListener):
    words = b"".join(pack([b"hello", bytes(1 << 20)])[0])
    for _ in range(3):
        with with_key(listener) as peer:
            thread = threading.Thread(target=peer.sendall, args=(greeting(os.urandom(16)) + words,))
            thread.start()
            [(_, parts)] = wait_until(lambda: heard(listener, 0.1))
            assert parts == [b"hello", bytes(1 << 20)]
            thread.join()


def test_a_link_that_waits_is_told_by_its_descriptor_of_all_that_has_come(listener: StreamListener):
    with linked(listener) as link:
        link.send([b"hello"])
        [(peer, _)] = wait_until(lambda: heard(listener, 0.1))
        listener.admit(peer)
        for number in range(3000):  # more than a link takes in at a time
            assert listener.send(peer, [b"%d" % number])
        poll, came = select.poll(), []
        poll.register(link.fileno(), select.POLLIN)
        while len(came) < 3000:
            listener.receive()
            assert poll.poll(20_000)
            came += link.receive()
            while link._arrived:
                came += link.receive()
        assert came == [[b"%d" % number] for number in range(3000)]


def test_a_link_that_was_cut_off_comes_back_though_its_old_connection_seems_to_live(listener: StreamListener):
    """No packet told the listener that the other end has given the old connection up."""
    name = b"sixteen bytes it"

    def message(text: bytes) -> bytes:
        return b"".join(map(bytes, pack([text])[0]))

    old, new = with_key(listener), with_key(listener)
    with old, new:
        old.sendall(greeting(name) + message(b"old"))
        assert heard(listener) == [(name, [b"old"])]
        listener.admit(name)
        new.sendall(greeting(name) + message(b"new"))
        assert heard(listener) == [(name, [b"new"])]
        listener.admit(name)
        assert listener.send(name, [b"answer"])
        listener.receive(timeout=0.01)
        assert b"answer" in new.recv(1000)
        assert is_closed(old)


def test_after_much_has_moved_a_link_takes_fresh_keys(listener: StreamListener, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream_link, "MOST_OF_ONE_KEY", 1 << 20)
    with linked(listener) as link:
        link.send([b"hello"])
        [(peer, _)] = wait_until(lambda: heard(listener, 0.1))
        listener.admit(peer)
        first = link._socket
        assert listener.send(peer, [b"x", bytes(2 << 20)])
        assert wait_until(lambda: [*listener.receive(), *link.receive(timeout=0.05)])
        wait_until(lambda: link._socket not in (None, first))
        link.send([b"again"])
        assert wait_until(lambda: heard(listener, 0.1)) == [(peer, [b"again"])]


def test_one_call_encrypts_a_bounded_part(listener: StreamListener):
    with linked(listener) as link:
        link.send([b"hello"])
        [(peer, _)] = wait_until(lambda: heard(listener, 0.1))
        connection = listener._peers[peer].socket
        assert connection.give([bytes(64 << 20)]) <= sealed_socket.MOST_GIVEN + sealed_socket.CHUNK
