"""A profile whose name is misspelt is told when it is made."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import engineroom as er
from engineroom.cluster.cluster_files import ClusterFiles
from engineroom.config import make_profile_dir


@pytest.fixture
def ipython(tmp_path: Path) -> Path:
    """A folder of profiles."""
    for name in ("default", "run1", "analysis"):
        (tmp_path / f"profile_{name}" / "security").mkdir(parents=True)
    (tmp_path / "profile_foreign").mkdir()
    return tmp_path


@pytest.mark.parametrize(("misspelt", "meant"), [("defualt", "default"), ("analyses", "analysis"), ("run-1", "run1")])
def test_a_new_profile_with_nearly_the_name_of_another_is_told(ipython: Path, misspelt: str, meant: str) -> None:
    with pytest.warns(UserWarning, match=f"no profile '{misspelt}': its folder .* is made now. Did you mean '{meant}'"):
        ClusterFiles(ipython / f"profile_{misspelt}").warn_of_new_profile()


@pytest.mark.parametrize("name", ["default", "run2", "fit", "foreigm", "nested/profile_defualt"])
def test_a_profile_that_is_meant_so_is_not(ipython: Path, name: str) -> None:
    with warnings.catch_warnings(action="error"):
        ClusterFiles(ipython / f"profile_{name}").warn_of_new_profile()


def test_folders_of_others_are_not_looked_into(ipython: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_dir = Path.is_dir

    def may_look(path: Path) -> bool:  # as the kernel answers others than root
        if path.parent.name == "profile_foreign":
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", may_look)
    with pytest.warns(UserWarning, match="Did you mean 'default'"):
        ClusterFiles(ipython / "profile_defualt").warn_of_new_profile()
    monkeypatch.setattr(Path, "iterdir", lambda path: os.listdir("/this/is/not/there"))
    with warnings.catch_warnings(action="error"):
        ClusterFiles(ipython / "profile_defualt").warn_of_new_profile()


def test_a_client_of_a_misspelt_profile_is_asked(ipython: Path) -> None:
    for attach in (er.Client, er.tasks.TaskClient, er.Cluster.from_file):
        with pytest.raises(OSError, match=f"Did you mean 'analysis', which is there .{ipython}/profile_analysis"):
            attach(profile_dir=ipython / "profile_anaylsis")
    with pytest.raises(er.ConnectionFileError, match=r"`ipcluster start -n 4 --profile-dir=\S+ --cluster-id=x`"):
        er.Client(profile_dir=ipython / "profile_anaylsis", cluster_id="x")


def test_a_profile_that_is_given_as_a_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(er.ConnectionFileError, match=r"file night\. .* A profile is named by profile='night'"):
        er.Client("night", timeout=0.1)


@pytest.mark.parametrize("profile", ["nihgt", "nigt"])
def test_tools_ask_too(ipython: Path, profile: str) -> None:
    (ipython / "profile_night" / "security").mkdir(parents=True)
    for tool, words in (("cluster", "stop"), ("cluster", "engines -n 1"), ("cli.engineroom", "top --once"),
                        ("cli.engineroom", "tasks"), ("cli.engineroom", "key submit")):  # fmt: skip
        command = [sys.executable, "-m", f"engineroom.{tool}", *words.split(), f"--profile={profile}"]
        done = subprocess.run(command, env=os.environ | {"IPYTHONDIR": str(ipython)}, capture_output=True, text=True)
        assert done.returncode != 0
        assert "Did you mean 'night', which is there" in done.stderr, words


def test_the_log_names_the_folder_of_a_new_profile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "engineroom"):
        make_profile_dir(tmp_path / "profile_new")
        make_profile_dir(tmp_path / "profile_new")
    assert [record.getMessage() for record in caplog.records] == [
        f"a new profile: its folder is {tmp_path / 'profile_new'}"
    ]
