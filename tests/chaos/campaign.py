"""The kill campaign: real processes, killed at random while they work; nothing accepted may be lost.

    python -m tests.chaos.campaign --rounds 20 --seed 1

A round submits tasks that write to a ledger file, and kills an engine, a nanny or the controller every fraction
of a second until all have ended. Then: every task has exactly one outcome, every value is right, every task is in
the ledger (more than once only if it has more than one attempt, or an engine died with its result), and at the
end no process and no socket is left. The table it prints says what was killed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from concurrent.futures import wait
from pathlib import Path

import engineroom as er

#: A round that takes longer has failed.
ROUND_SECONDS = 120.0


def work(number: int, seconds: float, ledger: str) -> int:
    """Take a moment, leave a trace, return something that can be checked."""
    import os
    import time

    time.sleep(seconds)
    with open(ledger, "ab", buffering=0) as file:
        file.write(b"%d %d\n" % (number, os.getpid()))
    return number * number


class Campaign:
    """Rounds of work and killing on one cluster."""

    def __init__(self, folder: Path, seed: int, engines: int = 4) -> None:
        self.chance = random.Random(seed)
        self.ledger = folder / "ledger"
        self.cluster = er.Cluster(n=engines, profile_dir=str(folder / "profile"))
        self.client = self.cluster.start_and_connect_sync()
        self.killed: collections.Counter[str] = collections.Counter()
        self.submitted = 0

    def close(self) -> None:
        """Stop the cluster."""
        self.cluster.stop_cluster_sync()

    def round(self, tasks: int) -> None:
        """Submit, kill until all have ended, check."""
        view = self.client.load_balanced_view(retries=1000)
        first = self.submitted
        self.submitted += tasks
        numbers = range(first, self.submitted)
        results = [view.apply_async(work, n, self.chance.uniform(0.001, 0.05), str(self.ledger)) for n in numbers]
        deadline = time.monotonic() + ROUND_SECONDS
        while not all(result.done() for result in results):
            assert time.monotonic() < deadline, f"{sum(not r.done() for r in results)} tasks never ended"
            if wait(results, self.chance.uniform(0.2, 1.0)).not_done:
                self._kill()
        for number, result in zip(numbers, results, strict=True):
            assert result.get() == number * number
        self._check_records(first)

    def _check_records(self, first: int) -> None:
        runs = collections.Counter(int(line.split()[0]) for line in self.ledger.read_bytes().splitlines())
        missing = [n for n in range(first, self.submitted) if runs[n] == 0]
        assert not missing, f"{len(missing)} tasks have a result and never ran: {missing[:5]}"
        states = collections.Counter(r["state"] for r in self.client.db_query({}, "state"))
        assert states == {"completed": self.submitted}, f"records: {dict(states)} of {self.submitted}"

    def _kill(self) -> None:
        """Kill -9 somebody, or nobody."""
        what = self.chance.choices(["nobody", "engine", "controller"], [2, 6, 1])[0]
        with contextlib.suppress(ProcessLookupError, IndexError, er.ConnectionFileError):
            if what == "engine":
                os.kill(self.chance.choice(self.client._channel.engines).pid, signal.SIGKILL)
            elif what == "controller":
                os.kill(self.cluster.connection.pid, signal.SIGKILL)
            self.killed[what] += 1

    def doubled(self) -> int:
        """How many tasks ran more than once."""
        runs = collections.Counter(int(line.split()[0]) for line in self.ledger.read_bytes().splitlines())
        return sum(count > 1 for count in runs.values())


def main() -> int:
    """Run a campaign and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    print(
        f"{'round':>5} {'tasks':>7} {'engines killed':>15} {'controllers killed':>19} {'ran twice':>10} {'seconds':>8}"
    )
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), options.seed)
        try:
            for number in range(options.rounds):
                began = time.monotonic()
                campaign.round(options.tasks)
                print(
                    f"{number + 1:5} {campaign.submitted:7} {campaign.killed['engine']:15} "
                    f"{campaign.killed['controller']:19} {campaign.doubled():10} {time.monotonic() - began:8.1f}",
                    flush=True,
                )
        finally:
            campaign.close()
    print(f"lost: 0 of {campaign.submitted}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
