"""The wheel and the source distribution hold what they should, and nothing else. `make check-dist` uses them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from check_dist import PANEL, ROOT, SERVER, content, content_of_sdist, first_example, sources

import engineroom as er

#: What a source distribution is made of.
MADE_OF = ("src/engineroom", "labextension", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE",
           "CHANGELOG.md", "constraints.txt")  # fmt: skip


def build(kind: str, tree: Path, target: Path) -> Path:
    """Build a wheel or an sdist as pip does, without the panel."""
    script = f"import setuptools.build_meta as backend; print(backend.build_{kind}({str(target)!r}))"
    environment = os.environ | {"ENGINEROOM_PANEL": "no"}
    done = subprocess.run([sys.executable, "-c", script], cwd=tree, env=environment, capture_output=True, text=True,
                          timeout=100, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_the_sdist_builds_the_same_wheel(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in MADE_OF:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(ROOT / name, tree / name)
    (tree / "tests").mkdir()
    (tree / "tests" / "test_stray.py").touch()
    files = content(build("wheel", tree, tmp_path))
    about = {name for name in files if name.startswith(f"engineroom-{er.__version__}.dist-info/")}
    assert {name.rpartition("/")[2] for name in about} >= {"METADATA", "WHEEL", "entry_points.txt", "LICENSE"}
    assert files.keys() - about == {*sources(), SERVER}
    assert sources().items() <= files.items()
    assert not any(name.startswith(PANEL) for name in files)

    sdist = build("sdist", tree, tmp_path)
    names = content_of_sdist(sdist)
    assert names >= {name for name in MADE_OF if (ROOT / name).is_file()} | {"labextension/package-lock.json"}
    assert not any(name.startswith("tests") for name in names)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "again").mkdir()
    again = build("wheel", tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "again")
    assert content(again) == files


def test_the_first_example_is_found() -> None:
    assert "assert (view.map_sync(abs, [-2, -1, 0])) == [2, 1, 0]" in first_example()
