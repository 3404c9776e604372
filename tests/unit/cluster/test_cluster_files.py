"""A profile whose name is misspelt is told when it is made."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

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


def test_the_log_names_the_folder_of_a_new_profile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "engineroom"):
        make_profile_dir(tmp_path / "profile_new")
        make_profile_dir(tmp_path / "profile_new")
    assert [record.getMessage() for record in caplog.records] == [
        f"a new profile: its folder is {tmp_path / 'profile_new'}"
    ]
