"""The kill campaign: real processes, killed, stopped and cut off at random while they work; nothing may be lost.

    python -m tests.chaos.campaign --rounds 20         # so many more rounds
    python -m tests.chaos.campaign --again 3 17        # round 17 of seed 3 once more
    python -m tests.chaos.campaign --hosts             # all of these rounds have engines on other hosts
    python -m tests.chaos.campaign --table             # all rounds so far

A round has a cluster of its own, and a user's program in a process of its own (`user.py`). Every fraction of a second
somebody is killed, or stopped for a moment (`injected.py`), until the program says that all tasks have ended. Then
`verify.py` compares what was accepted, what was told, what was recorded and what ran; and no process, socket or file
is left. In every tenth round the engines are on two other hosts, which are cut off now and then, where network
namespaces can be made.

Each round is a line in a file. The next rounds go on where it ends. A round that fails keeps its folder, and says how
to run it again with the same tasks and the same choices; the timing of processes is never the same.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import psutil

import engineroom as er

from . import plan, verify
from .injected import FAULTS, Injector

#: A round that takes longer has failed.
ROUND_SECONDS = 180.0
ENGINES = 4
#: In each of so many rounds, the engines are on other hosts.
HOSTS_EVERY = 10
#: What is counted besides faults and endings, and how the table calls it.
LINES = (
    ("rounds", "rounds"),
    ("with other hosts", "of them with engines on two other hosts"),
    ("rounds that failed", "rounds in which something was lost, doubled, wrong or left behind"),
    ("tasks", "tasks"),
    (
        "told otherwise",
        "tasks whose client was told an outcome before it was recorded, and another one was recorded then",
    ),
    ("ran twice", "tasks that ran more than once: their engine died before the result arrived, or the controller"),
)
ROUNDS_FILE = Path(".cache/chaos.jsonl")
ROOT = Path(__file__).resolve().parents[2]


class Campaign:
    """One round: a cluster, a user's program, and faults."""

    def __init__(self, folder: Path, seed: str, tasks: int = 200, hosts: Any = None) -> None:
        self.folder, self.tasks = folder, plan.make(seed, tasks, ENGINES)
        self._chance, self._hosts = Random(f"{seed} faults"), hosts
        self._programs: list[subprocess.Popen[bytes]] = []
        self._sockets: set[Path | None] = set()
        (folder / "plan.json").write_bytes(msgspec.json.encode(self.tasks))
        (folder / "ledger").touch()
        options: dict[str, Any] = {}
        if hosts is not None:
            options = {
                "engines": "ssh",
                "hosts": dict.fromkeys(hosts.addresses, ENGINES // 2),
                "controller_ip": hosts.here,
                "controller_args": ["--IPController.allowed_silence=2", "--IPController.ping_interval=0.5"],
                "ssh_args": ["-F", str(hosts.config)],
            }
        else:
            options = {"n": ENGINES}
        self.cluster = er.Cluster(profile_dir=folder / "profile", **options)
        self.injector = Injector(self._chance, lambda: processes_of(folder), self._program, hosts)

    def run(self) -> collections.Counter[str]:
        """Work and kill until all has ended; check; returns what is counted."""
        descriptors = _descriptors()
        try:
            self.cluster.start_cluster_sync()
            self._work()
            found = self._found()
        finally:
            for program in self._programs:
                program.kill()
                program.wait()
            self.cluster.stop_cluster_sync()
        counted = verify.check(found)
        verify.check_database(self.folder / "profile" / "tasks.db")
        self._check_nothing_left()
        assert _descriptors() <= descriptors, f"descriptors are left: {_descriptors()}, before: {descriptors}"
        return counted + self.injector.counts

    def _work(self) -> None:
        deadline = time.monotonic() + ROUND_SECONDS
        self._start_program()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if (code := self._programs[-1].wait(self._chance.uniform(0.1, 0.5))) == 0:
                    return
                assert self._programs[-1].pid in self.injector.killed, f"the program failed: {self._said(code)}"
                self._start_program()
                continue
            assert time.monotonic() < deadline, f"not all tasks ended in {ROUND_SECONDS:g} s: {self._said(None)}"
            with contextlib.suppress(er.EngineroomError):
                self._sockets.add(self.cluster.connection.socket)
            self.injector.inject()

    def _start_program(self) -> None:
        with (self.folder / "program.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.chaos.user", str(self.folder)]
            self._programs.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log))

    def _program(self) -> psutil.Process:
        return psutil.Process(self._programs[-1].pid)

    def _said(self, code: int | None) -> str:
        return f"exit code {code}; {(self.folder / 'program.log').read_text()[-3000:]}"

    def _found(self) -> verify.Round:
        """Everything that is known, while the cluster still runs."""
        with self.cluster.connect_client_sync() as client:
            # A client that was killed may have left tasks that the next one did not find yet, and submitted again.
            assert _wait(lambda: client.db_count({"completed": None}) == 0), "tasks of a killed client have not ended"
            records = {str(record["msg_id"]): dict(record) for record in client.db_query({}, verify.KEYS)}
        ledger = verify.runs_in(self.folder / "ledger")
        living = {process.pid for process in processes_of(self.folder)}
        alive = {pid for pids in ledger.values() for pid in pids} & living
        notes = verify.notes_in(self.folder / "notes")
        return verify.Round(self.tasks, notes, ledger, records, self.injector.counts, alive)

    def _check_nothing_left(self) -> None:
        gone = _wait(lambda: not processes_of(self.folder))
        assert gone, f"processes are left: {[p.cmdline() for p in processes_of(self.folder)]}"
        sockets = [path for path in self._sockets if path is not None and path.exists()]
        assert not sockets, f"sockets are left: {sockets}"
        left = sorted(path.name for name in ("security", "pid") for path in (self.folder / "profile" / name).glob("*"))
        assert not left, f"files are left: {left}"


