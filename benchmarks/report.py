"""Write `docs/performance.md` from the results in `benchmarks/results/`: `python -m benchmarks.report`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator

from .harness import ROOT, Benchmark, Result, human, load
from .suite import BENCHMARKS

PAGE = ROOT / "docs" / "performance.md"

HEAD = """\
# Performance

<!-- Written by `python -m benchmarks.report` from `benchmarks/results/`; do not edit. -->

Every figure stands beside a reference measured in the same run: subjects take turns, each in a fresh process,
and a ratio is taken within each round. Machines are noisy and differ: read the ratios and how far they
scatter, and measure your own:

    make bench                                  # all of it, some minutes
    python -m benchmarks --only noop --quick    # a look at one
"""


def page(results: Iterable[tuple[Benchmark, Result]]) -> str:
    """The whole page as Markdown."""
    return "\n".join([HEAD, *("\n".join(section(benchmark, result)) for benchmark, result in results)])


def section(benchmark: Benchmark, result: Result) -> Iterator[str]:
    """One benchmark: what was asked, the figures, the verdicts."""
    _, _, rest = benchmark.text.strip().partition("\n")
    yield f"## {benchmark.title}\n\n{rest.strip()}\n"
    yield from table(
        ["", benchmark.unit, "lowest – highest"],
        [
            [figure, human(statistics.median(values)), f"{human(min(values))} – {human(max(values))}"]
            for figure, values in result.samples.items()
        ],
    )
    verdicts = []
    for finding in result.findings:
        goal = finding.goal
        what = f"{goal.figure} / {goal.over}" if goal.over else goal.figure
        value = f"{human(finding.value)}{'×' if goal.over else ' ' + benchmark.unit}"
        spread = f"{human(finding.lowest)} – {human(finding.highest)}"
        verdicts.append([what, value, spread, str(goal), {True: "yes", False: "no", None: ""}[finding.met]])
    yield from table(["", "median round", "lowest – highest", "goal", "met"], verdicts)
    machine = result.machine
    rounds = max(len(values) for values in result.samples.values())
    libraries = "".join(f", {name} {machine[name]}" for name in ("loky", "joblib") if name in machine)
    yield (
        f"<small>{result.date}, engineroom {result.version} ({machine['commit']}), size {result.size:,}, "
        f"{rounds} rounds; {machine['system']}, {machine['processors']} processors, Python {machine['python']}"
        f"{libraries}</small>\n"
    )


def table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """A Markdown table: the first column to the left, the others to the right."""
    yield "| " + " | ".join(head) + " |"
    yield "|---" + "|--:" * (len(head) - 1) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def main() -> None:
    found = [(benchmark, result) for name, benchmark in BENCHMARKS.items() if (result := load(name))]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(found), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(found)} of {len(BENCHMARKS)} benchmarks have results")


if __name__ == "__main__":
    main()
