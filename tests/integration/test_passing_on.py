"""Large data for several hosts: each passes it on to others.

Here the hosts are nannies on one host, each with an engine, which connect to the controller over TCP.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import processes_of, wait_until

import engineroom as er
from engineroom.controller.supplies.host_buffers import RELAYED_FROM

SIZE = 3 * RELAYED_FROM
HOSTS = 4


def start(folder: Path, *options: str) -> Iterator[er.Client]:
    """A cluster of some nannies with an engine each."""
    with er.Cluster(
        n=1, controller_ip="127.0.0.1", controller_args=options, profile_dir=folder / "profile_default"
    ) as client:
        for _ in range(1, HOSTS):
            client.cluster.start_engines_sync(1)
        client.wait_for_engines(HOSTS)
        yield client
    wait_until(lambda: not processes_of(folder))


@pytest.fixture(scope="module")
def rc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[er.Client]:
    yield from start(tmp_path_factory.mktemp("relay"))


def numbers(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 255, SIZE, dtype=np.uint8)


def nannies(rc: er.Client) -> dict[int, psutil.Process]:
    """Engine → its nanny."""
    pids = rc[:].apply_async(os.getpid).get_dict()
    return {engine: psutil.Process(pid).parent().parent() for engine, pid in pids.items()}


def listening(nanny: psutil.Process) -> set[int]:
    """The ports at which a nanny listens."""
    return {each.laddr.port for each in nanny.net_connections() if each.status == psutil.CONN_LISTEN}


def relays(rc: er.Client) -> list[psutil.Process]:
    """The nannies, by the numbers of their engines, once all of them listen."""
    found = nannies(rc)
    in_order = [found[engine] for engine in sorted(found)]
    wait_until(lambda: all(map(listening, in_order)))
    return in_order


def passed_on(found: list[psutil.Process]) -> list[int]:
    """To how many others each has passed something on, lately."""
    ports = [listening(nanny) for nanny in found]
    return [
        sum(each.laddr.port in own for each in nanny.net_connections() if each.status == psutil.CONN_ESTABLISHED)
        for nanny, own in zip(found, ports, strict=True)
    ]


def push(rc: er.Client, seed: int, engines: slice = slice(None)) -> None:
    """Push new numbers to engines, and see that they have them."""
    array = numbers(seed)
    rc[engines].push({"pushed": array}, block=True)
    assert set(rc[engines].apply_sync(total, er.Reference("pushed"))) == {total(array)}


def total(array: Any) -> tuple[int, int]:
    return len(array), int(array.sum())


def test_the_controller_sends_it_once_and_each_host_passes_it_on_to_two(rc: er.Client):
    found = relays(rc)
    push(rc, 1)
    assert sorted(passed_on(found)) == [0, 0, 1, 2]


def test_arguments_of_a_map_and_results_that_are_arguments_go_the_same_way(rc: er.Client):
    array, view = numbers(2), rc.load_balanced_view()
    assert set(view.map_sync(total, [array] * 40, chunksize=1)) == {total(array)}
    made = view.apply_async(numbers, 3)
    found = [rc.load_balanced_view([engine]).apply_async(total, made) for engine in rc.ids]
    assert {ar.get() for ar in found} == {total(numbers(3))}


def test_small_data_goes_to_each(rc: er.Client):
    found = relays(rc)
    wait_until(lambda: not any(passed_on(found)))
    array = numbers(4)[: RELAYED_FROM - 1]
    rc[:].push({"pushed": array}, block=True)
    assert set(rc[:].apply_sync(total, er.Reference("pushed"))) == {total(array)}
    assert not any(passed_on(found))


def test_a_host_that_dies_while_it_passes_data_on(rc: er.Client):
    found = relays(rc)
    rc[:].push({"pushed": numbers(6)}, block=False)
    found[0].kill()
    assert rc[1:].apply_sync(total, er.Reference("pushed")) == [total(numbers(6))] * (HOSTS - 1)
    wait_until(lambda: all(nanny not in found[:1] for nanny in nannies(rc).values()) and len(rc) == HOSTS)
    now = relays(rc)
    push(rc, 7)
    [new] = [nanny for nanny in now if nanny not in found]
    others = {port for nanny in now if nanny != new for port in listening(nanny)}
    assert any(each.raddr.port in others for each in new.net_connections() if each.raddr) or any(passed_on([new]))


def test_while_the_first_host_hangs_the_others_get_it_from_the_controller(rc: er.Client):
    """The last one here: for some minutes they do not try to connect to another one."""
    first, *_ = relays(rc)
    first.send_signal(signal.SIGSTOP)
    try:
        pushed = rc[:].push({"pushed": numbers(5)}, block=False)
        assert rc[1:].apply_sync(total, er.Reference("pushed")) == [total(numbers(5))] * (HOSTS - 1)
        assert not pushed.done()
    finally:
        first.send_signal(signal.SIGCONT)
    assert rc[:].apply_sync(total, er.Reference("pushed")) == [total(numbers(5))] * HOSTS


def test_if_it_is_not_wanted_no_host_listens(tmp_path: Path):
    for rc in start(tmp_path, "--IPController.relay=False"):
        push(rc, 8)
        assert not any(map(listening, nannies(rc).values()))
