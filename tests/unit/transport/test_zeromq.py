"""Links and listeners over TCP: who can connect to whom."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from engineroom.shared_memory.buffer import SHARED_FROM
from engineroom.shared_memory.pool import Pool
from engineroom.transport import curve_keypair, zeromq
from engineroom.transport.zeromq import ZmqLink, ZmqListener


@contextmanager
def listening(address: str, key: str, curve: tuple[str, str]) -> Iterator[ZmqListener]:
    listener = ZmqListener(address, key, curve=curve)
    try:
        yield listener
    finally:
        listener.close()


@contextmanager
def linked(url: str, key: str, curve_serverkey: str) -> Iterator[ZmqLink]:
    link = ZmqLink(url, key, curve_serverkey=curve_serverkey)
    try:
        yield link
    finally:
        link.close()


def heard(listener: ZmqListener, seconds: float = 5.0) -> list[tuple[bytes, list[bytes]]]:
    return [(peer, [bytes(part) for part in parts]) for peer, parts in listener.receive(timeout=seconds)]


@pytest.mark.fault(28)
def test_over_tcp_only_who_has_the_key_can_send_anything():
    curve = curve_keypair()
    with listening("tcp://127.0.0.1", "the key", curve=curve) as listener:
        context = zmq.Context()
        stranger = context.socket(zmq.DEALER)
        stranger.curve_serverkey = curve[0].encode()  # it has read the public key, but not the key
        stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
        events = stranger.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        stranger.connect(listener.url)
        try:
            stranger.send(bytes(1_000_000), zmq.NOBLOCK)
            assert events.poll(10_000), "it is told"
            assert heard(listener, 0.05) == []
            with linked(listener.url, "the key", curve_serverkey=curve[0]) as link:
                link.send([b"hello"])
                [(_, parts)] = heard(listener)
                assert parts == [b"hello"]
                assert not link.refused()
        finally:
            stranger.disable_monitor()
            events.close(linger=0)
            stranger.close(linger=0)
            context.term()


@pytest.mark.fault(28)
def test_over_tcp_a_link_with_another_key_is_refused():
    curve = curve_keypair()
    with (
        listening("tcp://127.0.0.1", "the key", curve=curve) as listener,
        linked(listener.url, "another key", curve_serverkey=curve[0]) as link,
    ):
        link.send([b"hello"])
        refused = False
        for _ in range(100):
            refused = refused or link.refused()
            if refused:
                break
            assert heard(listener, 0.1) == []
        assert refused


def test_a_tcp_listener_needs_both_keys():
    with pytest.raises(ValueError, match="needs a key"):
        ZmqListener("tcp://127.0.0.1", "", curve=curve_keypair())
    with pytest.raises(ValueError, match="needs a key"):
        ZmqListener("tcp://127.0.0.1", "key", curve=None)


def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zeromq, "HANDSHAKE_SECONDS", 0.1)
    with listening("tcp://127.0.0.1", "key", curve_keypair()) as listener:
        address = listener.url.removeprefix("tcp://").split(":")
        with socket.create_connection((address[0], int(address[1])), timeout=10) as idle:
            while idle.recv(1 << 16):  # ZeroMQ greets first; at last it closes
                pass


def test_of_a_shared_buffer_the_content_is_sent():
    shared = Pool().copy(b"content_" * SHARED_FROM)
    curve = curve_keypair()
    with (
        listening("tcp://127.0.0.1", "the key", curve=curve) as listener,
        linked(listener.url, "the key", curve_serverkey=curve[0]) as link,
    ):
        link.send([b"head", shared, b"tail"])
        [(peer, parts)] = heard(listener)
        assert parts == [b"head", bytes(shared), b"tail"]
        assert listener.send(peer, [b"head", shared])
        [[_, back]] = link.receive(timeout=5)
        assert bytes(back) == bytes(shared)
        assert not link.shares_memory