def processes_of(folder: Path) -> list[psutil.Process]:
    """The running processes of a cluster: all name the folder on their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        is_running = process.info["status"] != psutil.STATUS_ZOMBIE
        if is_running and process.pid != os.getpid() and any(f"{folder}/profile" in word for word in words):
            found.append(process)
    return found


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _wait(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@contextlib.contextmanager
def other_hosts() -> Iterator[Any]:
    """Two hosts in network namespaces; None where they cannot be made."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support import debian
    from support.hosts import Namespaces

    if debian.missing("ssh") or debian.missing("network namespaces"):
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            hosts = Namespaces(Path(folder))
        except AssertionError as error:
            print(f"no network namespaces here: {error}", file=sys.stderr)
            yield None
            return
        try:
            yield hosts
        finally:
            hosts.stop()


def one_round(seed: str, tasks: int, with_hosts: bool) -> collections.Counter[str]:
    """Run a round in a folder of its own, which is kept if the round fails."""
    folder = Path(tempfile.mkdtemp(prefix="engineroom-chaos-"))
    with other_hosts() if with_hosts else contextlib.nullcontext() as hosts:
        try:
            counted = Campaign(folder, seed, tasks, hosts).run()
        except BaseException as error:
            error.add_note(f"the folder of round {seed!r} is {folder}")
            raise
    counted["with other hosts"] = hosts is not None
    shutil.rmtree(folder)
    return counted


def rounds_in(file: Path) -> list[dict[str, Any]]:
    """The rounds so far."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(rounds: list[dict[str, Any]]) -> str:
    """What all rounds come to, as Markdown."""
    total: collections.Counter[str] = collections.Counter()
    for one in rounds:
        total.update(one["counted"])
    total["rounds"] = len(rounds)
    total["rounds that failed"] = sum("failed" in one for one in rounds)
    injected = sorted(name for name in total if name in FAULTS)
    ended = sorted(total.keys() - {*injected, *(name for name, _ in LINES)})
    lines = [f"| {meaning} | {total[name]:,} |" for name, meaning in LINES]
    lines += [f"| ended as {name} | {total[name]:,} |" for name in ended]
    lines += [f"| {name} | {total[name]:,} |" for name in injected]
    return "\n".join(["| | |", "|---|---|", *lines])


def main() -> int:
    """Run rounds, and print what they come to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--file", type=Path, default=ROUNDS_FILE)
    parser.add_argument("--again", nargs=2, metavar=("SEED", "ROUND"))
    parser.add_argument("--hosts", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()

    def with_hosts(number: int) -> bool:
        return options.hosts or number % HOSTS_EVERY == 0

    if options.again:
        print(one_round("-".join(options.again), options.tasks, with_hosts(int(options.again[1]))))
        return 0
    options.file.parent.mkdir(parents=True, exist_ok=True)
    failed = 0
    for _ in range(0 if options.table else options.rounds):
        number = len(rounds_in(options.file)) + 1
        line = _line(options.seed, number, options.tasks, with_hosts(number))
        failed += "failed" in line
        with options.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        injected = ", ".join(f"{name} {n}" for name, n in line["counted"].items() if name in FAULTS)
        print(f"round {number}: {line['seconds']:g} s; {line.get('failed') or injected}", flush=True)
    print(table(rounds_in(options.file)))
    return min(failed, 1)


def _line(seed: int, number: int, tasks: int, with_hosts: bool) -> dict[str, Any]:
    """Run a round; what the file keeps of it."""
    began = time.monotonic()
    line: dict[str, Any] = {"seed": seed, "round": number, "counted": {}}
    try:
        line["counted"] = one_round(f"{seed}-{number}", tasks, with_hosts)
    except Exception as error:
        traceback.print_exc()
        again = f"python -m tests.chaos.campaign --again {seed} {number}{' --hosts' * with_hosts}"
        line["failed"] = f"{again}: {error}"[:2000]
    return {**line, "seconds": round(time.monotonic() - began, 1)}


if __name__ == "__main__":
    sys.exit(main())
