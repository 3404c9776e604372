"""A real Slurm for tests: slurmctld, two nodes (both are this host) and munge, with a folder and ports of their own."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from . import debian

CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}({address})
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/sock
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
InactiveLimit=0
KillWait=2
OverTimeLimit=0
MinJobAge=300
SlurmdParameters=config_overrides
{nodes}
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """Two nodes, n1 and n2, with four cores each; as many as Slurm is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"

    def start(self) -> None:
        """Start it, and wait until both nodes are idle."""
        folder = self.folder
        for name in ("munge", "state", "spool-n1", "spool-n2"):
            (folder / name).mkdir(parents=True)
        for parent in (folder, *folder.parents):
            if parent != Path("/tmp") and parent.is_relative_to("/tmp"):
                parent.chmod(0o755)  # munge asks for that
        (folder / "munge").chmod(0o700)
        key = folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        ports = _free_ports(3)
        host = socket.gethostname().split(".")[0]
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=2000 State=UNKNOWN"
            for name, port in zip(("n1", "n2"), ports[1:], strict=True)
        )
        self.configuration.write_text(
            CONFIGURATION.format(host=host, address="127.0.0.1", port=ports[0], folder=folder, nodes=nodes)
        )
        munge = folder / "munge"
        self._run("munged", "--force", "-S", f"{munge}/sock", f"--key-file={key}", f"--pid-file={munge}/pid",
                  f"--log-file={munge}/log", f"--seed-file={munge}/seed")  # fmt: skip
        self._run("slurmctld", "-i", "-c", "-f", str(self.configuration))
        for name in ("n1", "n2"):
            self._run("slurmd", "-N", name, "-f", str(self.configuration))
        _wait_until(lambda: self.ask("sinfo", "-h", "-N", "-o", "%T").split().count("idle") == 2)

    def _run(self, command: str, *arguments: str) -> str:
        environment = {**os.environ, "SLURM_CONF": str(self.configuration)}
        path = debian.find(command) or command
        done = subprocess.run([path, *arguments], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout

    def ask(self, command: str, *arguments: str) -> str:
        """What a command of Slurm prints."""
        return self._run(command, *arguments)

    @property
    def queue(self) -> list[str]:
        """The jobs that are pending or running."""
        return self.ask("squeue", "--noheader", "--array", "--format=%i %T").splitlines()

    def stop(self) -> None:
        """Stop it; what it left running is killed."""
        for process in self._daemons():
            process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(self._daemons(), timeout=10)
        for process in alive:
            process.kill()

    def _daemons(self) -> list[psutil.Process]:
        """Its daemons, and the helpers of its jobs: all name its folder on their command line, or run its jobs."""
        found = []
        for process in psutil.process_iter(["cmdline", "name"]):
            command = " ".join(process.info["cmdline"] or [])
            if str(self.folder) in command and process.info["name"] in ("munged", "slurmctld", "slurmd"):
                found.append(process)
        return found


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_until(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not so after {timeout:g} s"
        time.sleep(0.05)


def jobs_of_a_killed_process(slurm: Slurm, cluster: str) -> int:
    """Have a process start this cluster, whose engines wait, and kill it; returns how many jobs it had in the queue."""
    code = (
        f"import sys, engineroom as er\ncluster = er.Cluster({cluster}, controller_ip='127.0.0.1',"
        " extra_lines='#SBATCH --begin=now+1hour')\n"
        "cluster.start_cluster_sync()\nprint('started', flush=True)\nsys.stdin.read()\n"
    )
    script = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert script.stdout is not None
    assert script.stdout.readline() == "started\n"
    jobs = len(slurm.queue)
    script.kill()
    script.communicate()
    return jobs


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Slurm with two nodes; its commands find it through SLURM_CONF."""
    why = debian.missing("Slurm")
    if why:
        pytest.skip(why)
    made = Slurm(tmp_path_factory.mktemp("slurm"))
    before = os.environ.get("SLURM_CONF")
    try:
        made.start()
        os.environ["SLURM_CONF"] = str(made.configuration)
        yield made
        assert made.queue == []
    finally:
        os.environ.pop("SLURM_CONF") if before is None else os.environ.__setitem__("SLURM_CONF", before)
        made.stop()
