"""The lower bounds of pyproject.toml, tried: `python -m tests.lowest`, or `make lowest`.

Installs the lowest allowed version of each direct dependency, and the newest of everything else, into a virtual
environment that is removed afterwards, and runs there the tests that use the dependencies.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: extras whose packages the product imports
OF_THE_PRODUCT = ("graph", "mongo", "frames", "parquet", "dashboard")

#: what runs the tests: the newest will do
OF_THE_TESTS = ("pytest", "pytest-timeout", "hypothesis")

TESTS = (
    *(f"tests/unit/{name}" for name in ("wire", "on_engine", "stores", "client")),
    "tests/contract",
    "tests/unit/dashboard",
    "tests/dashboard/test_server.py",
    "tests/test_exports.py",
    *(f"tests/integration/test_{name}.py" for name in (
        "cli_text", "graph", "output", "provenance", "replay_of_records", "results", "serialization", "tracebacks",
        "views",
    )),
)  # fmt: skip


def lowest() -> Iterator[str]:
    """Each direct dependency at its lower bound: "msgspec==0.19"."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in (*project["dependencies"], *(r for extra in OF_THE_PRODUCT for r in extras[extra])):
        found = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement)
        if found is None:
            raise SystemExit(f"pyproject.toml: {requirement!r} has no plain lower bound, as in name>=1.2")
        yield f"{found[1]}=={found[2]}"


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="engineroom-lowest-") as scratch:
        venv.create(scratch, with_pip=True)
        python = str(Path(scratch, "bin", "python"))
        versions = list(lowest())
        print("lowest:", *versions, flush=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, *versions, *OF_THE_TESTS], check=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        # Old packages draw warnings from new ones: those say nothing of this project.
        words = [python, "-m", "pytest", "-q", "-W", "default", *TESTS]
        return subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
