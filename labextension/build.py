"""Builds the panel for JupyterLab with npm: for wheels (setup.py), for the tests, and by hand (`make panel`).

It needs Node 20.19 or newer, npm, and npm's registry. The result is a folder of JavaScript that JupyterLab loads from
`share/jupyter/labextensions/engineroom`. Nothing is written into the sources.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = ("package.json", "package-lock.json", "tsconfig.json", "src", "style")
#: Seconds for each of npm's commands.
PATIENCE = 300
#: Where JupyterLab looks, below the prefix of a Python environment.
PLACE = Path("share/jupyter/labextensions/engineroom")


class CannotBuild(Exception):
    """The panel cannot be built; the text says why, and what is missing."""


def version() -> str:
    """The version of Engineroom, which is the panel's. `package.json` says 0.0.0."""
    text = (HERE.parent / "src" / "engineroom" / "_version.py").read_text()
    return re.search(r'__version__ = "(.+)"', text)[1]  # type: ignore[index]


def stamp() -> str:
    """Names this version of the sources."""
    found = hashlib.sha256(version().encode())
    for path in sorted(path for name in SOURCES for path in [HERE / name, *(HERE / name).rglob("*")] if path.is_file()):
        found.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def build(target: Path) -> None:
    """Build the panel into a folder, which is replaced.

    Raises
    ------
    CannotBuild
        Node or npm are missing, npm's registry cannot be reached, or the sources are wrong.
    """
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise CannotBuild("Node and npm are not installed")
    with tempfile.TemporaryDirectory(prefix="engineroom-panel-") as name:
        work = Path(name)
        for source in SOURCES:
            copy = shutil.copytree if (HERE / source).is_dir() else shutil.copy
            copy(HERE / source, work / source)
        # The scripts of packages are not run: none of these needs them.
        _run(work, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
        about = work / "package.json"
        about.write_text(about.read_text().replace('"version": "0.0.0"', f'"version": "{version()}"', 1))
        _run(work, npm, "run", "build")
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(work / "out", target)


def _run(folder: Path, *command: str) -> None:
    what = " ".join(["npm", *command[1:3]])
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise CannotBuild(f"`{what}` took more than {PATIENCE} s") from None
    if done.returncode != 0:
        raise CannotBuild(f"`{what}` failed:\n{(done.stdout + done.stderr).strip()[-3000:]}")


def main() -> int:
    target = Path(sys.prefix) / PLACE
    try:
        build(target)
    except CannotBuild as why:
        print(f"The panel was not built: {why}", file=sys.stderr)
        return 1
    print(f"JupyterLab shows the panel, once its page is loaded again: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
