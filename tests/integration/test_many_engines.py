"""A thousand engines at one controller.

Light ones say Hello, give signs of life, and run nothing. Engines with processes are a hundred here, and a thousand by
night: they take 5 GB.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import engineroom as er
from engineroom.config import ConnectionInfo
from engineroom.descriptors import raise_limit
from engineroom.engine.session_link import SessionLink
from engineroom.ids import new_uuid
from engineroom.messages import Pong, Welcome
from engineroom.transport import connect
from engineroom.wire import frames
from engineroom.wire.session import LinkSession, introduce

pytestmark = pytest.mark.slow
MANY = 1000
PROCESSES = 1000 if os.environ.get("ENGINEROOM_NIGHTLY") else 100


@contextlib.contextmanager
def light_engines(info: ConnectionInfo, count: int) -> Iterator[None]:
    """So many links that the controller takes for engines. One thread serves them all."""
    links: dict[int, SessionLink] = {}
    for _ in range(count):
        session = LinkSession(introduce("engine", info.key, new_uuid()), 2.0, time.monotonic())
        link = SessionLink(session, connect(info), frames.decode_to_engine)
        links[link.fileno()] = link
        link.hello()
    stopped = threading.Event()

    def serve() -> None:
        with contextlib.closing(select.epoll()) as poll:
            for descriptor in links:
                poll.register(descriptor, select.EPOLLIN)
            due = deque(links.values())  # for a sign of life, in this order
            while not stopped.is_set():
                for descriptor, _ in poll.poll(0.05):
                    hear(links[descriptor])
                while due[0].session.next_ping <= time.monotonic():
                    due[0].ping()
                    hear(due[0])  # sending may swallow the news of an arrival
                    due.rotate(-1)

    def hear(link: SessionLink) -> None:
        for parts in link.receive(wait=False):
            match link.read(parts):
                case Welcome() as welcome:
                    link.session.on_welcome(welcome)
                case Pong() as pong if not link.session.on_pong(pong):
                    link.hello()  # the first one was lost

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        for link in links.values():
            link.close()


@pytest.mark.fault(36)
def test_a_thousand_engines_register_and_are_shown(tmp_path: Path):
    raise_limit(4 * MANY)
    cluster = er.Cluster(n=0, profile_dir=tmp_path, cluster_id="many")
    cluster.start_cluster_sync()
    try:
        with cluster.connect_client_sync() as rc, light_engines(cluster.connection, MANY):
            rc.wait_for_engines(MANY, timeout=60)
            assert rc.ids == list(range(MANY))
            assert len(rc.queue_status()) == MANY + 1
            words = ["top", "--once", f"--profile-dir={tmp_path}", "--cluster-id=many"]
            command = [sys.executable, "-m", "engineroom.cli.engineroom", *words]
            shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert "1,000 engines, 0 busy" in shown.stdout, shown.stderr
    finally:
        cluster.stop_cluster_sync()


@pytest.mark.fault(36)
@pytest.mark.timeout(600 if PROCESSES == MANY else 120)
def test_many_engines_with_processes_come_run_a_task_each_and_go(tmp_path: Path):
    raise_limit(4 * MANY)
    cluster = er.Cluster(n=PROCESSES, profile_dir=tmp_path, cluster_id="many", engine_timeout=300)
    try:
        with cluster.start_and_connect_sync() as rc:
            pids = rc[:].apply_sync(os.getpid)
            assert len(set(pids)) == PROCESSES
    finally:
        cluster.stop_cluster_sync()
    assert not [pid for pid in pids if psutil.pid_exists(pid) and str(tmp_path) in command_of(pid)]


def command_of(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(psutil.Process(pid).cmdline())
    return ""
