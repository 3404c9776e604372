"""The command lines that start controllers and engines, and what such processes can import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engineroom.cluster.commands import Command, controller_command, engines_command

PLANTED = "from pathlib import Path; Path(__file__).with_name('ran').touch()\n"


def commands(folder: Path) -> list[Command]:
    return [
        controller_command(profile_dir=folder, cluster_id=""),
        engines_command(profile_dir=folder),
    ]


def test_no_module_comes_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "planted"
    planted.mkdir()
    planted.chmod(0o1777)
    for name in ("msgspec", "json", "engineroom"):
        (planted / f"{name}.py").write_text(PLANTED)
    monkeypatch.chdir(planted)
    for command in commands(tmp_path):
        run = [*command.args[: command.args.index("-m") + 2], "--version"]
        environment = {**os.environ, **command.environment}
        done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    assert not (planted / "ran").exists()


def test_engines_look_last_where_the_client_does_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, current = tmp_path / "ours", tmp_path / "theirs", tmp_path / "current"
    for folder in (ours, theirs, current):
        folder.mkdir(mode=0o755)
    theirs.chmod(0o777)
    (ours / "json.py").write_text(PLANTED)  # Python's own module wins
    monkeypatch.chdir(current)
    monkeypatch.setattr(sys, "path", [str(ours), str(theirs), *sys.path])
    with pytest.warns(UserWarning, match=r"do not import modules from .*theirs: others may write to"):
        command = commands(tmp_path)[1]
    script = (
        "from engineroom.import_path import extend_import_path; extend_import_path()\n"
        "import sys, os, json; print(sys.path[-1], 'ENGINEROOM_IMPORT_PATH' in os.environ)"
    )
    told = subprocess.run(
        [sys.executable, "-P", "-c", script], env={**os.environ, **command.environment}, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == f"{current} False"
    assert str(ours) in command.environment["ENGINEROOM_IMPORT_PATH"].split(os.pathsep)
    assert str(theirs) not in "".join(command.environment.values())
    assert not (ours / "ran").exists()


def test_a_folder_on_pythonpath_is_the_users_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("PYTHONPATH", str(shared), prepend=os.pathsep)
    monkeypatch.setattr(sys, "path", [str(shared), *sys.path])
    command = commands(tmp_path)[1]  # without a warning
    assert str(shared) not in command.environment["ENGINEROOM_IMPORT_PATH"].split(os.pathsep)
