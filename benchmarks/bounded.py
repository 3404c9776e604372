"""Does the memory of each process stay under its limit, whatever users do? Each of these would be too much without one.

    python -m benchmarks.bounded              # all of them: some minutes, and some 3 GB of disk for a while
    python -m benchmarks.bounded output       # one

It prints the largest resident memory that each process had, in MiB, beside its limit, and what became of the tasks.
Exit code 1: a limit was passed, or a task was lost.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

import engineroom as er

#: What the tasks that wait may take in the controller, in MiB.
QUEUED_MEMORY = 1024
#: What it has besides, in MiB: tasks for which it has no room (256, as messages), and what is being recorded.
BESIDES = 700
MIB = 1 << 20
#: What the controller keeps at most, in MiB: 1,024 on their way to one client, 256 of results, 256 of arguments …
ON_THE_WAY = 1_600


def peak(pid: int) -> float:
    """The largest resident memory that a process of this host has had, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"the kernel does not tell the memory of process {pid}")


class Limits:
    """What is measured, beside what is allowed."""

    def __init__(self, name: str) -> None:
        self.name, self.is_good = name, True

    def memory(self, process: str, pid: int, most: float) -> None:
        """The memory of a process, in MiB, beside its limit."""
        self.tell(f"{process}: {peak(pid):,.0f} MiB, at most {most:,.0f}", peak(pid) <= most)

    def tell(self, text: str, is_good: bool) -> None:
        """Something that must be so, and is or is not."""
        self.is_good &= is_good
        print(f"{self.name:8} {'ok  ' if is_good else 'FAIL'} {text}", flush=True)


def pid_of_engine(rc: er.Client, id: int = 0) -> int:
    """Its process."""
    return int(rc.queue_status()[id]["pid"])


def until(condition: Callable[[], bool], seconds: float = 600) -> bool:
    """Wait for a condition; returns whether it came about."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


SUBMITS = """
import sys, engineroom as er
rc = er.Client(profile_dir=sys.argv[1])
view = rc.load_balanced_view(label="many")
for number in range({tasks}):
    view.apply_async(len, b"%08d" % number * {words})
rc.close(linger=3600)
print(max(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024)
"""


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.1)


def million(limits: Limits, folder: Path, tasks: int = 1_000_000, words: int = 256) -> None:
    """A million tasks with 2 GB of arguments wait for an engine, and then run. They are too many for the controller."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ipcontroller_config.py").write_text(f"c.IPController.queued_memory = '{QUEUED_MEMORY}MiB'\n")
    with er.Cluster(n=1, profile_dir=folder) as rc:
        controller = rc.connection.pid
        most = peak(controller) + QUEUED_MEMORY + BESIDES
        go = folder / "go"
        rc[0].apply_async(wait_for, str(go))
        command = [sys.executable, "-c", SUBMITS.format(tasks=tasks, words=words), str(folder)]
        began = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
            assert client.stderr is not None
            told = next((line for line in client.stderr if "take all the memory" in line), "")
            waiting = rc.db_count({"state": "pending"})
            text = f"{waiting:,} tasks were taken in within {time.monotonic() - began:.0f} s"
            limits.tell(f"{text}; the client says: {told.strip()}", 0 < waiting < tasks)
            limits.memory("controller", controller, most)
            began = time.monotonic()
            go.touch()
            out, _ = client.communicate(timeout=3600)
        used, arguments = int(out or 0), tasks * words * 8 / MIB
        limits.tell(f"client: {used:,} MiB; {arguments:,.0f} of them are arguments", used <= 3 * arguments + 500)
        until(lambda: rc.db_count({"state": "pending"}) == 0, 3600)
        ended = rc.db_count({"state": "completed", "label": "many"})
        limits.tell(f"{ended:,} tasks completed in {time.monotonic() - began:.0f} s", ended == tasks)
        limits.memory("controller", controller, most)
        limits.memory("engine", pid_of_engine(rc), 200)


UNREAD = """
import sys, engineroom as er
rc = er.Client(profile_dir=sys.argv[1])
view = rc.load_balanced_view(label="unread")
results = [view.apply_async(bytes, {size}) for _ in range({tasks})]
while not rc._channel.is_all_accepted: pass
print("sent", flush=True)
sys.stdin.readline()
assert [len(result.get(600)) for result in results] == [{size}] * {tasks}
print("good", flush=True)
"""


