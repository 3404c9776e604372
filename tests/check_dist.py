"""What `make dist` has built, tried as a user would: `python -m tests.check_dist`, or `make check-dist`.

A virtual environment that has only pip gets the wheel of `dist/`: the commands run, and so does the README's first
example. Uninstalled, it leaves nothing. Another environment gets the extra `lab`: JupyterLab names the panel, and the
Jupyter server its half of it. The environments are removed afterwards. `tests/test_dist.py` looks into the wheel.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PANEL = "share/jupyter/labextensions/engineroom"
SERVER = "etc/jupyter/jupyter_server_config.d/engineroom.json"


def content(wheel: Path) -> dict[str, bytes]:
    """The files that a wheel installs, below the environment's prefix or `site-packages`, without its own list."""
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    names = {name: re.sub(r"^engineroom-[^/]+\.data/data/", "", name) for name in found}
    return {names[name]: data for name, data in found.items() if not name.endswith(".dist-info/RECORD")}


def content_of_sdist(sdist: Path) -> set[str]:
    """The names of the files of a source distribution."""
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def sources() -> dict[str, bytes]:
    """The files of the package."""
    files = [path for path in (ROOT / "src" / "engineroom").rglob("*") if path.is_file()]
    return {path.relative_to(ROOT / "src").as_posix(): path.read_bytes() for path in files if path.suffix != ".pyc"}


def first_example() -> str:
    """The README's first example, with its comments as assertions."""
    [code, *_] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return re.sub(r"^(\S.*?) *# .*?→ (.+)$", r"assert (\1) == \2", code, flags=re.MULTILINE)


class Bare:
    """A virtual environment that has only pip, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.prefix, self.home = folder / "env", folder / "home"
        self.home.mkdir()
        venv.create(self.prefix, with_pip=True)

    def run(self, *command: str | Path) -> str:
        """Run a command of the environment; what it prints on both streams. The check ends if it fails."""
        kept = {name: os.environ[name] for name in os.environ if name.startswith("PIP_") or "proxy" in name.lower()}
        environment = kept | {"HOME": str(self.home), "PATH": f"{self.prefix / 'bin'}:{os.defpath}"}
        done = subprocess.run(
            [self.prefix / "bin" / command[0], *command[1:]], env=environment, cwd=self.home, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=600,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{done.stdout}\n`{' '.join(map(str, command))}` failed with {done.returncode}")
        return done.stdout

    def install(self, requirement: str) -> None:
        """Install a requirement and what it needs, in the versions of `constraints.txt`."""
        self.run(
            "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", requirement
        )

    def left(self) -> list[str]:
        """The files that have Engineroom's name."""
        return sorted(str(path) for path in self.prefix.rglob("*engineroom*"))


def check_bare(wheel: Path, version: str, folder: Path) -> None:
    """The wheel without extras: commands, the first example, uninstalled."""
    bare = Bare(folder)
    bare.install(str(wheel))
    for command in ("engineroom", "ipcluster", "ipcontroller", "ipengine"):
        assert version in bare.run(command, "--version"), command
    bare.run("python", "-c", first_example())
    bare.run("ipcluster", "start", "-n", "1", "--daemonize")
    assert "default" in bare.run("ipcluster", "list")
    bare.run("ipcluster", "stop")
    assert bare.run("engineroom", "tasks", "--state=failed").count("NameError") == 3, "the example's records"
    bare.run("pip", "uninstall", "--quiet", "--yes", "engineroom")
    assert bare.left() == []


def check_lab(wheel: Path, version: str, folder: Path) -> None:
    """With the extra `lab`: JupyterLab has the panel, and the Jupyter server its half."""
    bare = Bare(folder)
    bare.install(f"engineroom[lab] @ {wheel.as_uri()}")
    lab = bare.run("jupyter", "labextension", "list")
    assert re.search(rf"engineroom v{re.escape(version)} .*enabled.*OK", lab), lab
    server = bare.run("jupyter", "server", "extension", "list")
    assert re.search(r"engineroom\.lab .*enabled", server), server
    assert re.search(r"engineroom\.lab .*OK", server), server
    bare.run("pip", "uninstall", "--quiet", "--yes", "engineroom")
    assert bare.left() == []


def main() -> int:
    version = re.search(r'__version__ = "(.+)"', (ROOT / "src" / "engineroom" / "_version.py").read_text())[1]  # type: ignore[index]
    [wheel] = (ROOT / "dist").glob(f"engineroom-{version}-*.whl")
    files = content(wheel)
    assert sources().items() <= files.items(), "the wheel is not of these sources: make dist"
    assert f"{PANEL}/package.json" in files, "the wheel has no panel"
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {len(files)} files")
    for check in (check_bare, check_lab):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            check(wheel, version, Path(folder))
        print(f"{check.__doc__} OK after {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
