"""Links and listeners on one host: who can connect to whom, and what strangers can do."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import secrets
import shutil
import signal
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until

from engineroom.config import ConnectionInfo
from engineroom.errors import ConnectionFileError
from engineroom.transport import connect, stream_link, stream_listener, unix_socket
from engineroom.transport.stream import STRANGER_BYTES, STRANGER_FRAMES, greeting, pack
from engineroom.transport.stream_listener import StreamListener
from engineroom.transport.unix_entrance import UnixEntrance
from engineroom.transport.unix_link import UnixLink

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: another unix user; run this as root")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is ours alone, with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def listener(folder: Path) -> Iterator[StreamListener]:
    with listening(folder) as listener:
        yield listener


@contextmanager
def listening(folder: Path) -> Iterator[StreamListener]:
    listener = StreamListener([UnixEntrance(f"ipc://{folder}/socket")])
    try:
        yield listener
    finally:
        listener.close()


@contextmanager
def linked(listener: StreamListener) -> Iterator[UnixLink]:
    link = UnixLink(listener.urls[0])
    try:
        yield link
    finally:
        link.close()


def raw(listener: StreamListener, data: bytes = b"") -> socket.socket:
    """A stranger's connection, through which some bytes have come."""
    stranger = socket.socket(socket.AF_UNIX)
    stranger.connect(listener.urls[0].removeprefix("ipc://"))
    stranger.setblocking(False)
    stranger.sendall(data)
    return stranger


def message(*frames: bytes) -> bytes:
    return b"".join(bytes(buffer) for buffer in pack(frames)[0])


def heard(listener: StreamListener, seconds: float = 5.0) -> list[tuple[bytes, list[bytes]]]:
    return [(peer, [bytes(part) for part in parts]) for peer, parts in listener.receive(timeout=seconds)]


def is_closed(stranger: socket.socket) -> bool:
    """Whether the listener has closed a stranger's connection."""
    try:
        return stranger.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def assert_serves(listener: StreamListener) -> None:
    """A link that comes now is heard and answered."""
    with linked(listener) as link:
        link.send([b"hello"])
        [(peer, _)] = wait_until(lambda: heard(listener, 0.1))
        assert listener.send(peer, [b"welcome"])
        assert link.receive(timeout=5) == [[b"welcome"]]
    wait_until(lambda: not listener.receive() and not listener.send(peer, [b"gone?"]))


# ---------------------------------------------------------------------------------------------- the folder


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_socket_in_a_folder_that_others_can_reach_is_refused(folder: Path, mode: int):
    with listening(folder) as listener:
        folder.chmod(mode)
        with pytest.raises(ConnectionFileError, match="others have access"):
            UnixLink(listener.urls[0])
        with pytest.raises(PermissionError, match="others have access"):
            StreamListener([UnixEntrance(f"ipc://{folder}/another")])
        folder.chmod(0o700)


@pytest.mark.parametrize("url", ["ipc://@abstract", "ipc://relative/socket", "ipc://", "ipc:///no/such/folder/socket"])
def test_a_socket_without_a_folder_of_ours_is_refused(url: str):
    with pytest.raises(ConnectionFileError, match="cannot be trusted"):
        UnixLink(url)


def test_a_folder_behind_a_symbolic_link_is_refused(folder: Path):
    (folder / "real").mkdir(mode=0o700)
    (folder / "link").symlink_to(folder / "real")
    with listening(folder / "real"), pytest.raises(ConnectionFileError):
        UnixLink(f"ipc://{folder}/link/socket")


def test_a_socket_of_another_host_is_refused(folder: Path):
    with pytest.raises(ConnectionFileError, match="Unix socket of the host elsewhere"):
        connect(ConnectionInfo(url=f"ipc://{folder}/socket", key="k", location="elsewhere"))


@pytest.mark.parametrize("url", ["", "nonsense", "udp://x:1", "unix:///x"])
def test_an_address_of_no_transport_is_refused(url: str):
    with pytest.raises(ConnectionFileError, match="no address"):
        connect(ConnectionInfo(url=url, key="k"))


