"""Clusters for tests, and the proof that they leave nothing behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import engineroom as er

pytest_plugins = [
    "support.dashboards",
    "support.database",
    "support.grid_engine",
    "support.hosts",
    "support.notebooks",
    "support.jupyterlab",  # behind `notebooks`, which it imports: pytest prepares a plugin before its first import
    "support.slurm",
]

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background job: tests are to be interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Running processes of clusters whose profile is somewhere under a folder: all name it on their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if process.info["status"] == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
            continue
        if any(str(folder) in argument for argument in command) and any("engineroom" in a for a in command):
            found.append(process)
    return found


def wait_until(condition: Callable[[], Any], timeout: float = 60.0) -> Any:
    """Wait for a condition; returns its value. Fails after the timeout: long, as the machine may be busy."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not so after {timeout:g} s"
        time.sleep(0.01)
    return value


def hold(gate: str, value: Any = None) -> Any:
    """For a task: runs until a file is there; returns the value."""
    import os
    import time

    while not os.path.exists(gate):
        time.sleep(0.005)
    return value


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file for `hold`: tasks run until a test touches it; it appears at the end in any case."""
    path = tmp_path / "gate"
    yield path
    path.touch()


def engine_of_a_killed_process(cluster: str) -> int:
    """Have a process make this cluster of one engine, and kill it; returns the process id of the engine."""
    code = (
        f"import sys, os, engineroom as er\ncluster = er.Cluster({cluster})\nrc = cluster.start_and_connect_sync()\n"
        "print(rc[0].apply_sync(os.getpid), flush=True)\nsys.stdin.read()\n"
    )
    script = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert script.stdout is not None
    engine = int(script.stdout.readline())
    script.kill()
    script.communicate()
    return engine


def _threads() -> set[threading.Thread]:
    """Threads but for those that pyzmq, tqdm and dask keep, one per process."""
    kept = ("GarbageCollectorThread", "TMonitor")
    return {
        thread
        for thread in threading.enumerate()
        if type(thread).__name__ not in kept and not thread.name.startswith("Dask-Offload")
    }


def _assert_nothing_left(folder: Path, sockets: list[Path], threads: set[threading.Thread]) -> None:
    wait_until(lambda: not processes_of(folder))
    assert [path for path in sockets if path.exists()] == []
    for thread in _threads() - threads:
        thread.join(5)
    assert [repr(thread) for thread in _threads() - threads] == []
    left = [p.name for p in folder.glob("**/security/*")]
    assert left == [], "connection and cluster files are removed at the end"


def _sockets_of(cluster: er.Cluster) -> list[Path]:
    path = cluster.connection.socket
    return [] if path is None else [path]


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engines can import the test modules; no progress bars; IPython keeps its files among the tests' own."""
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "IPP_NONINTERACTIVE", "IPYTHONDIR")}
    here = Path(__file__).parent
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(here), str(here / "integration"), before["PYTHONPATH"]])
    )
    os.environ["IPP_NONINTERACTIVE"] = "1"
    os.environ["IPYTHONDIR"] = str(tmp_path_factory.mktemp("ipython"))
    yield
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def _session_cluster(folder: Path, **options: Any) -> Iterator[er.Cluster]:
    threads = _threads()
    cluster = er.Cluster(n=2, profile_dir=folder / "profile_default", **options)
    cluster.start_cluster_sync()
    sockets = _sockets_of(cluster)
    try:
        yield cluster
    finally:
        cluster.stop_cluster_sync()
    _assert_nothing_left(folder, sockets, threads)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[er.Cluster]:
    """Two engines and SQLite, shared by all tests that leave it as they found it."""
    yield from _session_cluster(tmp_path_factory.mktemp("shared"), database="sqlite")


@pytest.fixture(scope="session")
def notebook_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[er.Cluster]:
    """The same for notebooks alone: what other tests leave in engines' shells does not show in cells."""
    yield from _session_cluster(tmp_path_factory.mktemp("notebooks"), database="sqlite")


@pytest.fixture(scope="session")
def memory_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[er.Cluster]:
    """The same, recording in memory."""
    yield from _session_cluster(tmp_path_factory.mktemp("memory"), database="memory")


@pytest.fixture(scope="session")
def unrecorded_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[er.Cluster]:
    """The same, keeping no records."""
    yield from _session_cluster(tmp_path_factory.mktemp("unrecorded"), database="none")


def _client(cluster: er.Cluster) -> Iterator[er.Client]:
    with cluster.connect_client_sync() as rc:
        rc.wait_for_engines(2, timeout=30)
        rc[:].clear(block=True)
        yield rc
        rc.abort()


@pytest.fixture
def rc(cluster: er.Cluster) -> Iterator[er.Client]:
    """A client of the shared cluster; the engines' namespaces are empty."""
    yield from _client(cluster)


@pytest.fixture(params=["sqlite", "memory"])
def any_rc(request: pytest.FixtureRequest) -> Iterator[er.Client]:
    """A client of a shared cluster, on each database."""
    yield from _client(request.getfixturevalue("cluster" if request.param == "sqlite" else "memory_cluster"))


@pytest.fixture
def fresh_cluster(tmp_path: Path) -> Iterator[Callable[..., er.Client]]:
    """Start a cluster for this test alone: `fresh_cluster(n=2, database=…)` gives its client (`rc.cluster`)."""
    started: list[er.Cluster] = []
    sockets: list[Path] = []
    threads = _threads()

    def start(n: int = 2, **options: Any) -> er.Client:
        folder = tmp_path / f"cluster{len(started)}" / "profile_default"
        cluster = er.Cluster(n=n, profile_dir=folder, **options)
        started.append(cluster)
        rc = cluster.start_and_connect_sync()
        sockets.extend(_sockets_of(cluster))
        return rc

    yield start
    for cluster in started:
        cluster.stop_cluster_sync()
    _assert_nothing_left(tmp_path, sockets, threads)


@pytest.fixture
def interrupts_arrive() -> Iterator[None]:
    """No garbage is collected: Hypothesis has each collection call a function, and an interrupt in that is lost."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def nth_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that has the n-th operation of a process fail: see support/nth_operation.c."""
    from support.nth_operation import built

    made = built(tmp_path_factory.mktemp("library"))
    if made is None:
        pytest.skip("no C compiler: the library that has operations fail cannot be made")
    return made


@pytest.fixture
def armed(nth_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Processes that are started from now on can be armed: see support/nth_message.py."""
    from support.nth_message import Armed

    found = Armed(tmp_path)
    monkeypatch.setenv("LD_PRELOAD", str(nth_library))
    monkeypatch.setenv("NTH_FILE", str(found.file))
    return found


@pytest.fixture
def lb(rc: er.Client) -> er.LoadBalancedView:
    """A load-balanced view of the shared cluster."""
    return rc.load_balanced_view()


@pytest.fixture
def typed() -> Iterator[Callable[[str], Any]]:
    """Type source into `__main__`, as in a notebook; gives what the last name defined there is."""
    main = sys.modules["__main__"].__dict__
    before = dict(main)

    def run(source: str) -> Any:
        known = set(main)
        exec(compile(source, "<typed>", "exec"), main)
        new = [name for name in main if name not in known and name != "__builtins__"]
        return main[new[-1]] if new else None

    yield run
    for name in [name for name in main if name not in before]:
        del main[name]
    main.update(before)
