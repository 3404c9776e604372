"""A controller that other hosts can reach: a TCP port for them, and a Unix socket for its own host."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engineroom.config import ConnectionInfo
from engineroom.shared_memory.buffer import SHARED_FROM, SharedBuffer
from engineroom.shared_memory.pool import Pool
from engineroom.transport import connect, listen, new_identity
from engineroom.transport.base import Link, Listener
from engineroom.transport.tcp.link import TcpLink
from engineroom.transport.unix_link import UnixLink

KEY = "the key"
CERTIFICATE, SECRET = new_identity()


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def listener(folder: Path) -> Iterator[Listener]:
    made = listen(["tcp://127.0.0.1", f"ipc://{folder}/socket"], KEY, secret=SECRET, max_message_size=1 << 30)
    yield made
    made.close()


@pytest.fixture
def info(listener: Listener) -> ConnectionInfo:
    url, local = listener.urls
    return ConnectionInfo(
        url=url, local_url=local, key=KEY, certificate=CERTIFICATE, location=socket.gethostname()
    )


def one(end: Listener | Link) -> object:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if arrived := end.receive(timeout=1):
            return arrived[0]
    raise AssertionError("nothing has come")


def test_each_host_has_its_way_and_a_large_buffer_comes_by_each(listener: Listener, info: ConnectionInfo):
    near, far = connect(info), connect(msgspec.structs.replace(info, location="elsewhere"))
    try:
        assert (type(near), type(far)) == (UnixLink, TcpLink)
        content = bytes(range(256)) * (SHARED_FROM // 256)
        buffer = Pool().copy(content)
        for link, is_shared in ((near, True), (far, False)):
            link.send([b"hello"])
            peer, [said] = one(listener)
            assert bytes(said) == b"hello"
            listener.admit(peer)
            assert listener.send(peer, [b"take", buffer])
            while not (arrived := link.receive(timeout=0.01)):
                listener.receive()
            [[_, frame]] = arrived
            assert isinstance(frame, SharedBuffer) == is_shared
            assert bytes(frame) == content
    finally:
        near.close()
        far.close()


def test_who_finds_no_socket_uses_tcp(listener: Listener, info: ConnectionInfo, folder: Path):
    (folder / "socket").unlink()
    link = connect(info)
    try:
        assert isinstance(link, TcpLink)
        link.send([b"hello"])
        assert one(listener)
    finally:
        link.close()


def test_if_one_entrance_cannot_be_had_nothing_stays_open(folder: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            listen([f"ipc://{folder}/socket", f"tcp://127.0.0.1:{port}"], KEY, secret=SECRET, max_message_size=1000)
    assert not (folder / "socket").exists()


def test_the_socket_is_gone_with_the_listener(folder: Path):
    listener = listen([f"ipc://{folder}/socket", "tcp://127.0.0.1"], KEY, secret=SECRET, max_message_size=1000)
    assert (folder / "socket").is_socket()
    listener.close()
    listener.close()
    assert not (folder / "socket").exists()
