"""`python -m benchmarks [--only NAME] [--repeat N] [--quick] [--save] [--json FILE]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from .harness import Result, SubjectFailed, human, run, save
from .suite import BENCHMARKS


def main() -> int:
    options = _parser().parse_args()
    results: list[Result] = []
    failed: list[str] = []
    for name in options.only or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        print(f"\n{name}: {benchmark.title}", flush=True)
        size = benchmark.quick_size if options.quick else benchmark.size
        rounds = options.repeat or (1 if options.quick else benchmark.repeat)
        try:
            result = run(benchmark, size, rounds, tell=lambda line: print(line, flush=True))
        except SubjectFailed as error:
            print(f"  failed: {error}")
            failed.append(name)
            continue
        for line in verdicts(result):
            print(line)
        results.append(result)
        if options.save:
            save(result)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    if failed:
        print(f"\nno result: {', '.join(failed)}")
    return 1 if failed else 0


def verdicts(result: Result) -> list[str]:
    """One line per finding: what was found, and whether that was the goal."""
    lines = []
    for finding in result.findings:
        goal = finding.goal
        what, unit = (f"{goal.figure} / {goal.over}", "×") if goal.over else (goal.figure, f" {result.unit}")
        said = {True: f"goal {goal} ✓", False: f"goal {goal} ✗", None: ""}[finding.met]
        lines.append(
            f"  = {what:<58} {human(finding.value) + unit:>14}  "
            f"({human(finding.lowest)} – {human(finding.highest)})  {said}"
        )
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ours beside the others'.")
    parser.add_argument(
        "--only",
        action="append",
        choices=list(BENCHMARKS),
        metavar="NAME",
        help=f"run this one (may be repeated): {', '.join(BENCHMARKS)}",
    )
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds, instead of each benchmark's own number")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: does it run?")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results of this run to FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