def unread(limits: Limits, folder: Path, tasks: int = 20_000, size: int = 100_000) -> None:
    """A client that is stopped does not read 2 GB of results; later it reads all of them."""
    with er.Cluster(n=2, profile_dir=folder) as rc:
        controller = rc.connection.pid
        before = peak(controller)
        code = UNREAD.format(tasks=tasks, size=size)
        command = [sys.executable, "-c", code, str(folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdout.readline()
            client.send_signal(signal.SIGSTOP)
            is_over = until(lambda: rc.db_count({"label": "unread", "state": "completed"}) == tasks)
            limits.tell(f"all {tasks:,} tasks completed while their client was stopped", is_over)
            limits.memory("controller", controller, before + ON_THE_WAY)
            client.send_signal(signal.SIGCONT)
            out, _ = client.communicate("go\n", timeout=600)
        limits.tell("it has all results", out == "good\n")
        limits.memory("controller", controller, before + ON_THE_WAY)
        limits.memory("engine", pid_of_engine(rc), 400)


def print_much(gigabytes: int) -> int:
    line, count = b"x" * 1023 + b"\n", 0
    block = line * 1024
    for _ in range(gigabytes << 10):
        count += os.write(1, block)
    return count


def output(limits: Limits, folder: Path, gigabytes: int = 10) -> None:
    """A task prints 10 GB."""
    with er.Cluster(n=1, profile_dir=folder) as rc:
        controller, engine = rc.connection.pid, pid_of_engine(rc)
        began = time.monotonic()
        result = rc[0].apply_async(print_much, gigabytes)
        is_whole = result.get(1200) == gigabytes << 30
        limits.tell(f"{gigabytes} GB were printed in {time.monotonic() - began:.0f} s", is_whole)
        [record] = rc.db_query({"msg_id": result.msg_ids[0]}, keys=["stdout"])
        kept = len(record["stdout"])
        limits.tell(f"the record has {kept / MIB:.1f} MiB of it: {record['stdout'][-60:]!r}", kept < 20 * MIB)
        limits.memory("controller", controller, 300)
        limits.memory("engine", engine, 300)
        limits.memory("this client", os.getpid(), 400)


CLIENTS = """
import sys, engineroom as er
clients = [er.Client(profile_dir=sys.argv[1]) for _ in range({count})]
views = [client.load_balanced_view(label="crowd") for client in clients]
results = [view.apply_async(abs, -n) for n, view in enumerate(views) for _ in range(10)]
assert [result.get(600) for result in results] == [n for n in range({count}) for _ in range(10)]
print("good", flush=True)
sys.stdin.readline()
"""


def clients(limits: Limits, folder: Path, processes: int = 10, count: int = 100) -> None:
    """A thousand clients at once, each with ten tasks."""
    with er.Cluster(n=2, profile_dir=folder) as rc:
        controller = rc.connection.pid
        before = peak(controller)
        command = [sys.executable, "-c", CLIENTS.format(count=count), str(folder)]
        started = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        said = [process.stdout.readline() for process in started if process.stdout is not None]
        number = psutil.Process(controller).num_fds()
        have_all = said == ["good\n"] * processes
        limits.tell(f"{processes * count:,} clients have their results; {number:,} descriptors", have_all)
        limits.memory("controller", controller, before + 0.2 * processes * count)
        for process in started:
            process.communicate("\n", timeout=60)


def locked(limits: Limits, folder: Path, seconds: float = 20.0, tasks: int = 300_000) -> None:
    """The database is locked by another program for 20 s, while tasks are submitted as fast as can be."""
    with er.Cluster(n=2, profile_dir=folder) as rc:
        controller = rc.connection.pid
        before = peak(controller)
        file = rc.connection.database.removeprefix("sqlite://")
        code = SUBMITS.format(tasks=tasks, words=16)
        lock = sqlite3.connect(file, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as client:
            time.sleep(seconds)
            limits.memory(f"after {seconds:g} s, controller", controller, before + 300)
            lock.execute("ROLLBACK")
            lock.close()
            client.communicate(timeout=600)
        until(lambda: rc.db_count({"state": "pending"}) == 0)
        ended = rc.db_count({"label": "many", "state": "completed"})
        limits.tell(f"{ended:,} of {tasks:,} tasks completed", ended == tasks)
        limits.memory("controller", controller, before + 300)


SCENARIOS = {each.__name__: each for each in (million, unread, output, clients, locked)}


def main(names: list[str]) -> int:
    is_good = True
    for name in names or SCENARIOS:
        limits = Limits(name)
        print(f"{name:8} {SCENARIOS[name].__doc__}", flush=True)
        with tempfile.TemporaryDirectory(prefix="bounded-") as folder:
            SCENARIOS[name](limits, Path(folder) / "profile_default")
        is_good &= limits.is_good
    return 0 if is_good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", choices=[[], *SCENARIOS], help="what to do; by default everything")
    sys.exit(main(parser.parse_args().name))