def test_a_socket_that_a_dead_process_left_is_replaced_and_anothers_is_left_alone(folder: Path):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(folder / "socket"))
    left.close()
    with listening(folder) as first:
        assert_serves(first)
        with listening(folder) as second:
            first.close()
            assert stat.S_ISSOCK((folder / "socket").stat().st_mode)
            assert_serves(second)
    assert list(folder.iterdir()) == []


# ---------------------------------------------------------------------------------------------- another user


def _pretend(folder: str, ready: multiprocessing.synchronize.Event, seen: multiprocessing.Queue[object]) -> None:
    """As another user: make a folder of that name, listen in it, and tell what comes."""
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.mkdir(folder, 0o700)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/socket")
        os.chmod(f"{folder}/socket", 0o777)
        listening.listen()
        listening.settimeout(1.5)
        ready.set()
        try:
            seen.put(listening.accept()[0].recv(1000))
        except TimeoutError:
            seen.put("nobody came")


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


def as_nobody(function: Callable[[], None]) -> int:
    """Call a function in a process of another user. Returns its number; it ends with 0 if all is well."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setuid(NOBODY)
        function()
        status = 0
    finally:
        os._exit(status)


@needs_root
def test_a_link_does_not_connect_to_another_users_socket():
    folder = Path("/tmp") / f"stale-{secrets.token_hex(6)}"
    with impostor(folder) as seen:
        with pytest.raises(ConnectionFileError, match=f"belongs to the user with the number {NOBODY}"):
            UnixLink(f"ipc://{folder}/socket")
        assert seen.get(timeout=30) == "nobody came"


@needs_root
def test_a_link_does_not_reconnect_to_another_users_socket():
    folder = Path("/tmp") / f"stale-{secrets.token_hex(6)}"
    folder.mkdir(mode=0o700)
    with listening(folder) as listener:
        link = UnixLink(listener.urls[0])
        link.send([b"hello"])
        assert heard(listener)
    shutil.rmtree(folder)
    try:
        with impostor(folder) as seen:
            assert link.receive(timeout=0.1) == []
            link.send([b"my secrets"])
            assert seen.get(timeout=30) == "nobody came"
    finally:
        link.close()


@needs_root
def test_the_kernel_says_whose_process_listens(folder: Path):
    """Also where the folder is ours, a process of another user is sent nothing."""
    ready, end, seen = os.pipe(), os.pipe(), os.pipe()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))

        def listen() -> None:
            listening.listen()
            os.write(ready[1], b"r")
            os.read(end[0], 1)
            listening.setblocking(False)
            os.write(seen[1], listening.accept()[0].recv(1000) or b"nothing")

        child = as_nobody(listen)
        try:
            os.read(ready[0], 1)
            with pytest.raises(ConnectionFileError, match=f"user with the number {NOBODY}"):
                UnixLink(f"ipc://{folder}/socket")
        finally:
            os.write(end[1], b"e")
            os.waitpid(child, 0)
    assert os.read(seen[0], 1000) == b"nothing"
    for descriptor in (*ready, *end, *seen):
        os.close(descriptor)


@needs_root
def test_the_kernel_says_who_connects(listener: StreamListener, folder: Path, caplog: pytest.LogCaptureFixture):
    folder.chmod(0o711)  # somebody was careless
    (folder / "socket").chmod(0o777)

    def come() -> None:
        with contextlib.suppress(ConnectionError):  # it is closed while we send, or before we receive
            stranger = raw(listener, greeting(bytes(16)) + message(b"hello"))
            stranger.settimeout(20)
            assert stranger.recv(1) == b""

    child = as_nobody(come)
    found: list[int] = []

    def ended() -> bool:
        assert heard(listener, 0.02) == []
        pid, status = os.waitpid(child, os.WNOHANG)
        found.append(os.waitstatus_to_exitcode(status) if pid else -1)
        return bool(pid)

    wait_until(ended)
    assert found[-1] == 0
    assert f"user with the number {NOBODY}" in caplog.text
    folder.chmod(0o700)
    assert_serves(listener)


# ---------------------------------------------------------------------------------------------- strangers

GARBAGE = {
    "a greeting of ZeroMQ": b"\xff\0\0\0\0\0\0\0\x01\x7f" + bytes(54),
    "no greeting": message(b"hello"),
    "garbage after the greeting": greeting(bytes(16)) + bytes(100),
    "too much": greeting(bytes(16)) + message(b"", b"x" * STRANGER_BYTES, b"x")[:100],
    "too many messages": greeting(bytes(16)) + message(b"") * (STRANGER_FRAMES + 1),
}


@pytest.mark.fault(26)
@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_ends_the_connection_of_its_sender_only(listener: StreamListener, data: bytes):
    with linked(listener) as link, raw(listener, data) as stranger:
        link.send([b"hello"])
        assert (b"hello",) in {tuple(parts) for _ in range(3) for _, parts in heard(listener, 0.05)}

        def closed() -> bool:
            listener.receive()
            return is_closed(stranger)

        wait_until(closed)
        assert_serves(listener)


def test_who_is_not_admitted_in_time_is_closed(listener: StreamListener, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream_listener, "STRANGER_SECONDS", 0.05)
    with linked(listener) as link:
        link.send([b"hello"])
        [(peer, _)] = heard(listener)
        listener.admit(peer)
        half = greeting(bytes(range(16))) + message(b"hello")[:-1]
        with raw(listener) as silent, raw(listener, half) as slow, raw(listener, greeting(NAME) + message(b"x")) as odd:
            strangers = {silent, slow, odd}

            def closed() -> bool:
                listener.receive(timeout=0.02)
                return all(map(is_closed, strangers))

            wait_until(closed)
        assert listener.send(peer, [b"you stay"])
        assert link.receive(timeout=5) == [[b"you stay"]]


NAME = b"sixteen bytes it"


def test_idle_connections_do_not_use_up_descriptors(listener: StreamListener, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream_listener, "MOST_STRANGERS", 5)
    monkeypatch.setattr(stream_listener, "STRANGER_LEAST_SECONDS", 0.02)
    with linked(listener) as link:
        link.send([b"hello"])
        [(peer, _)] = heard(listener)
        listener.admit(peer)
        before = len(os.listdir("/proc/self/fd"))
        strangers = [raw(listener) for _ in range(30)]
        try:
            listener.receive(timeout=0.01)
            assert len(os.listdir("/proc/self/fd")) <= before + 30 + 5
            assert_serves(listener)
            assert listener.send(peer, [b"you stay"])
            assert link.receive(timeout=5) == [[b"you stay"]]
        finally:
            for stranger in strangers:
                stranger.close()


@pytest.mark.fault(47)
def test_when_descriptors_run_out_peers_stay_and_others_wait(
    listener: StreamListener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class Full:
        def __init__(self, socket: socket.socket) -> None:
            self._socket = socket
            self.left = 3

        def accept(self) -> Any:
            self.left -= 1
            if self.left >= 0:
                raise OSError(errno.EMFILE, "too many open files")
            return self._socket.accept()

        def fileno(self) -> int:
            return self._socket.fileno()

        def close(self) -> None:
            self._socket.close()

    monkeypatch.setattr(stream_listener, "ACCEPT_PAUSE_SECONDS", 0.02)
    [entrance] = listener._entrances.values()
    monkeypatch.setattr(entrance, "_socket", Full(entrance._socket))
    assert_serves(listener)
    assert "no connection can be accepted" in caplog.text


def test_a_connection_that_lives_keeps_its_name(listener: StreamListener):
    with raw(listener, greeting(NAME) + message(b"first")) as first:
        assert heard(listener) == [(NAME, [b"first"])]
        with raw(listener, greeting(NAME) + message(b"I am it, too")) as second:

            def closed() -> bool:
                assert heard(listener, 0.02) == []
                return is_closed(second)

            wait_until(closed)
        assert listener.send(NAME, [b"you"])
        assert first.recv(1000) == message(b"you")
        first.sendall(message(b"last words"))
        first.close()
        with raw(listener, greeting(NAME) + message(b"again")):
            came = [*heard(listener), *heard(listener, 0.05)]
            assert came == [(NAME, [b"last words"]), (NAME, [b"again"])]
            assert listener.send(NAME, [b"you"])


# ---------------------------------------------------------------------------------------------- in turn


def pouring(flooder: socket.socket, flood: bytes) -> Callable[[], None]:
    """A function that sends as much of an endless repetition as the kernel takes."""
    left = memoryview(b"")

    def pour() -> None:
        nonlocal left
        with contextlib.suppress(BlockingIOError):
            while True:
                left = left or memoryview(flood)
                left = left[flooder.send(left) :]

    return pour


@pytest.mark.fault(38)
def test_a_peer_that_sends_without_end_keeps_no_other_waiting(listener: StreamListener):
    with raw(listener, greeting(NAME) + message(b"first")) as flooder, linked(listener) as quiet:
        assert heard(listener) == [(NAME, [b"first"])]
        listener.admit(NAME)
        pour = pouring(flooder, message(b"flood") * 20_000)
        pour()
        assert {peer for peer, _ in heard(listener)} == {NAME}
        pour()
        quiet.send([b"quiet"])
        peers: list[bytes] = []
        for _ in range(3):
            came = heard(listener)
            peers += [peer for peer, _ in came]
            pour()
        assert len(set(peers)) == 2


def test_long_messages_of_a_peer_end_its_turn(listener: StreamListener):
    """They take long to handle, and others wait meanwhile."""
    with raw(listener, greeting(NAME) + message(b"first")) as sender, linked(listener) as quiet:
        assert heard(listener) == [(NAME, [b"first"])]
        listener.admit(NAME)
        pour = pouring(sender, message(b"x" * 60_000))
        while len(listener._arrived.get(NAME, ())) < 40:
            pour()
            listener._receive(64, 0.0)
        quiet.send([b"quiet"])
        came = wait_until(listener.receive)
        assert [len(parts[0]) for _, parts in came][:3] == [60_000, 60_000, 5]
        assert len(came) < 10
        assert len(listener.receive(1 << 20)) > 30, "who asks for all has all"


def test_the_rest_of_a_connection_that_lives_is_not_waited_for(listener: StreamListener):
    """Who sends without end, and connects again under its name, does not keep the listener reading."""
    with raw(listener, greeting(NAME) + message(b"first")) as flooder:
        assert heard(listener) == [(NAME, [b"first"])]
        listener.admit(NAME)
        flooder.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, unix_socket.KERNEL_BUFFER)
        calls, pour = 0, pouring(flooder, message(b"x" * 1000) * 300)
        flooded = listener._peers[NAME].socket
        real = flooded.receive

        def receive(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            assert calls < 100
            pour()
            return real(*args)

        flooded.receive = receive  # type: ignore[method-assign]
        with raw(listener, greeting(NAME) + message(b"I am it, too")) as second:
            wait_until(lambda: heard(listener, 0.02) and is_closed(second))


# ---------------------------------------------------------------------------------------------- the link


def test_a_signal_that_ends_a_call_too_early_costs_the_connection_and_mixes_no_messages(listener: StreamListener):
    """What a link's thread was about to take in or to send may be lost: the stream must not go on behind it."""
    with linked(listener) as link:
        link.send([b"hello"])
        [(peer, _)] = heard(listener)
        for call in (lambda: link.receive(timeout=0.01), lambda: link.send([b"x"])):
            link._is_busy = True  # as an exception between a system call and its consequences leaves it
            call()
            assert not link._is_busy

            def answered() -> list[Any]:
                link.send([b"are you there?"])
                wait_until(lambda: heard(listener, 0.02))
                listener.send(peer, [b"yes"])
                return link.receive(timeout=0.05)

            assert wait_until(answered)[-1] == [b"yes"]


