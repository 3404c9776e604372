"""Startup: from nothing to the first result.

A fresh Python process imports the package, starts two workers and has the result of one task: seconds from
the process's start, beside loky and joblib the same way. Imports alone are timed within their process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

from .harness import Benchmark, Figures, Goal

OURS = """
import sys, engineroom as er
with er.Cluster(n=2, profile_dir=sys.argv[1]) as rc:
    rc.load_balanced_view().apply_sync(abs, -1)
    print("here", flush=True)
"""
LOKY = """
from loky import get_reusable_executor
if __name__ == "__main__":
    get_reusable_executor(max_workers=2).submit(abs, -1).result()
    print("here", flush=True)
"""
JOBLIB = """
from joblib import Parallel, delayed
if __name__ == "__main__":
    Parallel(n_jobs=2)(delayed(abs)(-1) for _ in range(2))
    print("here", flush=True)
"""


def engineroom(size: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="engineroom-bench-") as folder:
        return {"engineroom": _first_result(OURS, folder), "import engineroom": _import("engineroom")}


def loky(size: int) -> Figures:
    return {"loky": _first_result(LOKY), "import loky": _import("loky")}


def joblib(size: int) -> Figures:
    return {"joblib": _first_result(JOBLIB), "import joblib": _import("joblib")}


def _first_result(code: str, *arguments: str) -> float:
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE) as process:
        line = process.stdout.readline()
        taken = time.perf_counter() - began
    if line != b"here\n" or process.returncode:
        raise RuntimeError(f"no result: exit code {process.returncode}, {line!r}")
    return taken


def _import(package: str) -> float:
    code = f"import time; began = time.perf_counter(); import {package}; print(time.perf_counter() - began)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE).stdout)


BENCHMARK = Benchmark(
    name="startup",
    text=__doc__,
    unit="s",
    size=1,
    quick_size=1,
    repeat=7,
    subjects=(engineroom, loky, joblib),
    goals=(
        Goal("engineroom", at_most=0.25),
        Goal("engineroom", "loky"),
        Goal("engineroom", "joblib"),
        Goal("import engineroom", at_most=0.08),
    ),
)
