"""How a question is asked, and how the answer is kept.

A `Benchmark` puts one question to several subjects: us, and whoever we are compared with. Each answer comes
from a process of its own, so that nobody inherits another's threads, heap or warm caches. Subjects take
turns, so that a noisy minute hurts all alike; a ratio is therefore taken within each round. The median round
is the answer, and the lowest and the highest stand beside it: where they lie far apart, it is not settled.
"""

from __future__ import annotations

import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"

#: What a subject answers: figure → value.
Figures = dict[str, float]
#: Sets its system up, warms it, measures, takes it down. The argument is the benchmark's size.
Subject = Callable[[int], Figures]


class Goal(msgspec.Struct, frozen=True):
    """What a figure, or its ratio to another one, ought to be; without a bound it is only reported."""

    figure: str
    over: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"

    def is_met(self, value: float) -> bool | None:
        """None where there is no bound."""
        if self.at_least is not None:
            return value >= self.at_least
        return None if self.at_most is None else value <= self.at_most


class Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """One question, the subjects it is put to, and what we hope for."""

    name: str
    text: str  #: what is measured, and against what: the docstring of its file
    unit: str
    subjects: tuple[Subject, ...]
    goals: tuple[Goal, ...]
    size: int
    quick_size: int
    repeat: int = 3
    timeout: float = 180.0  #: seconds for one answer of one subject

    @property
    def title(self) -> str:
        return self.text.strip().splitlines()[0].rstrip(".")


class Finding(msgspec.Struct, frozen=True):
    """A goal, and what was found."""

    goal: Goal
    value: float  #: of the median round
    lowest: float
    highest: float
    met: bool | None  #: by the median round


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The answers to one benchmark, as kept in `results/`."""

    name: str
    unit: str
    size: int
    date: str
    version: str
    machine: dict[str, str]
    samples: dict[str, list[float]]  #: figure → one value per round
    findings: list[Finding]


class SubjectFailed(Exception):
    """A subject gave no answer; what it said stands above, on stderr."""


def run(benchmark: Benchmark, size: int, rounds: int, tell: Callable[[str], None]) -> Result:
    """Ask all subjects in turn, `rounds` times.

    Raises
    ------
    SubjectFailed
        One of them ended with an error, or not in time.
    """
    samples: dict[str, list[float]] = {}
    for number in range(1, rounds + 1):
        for subject in benchmark.subjects:
            for figure, value in _ask(benchmark, subject, size).items():
                samples.setdefault(figure, []).append(value)
                tell(f"  {number}/{rounds}  {figure:<44}{human(value):>12} {benchmark.unit}")
    return Result(
        name=benchmark.name,
        unit=benchmark.unit,
        size=size,
        date=datetime.now(UTC).date().isoformat(),
        version=version("engineroom"),
        machine=_machine(),
        samples=samples,
        findings=list(_findings(benchmark.goals, samples)),
    )


def _findings(goals: tuple[Goal, ...], samples: dict[str, list[float]]) -> Iterator[Finding]:
    for goal in goals:
        values = samples[goal.figure]
        if goal.over is not None:
            values = [ours / theirs for ours, theirs in zip(values, samples[goal.over], strict=True)]
        value = statistics.median(values)
        yield Finding(goal, value, min(values), max(values), goal.is_met(value))


def _ask(benchmark: Benchmark, subject: Subject, size: int) -> Figures:
    """One subject's answer, from a fresh process."""
    command = [sys.executable, "-m", "benchmarks.measure", benchmark.name, subject.__name__, str(size)]
    # Workers of every kind must be able to import this package.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "IPP_NONINTERACTIVE": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=benchmark.timeout)
    except subprocess.TimeoutExpired:
        raise SubjectFailed(f"{subject.__name__}: no answer in {benchmark.timeout:g} s") from None
    finally:
        if process.poll() is None:  # with all that it started
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        raise SubjectFailed(f"{subject.__name__}: exit code {process.returncode}")
    return msgspec.json.decode(output.splitlines()[-1], type=Figures)


def _machine() -> dict[str, str]:
    return {
        "commit": _commit(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": str(os.cpu_count()),
        "python": platform.python_version(),
        **{name: version(name) for name in ("msgspec", "joblib", "loky", "numpy") if find_spec(name)},
    }


def _commit() -> str:
    """The commit measured, marked where files differ from it; "" outside a checkout."""
    command = ["git", "describe", "--always", "--dirty=+changes"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def save(result: Result) -> Path:
    """Keep a result in `results/`, in place of the last one."""
    path = RESULTS / f"{result.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    return path


def load(name: str) -> Result | None:
    """The kept result of a benchmark, if there is one."""
    path = RESULTS / f"{name}.json"
    return msgspec.json.decode(path.read_bytes(), type=Result) if path.exists() else None


def human(value: float) -> str:
    """A number as read by people: three digits, thousands set apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
