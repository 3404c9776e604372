"""Links and listeners: who can connect to whom."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from engineroom.config import ConnectionInfo
from engineroom.errors import ConnectionFileError
from engineroom.transport import ZmqLink, ZmqListener, connect, curve_keypair
from engineroom.transport.base import Link

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: another unix user; run this as root")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is ours alone, with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def listening(address: str, key: str = "", **options: object) -> Iterator[ZmqListener]:
    listener = ZmqListener(address, key, **options)  # type: ignore[arg-type]
    try:
        yield listener
    finally:
        listener.close()


@contextmanager
def linked(url: str, key: str = "", **options: str) -> Iterator[ZmqLink]:
    link = ZmqLink(url, key, **options)
    try:
        yield link
    finally:
        link.close()


def heard(listener: ZmqListener, seconds: float = 5.0) -> list[tuple[bytes, list[bytes]]]:
    return [(peer, [bytes(part) for part in parts]) for peer, parts in listener.receive(timeout=seconds)]


def test_a_link_and_a_listener(folder: Path):
    with listening(f"ipc://{folder}/socket") as listener, linked(listener.url) as link:
        link.send([b"hello", b"you"])
        [(peer, parts)] = heard(listener)
        assert parts == [b"hello", b"you"]
        assert listener.send(peer, [b"welcome"])
        assert [bytes(parts[0]) for parts in link.receive(timeout=5)] == [b"welcome"]


def test_the_names_of_links_are_random_and_long(folder: Path):
    names = set()
    with listening(f"ipc://{folder}/socket") as listener:
        for _ in range(3):
            with linked(listener.url) as link:
                link.send([b"x"])
                names |= {peer for peer, _ in heard(listener)}
    assert len(names) == 3
    assert min(map(len, names)) >= 16


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_socket_in_a_folder_that_others_can_reach_is_refused(folder: Path, mode: int):
    with listening(f"ipc://{folder}/socket") as listener:
        folder.chmod(mode)
        with pytest.raises(ConnectionFileError, match="others have access"):
            ZmqLink(listener.url)
        with pytest.raises(PermissionError, match="others have access"):
            ZmqListener(f"ipc://{folder}/another")
        folder.chmod(0o700)


@pytest.mark.parametrize("url", ["ipc://@abstract", "ipc://relative/socket", "ipc://", "ipc:///no/such/folder/socket"])
def test_a_socket_without_a_folder_of_ours_is_refused(url: str):
    with pytest.raises(ConnectionFileError, match="cannot be trusted"):
        ZmqLink(url)


def test_a_folder_behind_a_symbolic_link_is_refused(folder: Path):
    (folder / "real").mkdir(mode=0o700)
    (folder / "link").symlink_to(folder / "real")
    with listening(f"ipc://{folder}/real/socket"), pytest.raises(ConnectionFileError):
        ZmqLink(f"ipc://{folder}/link/socket")


def test_a_socket_of_another_host_is_refused(folder: Path):
    with pytest.raises(ConnectionFileError, match="Unix socket of the host elsewhere"):
        connect(ConnectionInfo(url=f"ipc://{folder}/socket", key="k", location="elsewhere"))


# ---------------------------------------------------------------------------------------------- another user


def _pretend(folder: str, ready: multiprocessing.synchronize.Event, seen: multiprocessing.Queue[object]) -> None:
    """As another user: make a folder of that name, listen in it, and tell what comes."""
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.mkdir(folder, 0o700)
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.bind(f"ipc://{folder}/socket")
    os.chmod(f"{folder}/socket", 0o777)
    ready.set()
    seen.put(socket.poll(1500))
    socket.close(linger=0)
    context.term()


@contextmanager
def impostor(folder: Path) -> Iterator[multiprocessing.Queue[object]]:
    """Another user's process that has taken the place of the controller."""
    context = multiprocessing.get_context("spawn")
    ready, seen = context.Event(), context.Queue()
    process = context.Process(target=_pretend, args=(str(folder), ready, seen))
    process.start()
    try:
        assert ready.wait(30)
        yield seen
    finally:
        process.join(30)
        seen.close()
        shutil.rmtree(folder, ignore_errors=True)


@needs_root
def test_a_link_does_not_connect_to_another_users_socket():
    folder = Path("/tmp") / f"stale-{secrets.token_hex(6)}"
    with impostor(folder) as seen:
        with pytest.raises(ConnectionFileError, match=f"belongs to the user with the number {NOBODY}"):
            ZmqLink(f"ipc://{folder}/socket")
        assert seen.get(timeout=30) == 0, "nothing was sent to it"


@needs_root
def test_a_link_does_not_reconnect_to_another_users_socket():
    folder = Path("/tmp") / f"stale-{secrets.token_hex(6)}"
    folder.mkdir(mode=0o700)
    with listening(f"ipc://{folder}/socket") as listener:
        link: Link = ZmqLink(listener.url)
        link.send([b"hello"])
        assert heard(listener)
    shutil.rmtree(folder)
    try:
        with impostor(folder) as seen:
            link.send([b"my secrets"])
            assert seen.get(timeout=30) == 0, "nothing was sent to it"
    finally:
        link.close()


# ---------------------------------------------------------------------------------------------- over TCP


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
        ZmqListener("tcp://127.0.0.1", "key")
