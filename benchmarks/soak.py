"""Does a cluster stay as it is, however long it is used? Nothing may grow: memory, descriptors, threads, files.

    python -m benchmarks.soak --minutes=60

One user does all that users do, again and again (`Use`): maps, lone trips, large data, errors, prints, dependencies,
cancelled tasks, resubmissions, queries, another client that comes and goes. A viewer looks at every page of the
dashboard. Every half minute an engine is killed. The records have a limit, so that the database can be steady.
Every two minutes nobody does anything, until shared buffers that are kept for a while have been given back: how many
of these there are while the cluster is in use is a matter of chance. Descriptors and shared memory are counted then.

Once a minute it prints the memory of each process. At the end there is a line for each process and each kind of file:
how much it was after a fifth of the time, in the middle, and at the end. Exit code 1: in the second half something
grew by more than `LIMITS` allows.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import engineroom as er
from engineroom.config import dashboard_file
from engineroom.shared_memory.pool import KEPT_SECONDS

from .viewer import FarViewer, looking_at

#: How much each quantity may grow in the second half: as a part of what it was, or this much at least.
LIMITS: Mapping[str, tuple[float, float]] = {
    "memory": (0.05, 0.5), "descriptors": (0, 2), "threads": (0, 1), "size": (0.05, 0.5), "number": (0, 2),
}  # fmt: skip
MIB = 1 << 20
ENGINES = 3
#: The engine that is killed, and every how many rounds.
VICTIM, KILL_EVERY = 2, 30
#: What the database may keep: these limits are reached within the first minutes.
RETENTION = {"count": 20_000, "payload_bytes": "64MiB"}
#: A round takes so long at least; after each of so many, a sample is taken.
ROUND_SECONDS, LOOK_EVERY = 1.0, 5
#: After each of so many rounds, a rest of so long.
REST_EVERY, REST_SECONDS = 120, KEPT_SECONDS + 5.0
#: Functions in each round that nobody has had before.
NEW_FUNCTIONS = 12
#: The floats of an array that goes to an engine, and comes back: 2 MB.
FLOATS = 250_000


def square(x: int) -> int:
    if x % 20 == 7:
        raise ValueError(f"item {x}")
    return x * x


def talk(lines: int) -> None:
    for line in range(lines):
        print(f"line {line} of {lines}, of no use to anybody")


def until_cancelled() -> None:
    while True:
        time.sleep(0.01)


class Use:
    """What users do. Every round does all of it once, and checks what it gets."""

    def __init__(self, rc: er.Client, profile: Path, viewer: FarViewer) -> None:
        self._rc, self._profile, self._viewer = rc, profile, viewer
        self._balanced, self._direct = rc.load_balanced_view(), rc[[0, 1]]
        self.rounds = 0

    def round(self) -> None:
        """Everything once."""
        self._short_tasks()
        self._failing_tasks()
        self._large_data()
        self._graph()
        self._new_functions()
        self._cancel()
        self._ask()
        self._another_client()
        self._viewer.look(self._rc.history[-1])
        self.rounds += 1
        if self.rounds % KILL_EVERY == 0:
            self._kill_engine()

    def _short_tasks(self) -> None:
        assert sum(self._balanced.map(abs, range(500), chunksize=1)) == 124_750
        for x in range(5):
            assert self._balanced.apply_sync(abs, -x) == self._rc[0].apply_sync(abs, -x) == x
        self._balanced.apply(talk, 50).get()

    def _failing_tasks(self) -> None:
        with self._balanced.temp_flags(label=f"sweep-{self.rounds % 50}"):
            sweep = self._balanced.map_async(square, range(40), chunksize=1)
        values = sweep.get(return_exceptions=True)
        assert [isinstance(value, er.RemoteError) for value in values].count(True) == 2
        assert isinstance(self._rc.resubmit(sweep.msg_ids[7]).get(return_exceptions=True), er.RemoteError)

    def _large_data(self) -> None:
        data = np.full(FLOATS, float(self.rounds))
        self._direct.push({"data": data}, block=True)
        assert [part.sum() for part in self._direct.pull("data", block=True)] == [data.sum()] * 2
        self._direct.scatter("part", data, block=True)
        assert self._direct.gather("part", block=True).sum() == data.sum()
        assert self._balanced.apply_sync(lambda x: x + 1, data).sum() == data.sum() + FLOATS

    def _graph(self) -> None:
        first = self._balanced.apply_async(abs, -1)
        with self._balanced.temp_flags(after=first):
            assert [self._balanced.apply_async(abs, -2).get(), first.get()] == [2, 1]

    def _new_functions(self) -> None:
        """So many that those who remember functions have soon forgotten the first."""
        first = self.rounds * NEW_FUNCTIONS
        made = [lambda x, n=n: x + n for n in range(first, first + NEW_FUNCTIONS)]
        tasks = [self._balanced.apply_async(function, 1) for function in made]
        assert [task.get() for task in tasks] == list(range(first + 1, first + 1 + NEW_FUNCTIONS))

    def _cancel(self) -> None:
        endless = [self._balanced.apply_async(until_cancelled) for _ in range(ENGINES + 2)]
        self._rc.cancel(endless)
        for task in endless:
            assert isinstance(task.exception(), er.TaskAborted)

    def _ask(self) -> None:
        assert self._rc.db_count({"state": "failed"}) > 0
        assert len(self._rc.db_query({"state": "completed"}, keys=["msg_id", "completed"], limit=200)) == 200
        self._rc.queue_status(verbose=True)
        self._rc.purge_results(self._rc.history[-3:])

    def _another_client(self) -> None:
        """It has a function of its own, and asks for the result of a task of ours."""
        rounds, task = self.rounds, self._balanced.apply_async(abs, -self.rounds)
        with er.Client(profile_dir=str(self._profile)) as other:
            assert other.load_balanced_view().apply_sync(lambda: rounds) == rounds
            assert other.get_result(task.msg_ids).get() == [rounds]

    def _kill_engine(self) -> None:
        self._rc.wait_for_engines(ENGINES, timeout=60)  # the one before may not be back yet
        os.kill(self._rc.queue_status()[VICTIM]["pid"], signal.SIGKILL)


class Soak:
    """The samples of all that may not grow: by whose it is, and which quantity.

    The memory of a process is what it has alone; that of shared buffers is counted once, whoever maps them. (What
    processes share besides is libraries: how much of these is whose depends on what else runs on the host.)
    """

    def __init__(self, rc: er.Client, profile: Path) -> None:
        self._folder = profile
        nanny = psutil.Process(rc.cluster.engine_set.pid)
        [zygote] = nanny.children()
        status = rc.queue_status()
        dashboard = json.loads(dashboard_file(profile, rc.cluster.cluster_id).read_text())
        self._processes = {
            "controller": psutil.Process(rc.connection.pid),
            "dashboard": psutil.Process(dashboard["pid"]),
            "nanny": nanny,
            "zygote": zygote,
            "engine 0": psutil.Process(status[0]["pid"]),
            "engine 1": psutil.Process(status[1]["pid"]),
            "the user's program": psutil.Process(),
        }
        self.samples: dict[tuple[str, str], array[float]] = defaultdict(lambda: array("d"))

    def look(self) -> None:
        """Take a sample of what is counted in use."""
        for name, process in self._processes.items():
            self.samples[name, "memory"].append(_memory(process)["Pss_Anon"])
            self.samples[name, "threads"].append(process.num_threads())
        sizes: dict[str, list[int]] = {"database": [], "large buffers": [], "logs": [], "other files": []}
        for path in self._folder.rglob("*"):
            sizes[_kind(path.relative_to(self._folder))].append(_size(path))
        for name, found in sizes.items():
            self.samples[name, "size"].append(sum(found) / MIB)
            if name != "large buffers":  # they come and go
                self.samples[name, "number"].append(len(found))

    def look_at_rest(self) -> None:
        """Take a sample of what is counted at rest."""
        for name, process in self._processes.items():
            self.samples[name, "descriptors"].append(process.num_fds())
        everybody = (psutil.Process(), *psutil.Process().children(recursive=True))
        self.samples["shared buffers", "memory"].append(sum(_memory(each)["Pss_Shmem"] for each in everybody))

    def memory(self) -> str:
        """That of each process, as it is now, in MiB."""
        return ", ".join(f"{name} {self.samples[name, 'memory'][-1]:.1f}" for name in self._processes)


def _memory(process: psutil.Process) -> dict[str, float]:
    """The memory of a process by kind, in MiB: its own, and its share of what it has with others."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):  # it has just been killed
        lines = []
    return defaultdict(float, {name.rstrip(":"): int(size) / 1024 for name, size, _ in map(str.split, lines)})


