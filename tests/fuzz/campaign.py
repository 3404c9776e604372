"""Coverage-guided fuzzing of every parser of what others wrote, with atheris (`pip install 'engineroom[fuzz]'`).

    python -m tests.fuzz.campaign --cases 1000000 --minutes 5      # each target: so many cases, or so long
    python -m tests.fuzz.campaign --target queries                 # one target
    python -m tests.fuzz.campaign --target queries --replay FILE   # one case again; needs no atheris
    python -m tests.fuzz.campaign --table                          # all runs so far

Each target runs in a process of its own: a crash ends that one only. Cases that reached code which no case before had
reached are kept in a folder, and the next run goes on from them. A finding ends the run of its target: its case is in a
file, and the command that replays it is printed. Without `--target`, the others still run.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from . import catalogue
from .target import FOLDER_VARIABLE, limits, memory_folder, run_case

#: Seconds after which a case is a finding also when it does not run Python: in SQLite, in a regular expression.
HANG_SECONDS = 60
#: Megabytes that the process of a target may have.
MEMORY_MB = 2048
FOLDER = Path(".cache/fuzz")
ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000, help="of each target, at most")
    parser.add_argument("--minutes", type=float, default=0.0, help="for each target, at most; 0: no limit")
    parser.add_argument("--target", choices=catalogue.TARGETS, help="only this one")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where cases and findings are kept")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run the case in a file")
    parser.add_argument("--table", action="store_true", help="print what all runs so far have found")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.replay:
        return replay(given.target, given.replay)
    if given.child:
        fuzz(given.target, given.folder, given.cases, given.minutes)
        return 0
    if not given.table:
        import importlib.util

        if importlib.util.find_spec("atheris") is None:
            print("there is no atheris here: pip install 'engineroom[fuzz]'", file=sys.stderr)
            return 1
        found = [run(name, given) for name in ([given.target] if given.target else catalogue.TARGETS)]
    print_table(given.folder / "runs.jsonl")
    return int(not given.table and any(line["finding"] for line in found))


def replay(name: str | None, path: Path) -> int:
    """Run one case; what it raises is raised here."""
    if name is None:
        print("--replay needs --target: whose case is it?", file=sys.stderr)
        return 2
    with catalogue.load(name) as target, limits():
        run_case(target, path.read_bytes())
    print(f"{name}: nothing is wrong with this case")
    return 0


def run(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Fuzz a target in a process of its own; returns the line for the table, which is kept."""
    folder = given.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "tests.fuzz.campaign", "--child", "--target", name, "--folder", str(given.folder),
        "--cases", str(given.cases), "--minutes", str(given.minutes),
    ]  # fmt: skip
    with (given.folder / f"{name}.log").open("wb") as log, tempfile.TemporaryDirectory(dir=memory_folder()) as scratch:
        environment = {**os.environ, FOLDER_VARIABLE: scratch}
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log).returncode
    said = (given.folder / f"{name}.log").read_text(errors="replace")
    line = {"target": name, "date": str(datetime.date.today()), **read_statistics(said), "finding": ""}
    if code:
        path = re.search(r"Test unit written to (\S+)", said)
        line["finding"] = path[1] if path else str(given.folder / f"{name}.log")
        print(f"\n{name}: A FINDING. Exit code {code}; the end of {given.folder / f'{name}.log'}:\n{_end_of(said)}")
        if path:
            print(f"    Replay it: python -m tests.fuzz.campaign --target {name} --replay {path[1]}\n")
    print(summary(line), flush=True)
    with (given.folder / "runs.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    return line


def fuzz(name: str, folder: Path, cases: int, minutes: float) -> None:
    """Fuzz a target in this process, which ends here."""
    import atheris

    with atheris.instrument_imports(include=["engineroom"]):
        target = catalogue.load(name)
        target.__enter__()
        seeds = target.seeds()
        for seed in seeds:  # what is imported late is watched, too
            run_case(target, seed)
    corpus = folder / name / "cases"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)

    def change(case: bytes, longest: int, seed: int) -> bytes:
        made = target.mutate(case, Random(seed))
        return made if len(made) <= longest else bytes(atheris.Mutate(case, longest))

    options = [
        f"-runs={cases}", f"-max_total_time={round(minutes * 60)}", f"-max_len={target.longest}",
        f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={folder / name}/", "-print_final_stats=1", "-len_control=0",
        "-use_value_profile=0",
    ]  # fmt: skip
    atheris.Setup([name, *options, str(corpus)], lambda case: run_case(target, case), custom_mutator=change)
    with limits():
        atheris.Fuzz()


def read_statistics(said: str) -> dict[str, Any]:
    """What libFuzzer says of a run: cases, cases a second, paths that no case before had taken."""
    cases = [int(number) for number in re.findall(r"^#(\d+)\s", said, re.MULTILINE)]
    total = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
    seconds = re.search(r"Done \d+ runs in (\d+) second", said)
    rate = re.search(r"stat::average_exec_per_sec:\s*(\d+)", said)
    new = re.search(r"stat::new_units_added:\s*(\d+)", said)
    found = int(total[1]) if total else max(cases, default=0)
    return {
        "cases": found,
        "per_second": round(found / max(1, int(seconds[1]))) if seconds else int(rate[1]) if rate else 0,
        "new": int(new[1]) if new else len(re.findall(r"\sNEW\s", said)),
    }


def summary(line: dict[str, Any]) -> str:
    """A line of text about a run."""
    end = f"  FINDING {line['finding']}" if line["finding"] else ""
    return f"{line['target']:<15}{line['cases']:>12,} cases{line['per_second']:>8,}/s{line['new']:>8,} new paths{end}"


def print_table(path: Path) -> None:
    """All runs so far, added up for each target."""
    lines = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    totals: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in catalogue.TARGETS}
    for line in lines:
        totals[line["target"]] += collections.Counter(
            cases=line["cases"], new=line["new"], findings=int(bool(line["finding"]))
        )
    print("\n| target | cases so far | new paths | runs that ended with a finding |\n|---|---|---|---|")
    for name, counted in totals.items():
        print(f"| {name} | {counted['cases']:,} | {counted['new']:,} | {counted['findings']} |")
    total = sum((counted["cases"] for counted in totals.values()), 0)
    print(f"| all | {total:,} | | |")


def _end_of(said: str) -> str:
    """The exception, without libFuzzer's bytes of the case."""
    start = said.rfind("=== Uncaught Python exception")
    return said[start:][:3000] if start >= 0 else said[-2000:]


if __name__ == "__main__":
    sys.exit(main())