def test_while_there_is_no_connection_a_link_keeps_little(folder: Path):
    with listening(folder) as listener:
        link = UnixLink(listener.urls[0])
    try:
        assert link.receive(timeout=0.02) == []
        link.send([b"first"])
        link.send([bytes(STRANGER_BYTES)])
        link.send([b"second"])
        for _ in range(2 * STRANGER_FRAMES):
            link.send([b"more"])
        with listening(folder) as listener:
            came: list[bytes] = []
            while len(came) < stream_link.KEPT_MESSAGES:
                came += [parts[0] for _, parts in wait_until(lambda: heard(listener, 0.1))]
            assert came[:3] == [b"first", b"second", b"more"]
            assert heard(listener, 0.05) == []
            link.send([b"now"])
            assert [parts for _, parts in wait_until(lambda: heard(listener, 0.1))] == [[b"now"]]
    finally:
        link.close()


def test_the_listener_knows_who_has_closed_the_connection_and_not_come_back(listener: StreamListener):
    with linked(listener) as link, linked(listener) as other:
        link.send([b"hello"])
        [(peer, _)] = heard(listener)
        listener.admit(peer)
        assert list(listener.closed()) == []
        link.close()
        wait_until(lambda: heard(listener, 0.01) or list(listener.closed()) == [peer])
        again = raw(listener, greeting(peer))
        wait_until(lambda: heard(listener, 0.01) or list(listener.closed()) == [])
        again.send(b"no message at all" * 10)  # we close this connection
        other.send([b"hello"])
        wait_until(lambda: heard(listener, 0.01))
        assert list(listener.closed()) == []
        again.close()


