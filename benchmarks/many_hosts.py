"""New data for many hosts, each with a network of 1 Gbit/s: network namespaces behind a bridge, and limits of `tc`.

A client on the controller's host pushes 50 MB of new numbers to one engine of one host, and then to one engine on each
of six hosts: passed on from host to host, and sent to each by the controller (`IPController.relay=False`). Figures are
seconds, from the call until all engines have it. It needs root, `ip` and `tc`, and shows nothing without.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

import engineroom as er

from .harness import Benchmark, Figures, Goal
from .hosts import engine_on, is_possible

HOSTS, ROUNDS, MB = 6, 5, 1 << 20
RATE = "1gbit"

ONE = "to one host"
PASSED_ON, SENT = f"to {HOSTS} hosts, passed on", f"to {HOSTS} hosts, sent to each"


@contextmanager
def hosts(count: int, rate: str = RATE) -> Iterator[tuple[list[str], str]]:
    """Network namespaces: (their names, the address that this host has for them). Each sends so much at most."""
    tag, net = f"ery{os.getpid() % 10000}", f"10.{192 + os.getpid() % 60}.{os.getpid() // 60 % 250}"

    def run(*words: str) -> None:
        subprocess.run(words, check=True)

    def limit(*where: str) -> None:
        run(*where, "root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms")

    with ExitStack() as made:
        run("ip", "link", "add", f"{tag}b", "type", "bridge")
        made.callback(run, "ip", "link", "del", f"{tag}b")
        run("ip", "addr", "add", f"{net}.1/24", "dev", f"{tag}b")
        run("ip", "link", "set", f"{tag}b", "up")
        limit("tc", "qdisc", "add", "dev", f"{tag}b")
        names = [f"{tag}h{number}" for number in range(count)]
        for number, name in enumerate(names):
            run("ip", "netns", "add", name)
            made.callback(run, "ip", "netns", "del", name)
            run("ip", "link", "add", f"{tag}v{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", f"{tag}v{number}", "master", f"{tag}b", "up")
            run("ip", "-n", name, "addr", "add", f"{net}.{number + 10}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
            limit("tc", "-n", name, "qdisc", "add", "dev", "eth0")
        yield names, f"{net}.1"


@contextmanager
def engines(names: list[str], address: str, *options: str) -> Iterator[Any]:
    """A client of a cluster with one engine on each of these hosts."""
    with (
        tempfile.TemporaryDirectory(prefix="engineroom-bench-") as folder,
        er.Cluster(n=0, profile_dir=folder, controller_ip=address, controller_args=options) as rc,
        ExitStack() as started,
    ):
        for name in names:
            started.enter_context(engine_on(name, folder))
        rc.wait_for_engines(len(names), timeout=120)
        yield rc


def _is_possible() -> bool:
    """Whether this process may make network namespaces, and limit them."""
    return is_possible() and shutil.which("tc") is not None


def _seconds(rc: Any, count: int, size: int) -> float:
    """Seconds for a push to so many engines: the median."""
    view, random, times = rc[list(rc.ids)[:count]], np.random.default_rng(1), []
    for _ in range(1 + ROUNDS):
        array = random.integers(0, 255, size * MB, dtype=np.uint8)
        began = time.perf_counter()
        view.push({"a": array}, block=True)
        times.append(time.perf_counter() - began)
        rc.db_query({}, keys=["msg_id"], limit=1)  # after what was pushed is recorded
        time.sleep(0.5)
    return statistics.median(times[1:])


def passed_on(size: int) -> Figures:
    if not _is_possible():
        return {}
    with hosts(HOSTS) as (names, address), engines(names, address) as rc:
        return {ONE: _seconds(rc, 1, size), PASSED_ON: _seconds(rc, HOSTS, size)}


def sent(size: int) -> Figures:
    if not _is_possible():
        return {}
    with hosts(HOSTS) as (names, address), engines(names, address, "--IPController.relay=False") as rc:
        return {SENT: _seconds(rc, HOSTS, size)}


BENCHMARK = Benchmark(
    name="many_hosts",
    text=__doc__,
    unit="s",
    size=50,
    quick_size=5,
    subjects=(passed_on, sent),
    goals=(Goal(PASSED_ON, SENT),),
)
