"""The suite again and again on a busy machine: `make steady ROUNDS=20` finds the tests that do not always pass.

A round is the whole suite, with twice as many workers as there are cores, so that each waits for others. What it
brought stays in a file of its own: a campaign goes on where it was stopped, and takes in a round that was run elsewhere
(`pytest --junitxml=FOLDER/NAME.xml`). At the end a table says how often the tests have run, and which have failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent


class Table(msgspec.Struct):
    """What the rounds have brought so far."""

    rounds: int = 0
    #: of each test
    runs: Counter[str] = msgspec.field(default_factory=Counter)
    #: of each test, the rounds in which it failed
    failures: dict[str, list[str]] = {}
    #: the tests of the latest round
    latest: set[str] = set()

    def add(self, name: str, report: str) -> None:
        """Take in one round: what pytest wrote as JUnit's XML."""
        self.rounds += 1
        self.latest = set()
        for case in ElementTree.fromstring(report).iter("testcase"):
            test = f"{case.get('classname')}::{case.get('name')}"
            if case.find("skipped") is not None:
                continue
            self.latest.add(test)
            self.runs[test] += 1
            if case.find("failure") is not None or case.find("error") is not None:
                self.failures.setdefault(test, []).append(name)

    def __str__(self) -> str:
        """In Markdown: how often the tests have run, the rarest first; then those that have failed."""
        often = Counter(self.runs[test] for test in self.latest)
        runs = sum(self.runs.values())
        lines = [f"{self.rounds} rounds, {runs:,} runs of tests.", "", "| ran | tests |", "|---|---|"]
        lines += [f"| {times} times | {count:,} |" for times, count in sorted(often.items())]
        if self.failures:
            lines += ["", "| failed | of | in the rounds |", "|---|---|---|"]
            lines += [f"| `{t}` | {self.runs[t]} | {', '.join(names)} |" for t, names in sorted(self.failures.items())]
        return "\n".join(lines)


def table_of(folder: Path) -> Table:
    """The table of all rounds in a folder, the oldest first."""
    table = Table()
    for file in sorted(folder.glob("*.xml"), key=lambda file: file.stat().st_mtime):
        table.add(file.stem, file.read_text())
    return table


def run_round(number: int, folder: Path, tests: list[str]) -> None:
    """Run the suite once.

    Raises
    ------
    SystemExit
        The round was cut off: it counts for nothing.
    """
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    report = folder / f"{number:03}-{commit.strip() or 'unknown'}.xml"
    workers = f"--numprocesses={2 * (os.cpu_count() or 1)}"
    options = [workers, "--dist=loadfile", "--no-loadscope-reorder", "--quiet", f"--junitxml={report}"]
    ended = subprocess.run([sys.executable, "-m", "pytest", *options, *tests], cwd=ROOT, check=False).returncode
    if ended not in (0, 1) or not report.exists():  # 1: tests have failed
        report.unlink(missing_ok=True)
        raise SystemExit(f"pytest has ended with {ended}, and the round counts for nothing")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="how many there are to be in all (default: 20)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache" / "steady", help="where the rounds are kept")
    parser.add_argument("tests", nargs="*", help="files or folders of tests; default: all")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    while (done := table_of(given.folder).rounds) < given.rounds:
        run_round(done + 1, given.folder, given.tests)
    table = table_of(given.folder)
    print(table)
    return int(bool(table.failures))


if __name__ == "__main__":
    sys.exit(main())
