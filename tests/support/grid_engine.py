"""A real Grid Engine for tests, as Debian packages it: its files have fixed places, so there is one of it on a host."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from . import debian

HOME = Path("/var/lib/gridengine/default")
#: queue, parallel environment and so on, as `qconf` takes them
HOST = """hostname {host}
load_scaling NONE
complex_values NONE
user_lists NONE
xuser_lists NONE
projects NONE
xprojects NONE
usage_scaling NONE
report_variables NONE
"""
ENVIRONMENT = """pe_name smp
slots 999
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule $pe_slots
control_slaves TRUE
job_is_first_task FALSE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""
QUEUE = {
    "qname": "all.q",
    "hostlist": "@allhosts",
    "slots": "8",
    "pe_list": "smp",
    "load_thresholds": "NONE",
    "shell": "/bin/sh",
}


class GridEngine:
    """One host with eight slots."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept = folder / "kept"

    def start(self) -> None:
        """Start it, with a queue."""
        shutil.copytree(HOME, self._kept, symlinks=True)
        host = socket.gethostname()
        (HOME / "common" / "host_aliases").write_text(f"{host} localhost\n")
        (HOME / "common" / "act_qmaster").write_text(f"{host}\n")
        subprocess.run(["install", "-d", "-o", "sgeadmin", "/run/gridengine"], check=True)
        subprocess.run([str(debian.find("sge_qmaster"))], check=True, capture_output=True)
        _wait_until(lambda: self._configure("-sh") is not None)
        self._change("-sconf", "-Mconf", "global", {"min_uid": "0", "min_gid": "0"})
        quick = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
        self._change("-ssconf", "-Msconf", "scheduler", quick)
        self._configure("-as", host)
        self._add("-Ae", HOST.format(host=host))
        self._add("-Ahgrp", f"group_name @allhosts\nhostlist {host}\n")
        self._add("-Ap", ENVIRONMENT)
        self._change("-sq", "-Aq", "queue", QUEUE)
        subprocess.run([str(debian.find("sge_execd"))], check=True, capture_output=True)
        _wait_until(lambda: "lx-amd64" in subprocess.run(["qstat", "-f"], capture_output=True, text=True).stdout)

    def _configure(self, *words: str) -> str | None:
        done = subprocess.run(["qconf", *words], capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else None

    def _add(self, option: str, text: str) -> None:
        path = self._folder / "added"
        path.write_text(text)
        self._configure(option, str(path))

    def _change(self, show: str, put: str, name: str, values: dict[str, str]) -> None:
        lines = []
        for line in (self._configure(show) or "").splitlines():
            key = line.split(" ", 1)[0]
            lines.append(f"{key} {values[key]}" if key in values else line)
        path = self._folder / name
        path.write_text("\n".join(lines) + "\n")
        self._configure(put, str(path))

    @property
    def queue(self) -> str:
        """The jobs that are pending or running, as qstat shows them; "" if there are none."""
        return subprocess.run(["qstat", "-u", "*"], capture_output=True, text=True).stdout

    def stop(self) -> None:
        """Stop it, and put its files back."""
        for words in (["-ke", "all"], ["-km"]):
            self._configure(*words)
        daemons = [p for p in psutil.process_iter(["name"]) if p.info["name"] in ("sge_qmaster", "sge_execd")]
        _, alive = psutil.wait_procs(daemons, timeout=15)
        for process in alive:
            process.send_signal(signal.SIGKILL)
        shutil.rmtree(HOME)
        subprocess.run(["cp", "-a", str(self._kept), str(HOME)], check=True)
        subprocess.run(["chown", "-R", "sgeadmin:sgeadmin", str(HOME)], check=True)


def _wait_until(condition: object, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"not so after {timeout:g} s"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def grid_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridEngine]:
    """Grid Engine with one host."""
    why = debian.missing("Grid Engine")
    if why is None and any(p.info["name"] == "sge_qmaster" for p in psutil.process_iter(["name"])):
        why = "another Grid Engine runs on this host"
    if why:
        pytest.skip(why)
    made = GridEngine(tmp_path_factory.mktemp("sge"))
    try:
        made.start()
        yield made
        assert made.queue == ""
    finally:
        made.stop()