def _kind(path: Path) -> str:
    if "payloads" in path.parts[0]:
        return "large buffers"
    return {"log": "logs"}.get(path.parts[0], "database" if path.name.startswith("tasks.db") else "other files")


def _size(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def around(values: Sequence[float], part: float) -> float:
    """The median of the tenth of the values before a part of the time."""
    end = max(1, round(part * len(values)))
    return statistics.median(values[max(0, end - max(1, len(values) // 10)) : end])


def has_grown(quantity: str, middle: float, last: float) -> bool:
    """Whether this is more than `LIMITS` allows."""
    part, least = LIMITS[quantity]
    return last - middle > max(part * middle, least)


def verdict(samples: Mapping[tuple[str, str], Sequence[float]], say: Callable[[str], Any] = print) -> int:
    """Say how everything grew; returns the exit code."""
    say(f"{'':19} {'':12} {'at a fifth':>10} {'middle':>10} {'end':>10}")
    grown = 0
    for (name, quantity), values in samples.items():
        first, middle, last = (around(values, part) for part in (0.2, 0.5, 1.0))
        is_bad = has_grown(quantity, middle, last)
        grown += is_bad
        unit = {"memory": "MiB", "size": "MiB"}.get(quantity, "")
        change = f"{(last - middle) / middle:+.1%}" if middle else ""
        numbers = " ".join(f"{number:10.2f}" if unit else f"{number:10.0f}" for number in (first, middle, last))
        say(f"{name:19} {quantity:12} {numbers} {unit:4} {change:>7} {'GREW' if is_bad else 'ok'}")
    say(f"{grown} of {len(samples)} grew in the second half")
    return int(grown > 0)


def soak(minutes: float, rounds: int = 0, say: Callable[[str], Any] = print) -> Soak:
    """Use a cluster for so many minutes, and so many rounds at least."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        profile = Path(folder) / "profile_default"
        with er.Cluster(n=ENGINES, profile_dir=profile, dashboard=True, retention=RETENTION) as rc:
            assert rc.dashboard_url is not None
            with looking_at(rc.dashboard_url) as viewer:
                use = Use(rc, profile, viewer)
                seen = Soak(rc, profile)
                begin, told = time.monotonic(), 0
                while (passed := time.monotonic() - begin) < 60 * minutes or use.rounds < rounds:
                    begun = time.monotonic()
                    use.round()
                    if use.rounds % LOOK_EVERY == 0 or use.rounds == 1:
                        seen.look()
                    if passed >= 60 * told:
                        say(f"{told:4} min, {use.rounds} rounds, {len(rc.history):,} tasks, {viewer.asked:,} answers; "
                            f"MiB: {seen.memory()}")  # fmt: skip
                        told += 1
                    time.sleep(max(0.0, begun + ROUND_SECONDS - time.monotonic()))
                    if use.rounds % REST_EVERY == 0:
                        time.sleep(REST_SECONDS)
                        seen.look_at_rest()
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    sys.exit(verdict(soak(parser.parse_args().minutes).samples))
