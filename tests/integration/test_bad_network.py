"""Clients and engines behind a bad network: cut, stalled, slow, bytes that come twice. Nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from conftest import hold, wait_until
from support.tcp_proxy import TcpProxy

import engineroom as er
from engineroom.client.connection import channel
from engineroom.config import ConnectionInfo, write_connection_file

#: A peer that is silent for so many seconds is lost.
SILENCE = 2.0


def note(ledger: str, number: int, seconds: float = 0.005) -> int:
    """One line in the ledger, and a moment of work."""
    import os
    import time

    handle = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{number}\n".encode())
    os.close(handle)
    time.sleep(seconds)
    return number


def runs(ledger: Path) -> Counter[int]:
    return Counter(int(line) for line in ledger.read_text().splitlines()) if ledger.exists() else Counter()


@pytest.fixture(scope="module")
def far_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[er.Cluster]:
    """Two engines beside a controller that listens on a port."""
    with er.Cluster(
        n=2,
        profile_dir=tmp_path_factory.mktemp("far") / "profile",
        controller_ip="127.0.0.1",
        controller_args=[f"--IPController.allowed_silence={SILENCE}", "--IPController.ping_interval=0.3"],
    ) as rc:
        yield rc.cluster


@pytest.fixture
def proxy(far_cluster: er.Cluster) -> Iterator[TcpProxy]:
    made = TcpProxy(int(far_cluster.connection.url.rpartition(":")[2]))
    yield made
    made.close()


def through(proxy: TcpProxy, cluster: er.Cluster) -> ConnectionInfo:
    """The way to a cluster through a proxy."""
    return msgspec.structs.replace(cluster.connection, url=f"tcp://127.0.0.1:{proxy.port}")


@pytest.fixture
def far(far_cluster: er.Cluster, proxy: TcpProxy) -> Iterator[er.Client]:
    """A client behind the proxy."""
    with er.Client(through(proxy, far_cluster)) as rc:
        rc.wait_for_engines(2, timeout=30)
        yield rc
        proxy.mend()


@pytest.fixture
def work(far: er.Client, proxy: TcpProxy, tmp_path: Path) -> Callable[[Callable[[], Any]], None]:
    """Submits tasks before, during and after a fault: each must run once, and its value arrive."""
    ledger = tmp_path / "ledger"
    view = far.load_balanced_view()

    def run(fault: Callable[[], Any]) -> None:
        results = [view.apply_async(note, str(ledger), number) for number in range(100)]
        wait_until(lambda: sum(runs(ledger).values()) > 10)
        fault()
        results += [view.apply_async(note, str(ledger), number) for number in range(100, 120)]
        proxy.mend()
        assert [result.get(60) for result in results] == list(range(120))
        assert runs(ledger) == dict.fromkeys(range(120), 1)
        ids = [id for result in results for id in result.msg_ids]
        assert far.db_count({"msg_id": {"$in": ids}, "state": "completed"}) == 120

    return run


def for_seconds(seconds: float) -> None:
    """The fault lasts: it is no condition to wait for."""
    time.sleep(seconds)


@pytest.mark.fault(22)
@pytest.mark.parametrize("seconds", [0.3, SILENCE + 0.7])
def test_a_cut_between_client_and_controller(work, proxy, seconds):
    def fault() -> None:
        proxy.cut()
        for_seconds(seconds)

    work(fault)
    assert proxy.cuts
    assert proxy.made > 1, "the client has connected again"


@pytest.mark.fault(22)
@pytest.mark.parametrize("ways", [{"up", "down"}, {"up"}, {"down"}], ids=["both", "up", "down"])
@pytest.mark.parametrize("seconds", [0.3, SILENCE + 0.7])
def test_a_connection_that_stays_and_passes_nothing_on(work, proxy, ways, seconds):
    before = proxy.made

    def fault() -> None:
        proxy.stalled |= ways
        for_seconds(seconds)

    work(fault)
    assert proxy.made >= before


@pytest.mark.fault(24)
def test_one_byte_at_a_time(far, proxy, tmp_path):
    before, proxy.trickles = proxy.passed, True
    array = np.arange(1000)
    assert (far.load_balanced_view().apply_async(lambda a: a * 2, array).get(60) == array * 2).all()
    assert proxy.passed - before > array.nbytes


@pytest.mark.fault(25)
def test_bytes_that_come_twice_cost_the_connection_and_nothing_else(work, proxy):
    def fault() -> None:
        proxy.repeats = 1
        wait_until(lambda: proxy.repeated)

    work(fault)
    assert proxy.repeated
    assert proxy.made > 1, "the controller has closed the connection"


@pytest.mark.fault(25)
def test_a_recorded_connection_is_refused_when_it_is_replayed(far, far_cluster, proxy, tmp_path):
    ledger = tmp_path / "ledger"
    assert far.load_balanced_view().apply_sync(note, str(ledger), 1) == 1
    recorded = [bytes(stream) for stream in proxy.recorded]
    assert any(len(stream) > 500 for stream in recorded)
    port = int(far_cluster.connection.url.rpartition(":")[2])
    for stream in recorded:
        with socket.create_connection(("127.0.0.1", port)) as replayed, contextlib.suppress(OSError):
            replayed.settimeout(1)
            replayed.sendall(stream)
            while replayed.recv(1 << 16):
                pass
    assert far.load_balanced_view().apply_sync(note, str(ledger), 2) == 2
    assert runs(ledger) == {1: 1, 2: 1}


@pytest.mark.fault(22)
def test_a_cut_that_lasts_is_an_error_in_the_end(far_cluster, proxy, monkeypatch, gate):
    monkeypatch.setattr(channel, "LOST_SECONDS", 2.0)
    with er.Client(through(proxy, far_cluster)) as rc:
        result = rc.load_balanced_view().apply_async(hold, str(gate))
        wait_until(lambda: rc._channel.is_all_accepted)
        proxy.cut()
        with pytest.raises(er.ControllerLost):
            result.get(60)
        [id] = result.msg_ids
    gate.touch()
    with far_cluster.connect_client_sync() as other:
        assert other.get_result(id).get(60) is None, "the task went on"


def in_order(view: er.DirectView, proxy: TcpProxy, way: str, count: int = 20) -> list[int]:
    """Push numbers, each of which is lost with a connection, and read each right behind it; returns what was read."""
    read = []
    for number in range(count):
        proxy.stalled.add(way)
        view.push({"latest": number}, block=False)
        wait_until(lambda: proxy.has_waiting(way))
        proxy.cut()
        proxy.mend()
        read.append(view.apply_async(int, er.Reference("latest")))
        assert read[-1].wait(60)
    return [result.get() for result in read]


@pytest.mark.fault(22)
def test_tasks_for_one_engine_keep_their_order_when_the_clients_connection_is_lost(far, proxy):
    assert in_order(far[far.ids[0]], proxy, "up") == list(range(20))


# ---------------------------------------------------------------------------------------------- engines


@pytest.fixture
def far_engine(far_cluster: er.Cluster, proxy: TcpProxy, tmp_path: Path) -> Iterator[er.Client]:
    """A client beside the controller, and a third engine behind the proxy: the last of `ids`."""
    file = tmp_path / "security" / "engine.json"
    write_connection_file(file, through(proxy, far_cluster))
    command = [sys.executable, "-m", "engineroom.engine", f"--profile-dir={tmp_path}", f"--file={file}"]
    with far_cluster.connect_client_sync() as rc, subprocess.Popen(command) as process:
        try:
            rc.wait_for_engines(3, timeout=60)
            yield rc
        finally:
            process.terminate()
            process.wait(60)
            wait_until(lambda: len(rc.ids) == 2)


@pytest.mark.fault(23)
@pytest.mark.parametrize("how", ["cut", "stalled", "up", "down"])
def test_a_short_cut_between_engine_and_controller_costs_no_attempt(far_engine, proxy, tmp_path, how):
    ledger, engine = tmp_path / "ledger", far_engine.ids[-1]
    view = far_engine[engine]
    result = view.apply_async(note, str(ledger), 1, 0.3)
    later = view.apply_async(note, str(ledger), 2)
    wait_until(lambda: runs(ledger)[1])
    if how == "cut":
        proxy.cut()
    else:
        proxy.stalled |= {"up", "down"} if how == "stalled" else {how}
    for_seconds(0.6)
    proxy.mend()
    assert (result.get(60), later.get(60)) == (1, 2)
    assert runs(ledger) == {1: 1, 2: 1}
    [record] = far_engine.db_query({"msg_id": result.msg_ids[0]}, keys=["attempts"])
    assert len(record["attempts"]) == 1


@pytest.mark.fault(23)
def test_tasks_for_one_engine_keep_their_order_when_its_connection_is_lost(far_engine, proxy):
    assert in_order(far_engine[far_engine.ids[-1]], proxy, "down") == list(range(20))


@pytest.mark.fault(23)
@pytest.mark.parametrize("how", ["cut", "stalled"])
def test_a_long_cut_gives_the_tasks_to_others_and_each_has_one_outcome(far_engine, proxy, tmp_path, how):
    ledger, engine = tmp_path / "ledger", far_engine.ids[-1]
    view = far_engine.load_balanced_view(retries=2)
    results = [view.apply_async(note, str(ledger), number, 0.2) for number in range(30)]
    wait_until(lambda: len(runs(ledger)) >= 3)
    proxy.cut() if how == "cut" else proxy.stalled.update({"up", "down"})
    wait_until(lambda: engine not in far_engine.ids)
    assert [result.get(60) for result in results] == list(range(30))
    proxy.mend()
    assert set(runs(ledger)) == set(range(30))
    ids = [id for result in results for id in result.msg_ids]
    records = far_engine.db_query({"msg_id": {"$in": ids}}, keys=["state", "attempts"])
    assert Counter(record["state"] for record in records) == {"completed": 30}
    assert sum(runs(ledger).values()) <= sum(len(record["attempts"]) for record in records) + 30
    assert any(len(record["attempts"]) > 1 for record in records), "the cut was noticed"