def test_who_waits_for_messages_is_told_that_the_connection_was_made_anew(folder: Path):
    with listening(folder) as listener, contextlib.closing(UnixLink(listener.urls[0])) as link:
        link.send([b"hello"])
        assert len(heard(listener)) == 1
        assert not link.take_renewed(), "the first connection is no news"
        listener.close()
        with listening(folder) as other:
            wait_until(lambda: link.receive(timeout=60) == [] and link.take_renewed())
            assert not link.take_renewed()
            assert link.receive(timeout=0.01) == []
            link.send([b"who are you"])
            wait_until(lambda: heard(other, 0.1))


def test_a_wait_is_ended_by_others_and_by_signal_handlers_and_nothing_is_lost(listener: StreamListener):
    with linked(listener) as link:
        link.send([b"hello"])
        [(peer, _)] = heard(listener)
        listener.admit(peer)
        threading.Timer(0.05, link.wake).start()
        assert link.receive(timeout=60) == []
        link.wake()
        link.wake()
        assert link.receive(timeout=60) == [], "before it waits, too"
        link.wake()
        assert link.receive() == []
        assert link.receive(timeout=0.01) == []

        def call(number: int, frame: Any) -> None:
            link.wake()

        before, size = signal.signal(signal.SIGALRM, call), 4 << 20
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)  # in the middle of long messages
        try:
            for count in range(50):
                listener.send(peer, [bytes([count]), bytes([count]) * size])
                [got] = wait_until(lambda: (heard(listener, 0), link.receive(timeout=60))[1])
                assert (got[0], len(got[1]), set(bytes(got[1]))) == (bytes([count]), size, {count})
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert not link.take_renewed(), "the connection is the first one"


def test_the_helper_runs_only_while_there_is_something_to_do(listener: StreamListener):
    def helpers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "engineroom-link"]

    with linked(listener) as link:
        link.send([b"hello"])
        [(peer, _)] = heard(listener)
        listener.admit(peer)
        assert helpers() == []
        link.send([bytes(5_000_000)])
        assert len(helpers()) == 1
        assert not link.flush(0.01)
        assert len(wait_until(lambda: heard(listener, 0.1))) == 1
        assert link.flush(5)
        wait_until(lambda: not helpers())


def test_the_last_words_of_one_peer_are_received_and_nobody_elses(listener: StreamListener):
    name, other = b"N" * 16, b"O" * 16
    with raw(listener, greeting(name) + message(b"Hello")) as peer, raw(listener, greeting(other)) as talker:
        assert heard(listener) == [(name, [b"Hello"])]
        listener.admit(name)
        peer.sendall(message(b"the last words") * 50)
        talker.sendall(message(b"on and on") * 50)
        assert [bytes(parts[0]) for _, parts in listener.receive_last(name)] == [b"the last words"] * 50
        assert listener.receive_last(name) == listener.receive_last(b"unknown") == []
        assert {peer for peer, _ in heard(listener)} == {other}
