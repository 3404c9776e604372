"""Folders and files that no other user of the host can change."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engineroom.cli.ipcontroller import IPController
from engineroom.cluster import Cluster
from engineroom.config import (
    ConnectionInfo,
    make_profile_dir,
    read_connection_file,
    socket_dir,
    write_connection_file,
    write_private,
)
from engineroom.errors import ConfigError, ConnectionFileError
from engineroom.private import (
    SMALL_BYTES,
    make_private_folder,
    open_private_folder,
    read_small,
    why_not_trusted,
    why_not_trusted_folder,
)

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: another unix user; run this as root")


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_profile_folders_are_ours_alone_whatever_the_umask_is(tmp_path: Path, umask: int):
    profile = make_profile_dir(tmp_path / "ipython" / "profile_x")
    for path in (profile.parent, profile, profile / "security", profile / "log", profile / "pid"):
        assert mode(path) == 0o700
    write_private(tmp_path / "another" / "file", "text")
    assert mode(tmp_path / "another") == 0o700
    assert mode(tmp_path / "another" / "file") == 0o600


@pytest.mark.parametrize("name", ["", "security", "log", "pid"])
@pytest.mark.parametrize("how", ["written", pytest.param("owned", marks=needs_root)])
def test_a_profile_that_others_can_write_to_is_refused(tmp_path: Path, name: str, how: str):
    """They could put a database there, whose results are unpickled, or a link in the place of a log."""
    profile = make_profile_dir(tmp_path / "profile_x")
    if how == "owned":
        os.chown(profile / name, NOBODY, NOBODY)
    elif name == "security":  # that is made ours alone
        (profile / name).chmod(0o777)
        make_profile_dir(profile)
        assert mode(profile / name) == 0o700
        return
    else:
        (profile / name).chmod(0o777)
    with pytest.raises(ConfigError, match=r"is not used: .*(belongs to the user|others may write).*chmod go-w"):
        make_profile_dir(profile)


@needs_root
@pytest.mark.parametrize("what", ["folder", "link", "file"])
def test_nobody_can_keep_us_from_having_a_folder_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    """In /tmp another user can take any name first, and we cannot remove what he made."""
    short = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
        taken = short / f"engineroom-{os.getuid()}"
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        match what:
            case "folder":
                taken.mkdir(mode=0o777)
            case "link":
                taken.symlink_to(theirs)
            case "file":
                taken.touch()
        os.chown(taken, NOBODY, NOBODY, follow_symlinks=False)
        ours = socket_dir()
        assert ours.parent == short
        assert ours != taken
        assert mode(ours) == 0o700
        assert socket_dir() == ours, "and it stays the same"
        ours.chmod(0o755)
        assert socket_dir() != ours
        assert list(theirs.iterdir()) == []
    finally:
        shutil.rmtree(short)


def test_a_folder_that_exists_is_left_as_it_is(tmp_path: Path):
    tmp_path.chmod(0o755)
    make_private_folder(tmp_path / "a" / "b")
    make_private_folder(tmp_path)
    assert mode(tmp_path) == 0o755
    assert mode(tmp_path / "a") == 0o700


def configured(folder: Path) -> IPController:
    app = IPController(profile_directory=str(folder))
    app.initialize([f"--profile-dir={folder}"])
    return app


@pytest.mark.parametrize("name", ["ipcontroller_config.py", "ipcontroller_config.json"])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_configuration_that_others_can_write_is_refused(tmp_path: Path, name: str, what: str):
    ran = tmp_path / "ran"
    profile = tmp_path / "profile"
    profile.mkdir(mode=0o700)
    config = profile / name
    config.write_text("{}" if name.endswith("json") else f"open({str(ran)!r}, 'w').close()")
    config.chmod(0o644)
    configured(profile)
    assert ran.exists() == name.endswith(".py"), "it is read while only we can write it"
    ran.unlink(missing_ok=True)
    place = config if what == "file" else profile
    place.chmod(mode(place) | 0o002)
    with pytest.raises(ConfigError, match="is not read, because another user may have written it: others may write"):
        configured(profile)
    assert not ran.exists()


@needs_root
def test_configuration_of_another_user_is_refused(tmp_path: Path):
    config = tmp_path / "ipcontroller_config.py"
    config.write_text("raise SystemExit('it ran')")
    os.chown(config, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match=f"belongs to the user with the number {NOBODY}"):
        configured(tmp_path)


def test_a_group_of_others_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    path.write_text("")
    path.chmod(0o664)
    monkeypatch.setattr("engineroom.private._is_alone_in", lambda gid: False)
    assert "others may write" in why_not_trusted(path)
    monkeypatch.setattr("engineroom.private._is_alone_in", lambda gid: True)
    assert why_not_trusted(path) == "", "many systems make a group for each user"


@needs_root
def test_a_folder_of_another_user_is_not_ours(tmp_path: Path):
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(PermissionError, match="belongs to the user"):
        open_private_folder(folder)


def test_a_folder_in_one_like_tmp_is_trusted_if_it_is_ours(tmp_path: Path):
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o755)
    tmp_path.chmod(0o1777)
    assert why_not_trusted_folder(ours) == ""
    assert "others may write" in why_not_trusted_folder(tmp_path)
    tmp_path.chmod(0o777)
    assert f"others may write to {tmp_path}" in why_not_trusted_folder(ours)


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("how", ["written", pytest.param("owned", marks=needs_root)])
def test_a_connection_file_that_others_can_write_is_refused(tmp_path: Path, what: str, how: str):
    path = tmp_path / "security" / "ipcontroller-client.json"
    info = ConnectionInfo(url="ipc:///nowhere", key="k")
    write_connection_file(path, info)
    assert read_connection_file(path) == info
    changed = path if what == "file" else path.parent
    if how == "owned":
        os.chown(changed, NOBODY, -1)
    else:
        changed.chmod(changed.stat().st_mode | 0o002)
    with pytest.raises(ConnectionFileError, match=r"is not used: .*chmod go-w"):
        read_connection_file(path)


def test_what_is_no_small_file_is_refused_at_once(tmp_path: Path):
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)  # who opens it to read waits until somebody writes
    with large.open("wb") as file:
        file.truncate(SMALL_BYTES + 1)
    for place in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"Is a directory|not a file"):
            read_small(place)
    with pytest.raises(OSError, match="it has 16,777,217 bytes"):
        read_small(large)
    (tmp_path / "small").write_bytes(b"{}")
    assert read_small(tmp_path / "small") == b"{}"
    with pytest.raises(ConnectionFileError, match="not a file"):
        read_connection_file(pipe)
    with pytest.raises(ConfigError, match="not a file"):
        Cluster.from_file(pipe)


def test_a_cluster_file_that_names_an_impossible_folder_is_none(tmp_path: Path):
    named = tmp_path / "cluster.json"
    named.write_text(json.dumps({"cluster": {"cluster_id": None, "profile_dir": "a" * 300}}))
    with pytest.raises(ConfigError, match=r"File name too long|KeyError\('controller'\)"):
        Cluster.from_file(named)
