"""Across hosts: an engine in a network namespace of its own, over encrypted TCP.

The client is on the controller's host. 100 MB of new numbers every round: pushed to the engine, sent to it and
returned. The round trip of a task that does nothing, beside that of an engine on the client's host in the same run.
Against the raw limits: 100 MB through a plain TCP socket to the same namespace, and through Python's `ssl` with its
sockets. MB/s counts the array once, there and back twice; the round trips are tasks per second. It needs root and
`ip`, and shows nothing without.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import engineroom as er
from engineroom.transport.tcp.certificates import link_context, listener_context, new_identity

from .data import MB, ROUNDS, _rate
from .harness import Benchmark, Figures, Goal
from .ours import cluster, noop, same

TRIPS = 300

PUSH, BACK = "engineroom, to an engine of another host", "engineroom, there and back"
FAR, NEAR = "engineroom, round trips to another host", "engineroom, round trips on one host"
TCP, TLS = "raw: TCP", "raw: TLS 1.3 with Python's sockets"


@contextmanager
def other_host() -> Iterator[tuple[str, str]]:
    """A network namespace: (its name, the address that this host has for it)."""
    tag, net = f"erx{os.getpid() % 100000}", f"10.{192 + os.getpid() % 60}.{os.getpid() // 60 % 250}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", tag)
    try:
        ip("link", "add", f"{tag}v", "type", "veth", "peer", "name", "eth0", "netns", tag)
        ip("addr", "add", f"{net}.1/24", "dev", f"{tag}v")
        ip("link", "set", f"{tag}v", "up")
        ip("-n", tag, "addr", "add", f"{net}.2/24", "dev", "eth0")
        ip("-n", tag, "link", "set", "eth0", "up")
        ip("-n", tag, "link", "set", "lo", "up")
        yield tag, f"{net}.1"
    finally:
        ip("netns", "del", tag)


def is_possible() -> bool:
    """Whether this process may make network namespaces."""
    return os.geteuid() == 0 and shutil.which("ip") is not None


@contextmanager
def engine_on(space: str, folder: str) -> Iterator[None]:
    """An engine in a network namespace, which takes it for a host of its own. `folder`: of the cluster's profile."""
    file = next((Path(folder) / "security").glob("*-engine.json"))
    command = [sys.executable, "-m", "engineroom.engine", f"--profile-dir={folder}", f"--file={file}", "--n=1"]
    named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', space]  # else it is this host to us
    engine = subprocess.Popen(["ip", "netns", "exec", space, *named, *command])
    try:
        yield
    finally:
        engine.terminate()
        engine.wait()


def engineroom(size: int) -> Figures:
    if not is_possible():
        return {}
    with (
        other_host() as (space, address),
        tempfile.TemporaryDirectory(prefix="engineroom-bench-") as folder,
        er.Cluster(n=0, profile_dir=folder, controller_ip=address) as rc,
        engine_on(space, folder),
    ):
        rc.wait_for_engines(1, timeout=60)
        return {
            PUSH: _rate(lambda array: rc[0].push({"a": array}, block=True), size),
            BACK: 2 * _rate(lambda array: rc[0].apply_sync(same, array), size),
            FAR: _trips(rc),
        }


def on_one_host(size: int) -> Figures:
    with cluster(n=1) as rc:
        return {NEAR: _trips(rc)}


def _trips(rc: Any) -> float:
    """Round trips per second: the median."""
    view, times = rc[0], []
    for _ in range(TRIPS):
        began = time.perf_counter()
        view.apply_sync(noop)
        times.append(time.perf_counter() - began)
    return 1 / statistics.median(times[TRIPS // 10 :])


def raw(size: int) -> Figures:
    if not is_possible():
        return {}
    with other_host() as (space, address):
        certificate, secret = new_identity()
        listener, link = listener_context(secret, "key"), link_context(certificate, "key")
        return {TCP: _raw(space, address, size, None, None), TLS: _raw(space, address, size, listener, link)}


def _raw(
    space: str, address: str, size: int, theirs: ssl.SSLContext | None, mine: ssl.SSLContext | None
) -> float:
    with socket.create_server((address, 0)) as server:
        child = os.fork()
        if child == 0:
            with open(f"/run/netns/{space}") as inside:
                os.setns(inside.fileno()) if hasattr(os, "setns") else _setns(inside.fileno())
            taken: Any = socket.create_connection(server.getsockname())
            taken = mine.wrap_socket(taken) if mine is not None else taken
            room = memoryview(bytearray(size * MB))
            for _ in range(1 + ROUNDS):
                got, count = 0, size * MB // 8 * 8
                while got < count:
                    got += taken.recv_into(room[got:])
                taken.sendall(b"y")
            os._exit(0)
        sending: Any = server.accept()[0]
        sending = theirs.wrap_socket(sending, server_side=True) if theirs is not None else sending
        with sending:

            def move(array: Any) -> None:
                sending.sendall(memoryview(array).cast("B"))
                sending.recv(1)

            rate = _rate(move, size)
        os.waitpid(child, 0)
        return rate


def _setns(descriptor: int) -> None:
    """Enter a network namespace. (Python 3.11 has no name for it.)"""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0):
        raise OSError(ctypes.get_errno(), "setns")


BENCHMARK = Benchmark(
    name="hosts",
    text=__doc__,
    unit="MB/s, trips/s",
    size=100,
    quick_size=10,
    subjects=(engineroom, on_one_host, raw),
    goals=(
        Goal(PUSH, at_least=1000),
        Goal(PUSH, TLS),
        Goal(BACK, TLS),
        Goal(FAR, NEAR, at_least=1 / 1.5),
    ),
)
