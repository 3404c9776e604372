"""Surroundings that are not as usual: a long TMPDIR, a read-only mount, a terminal that knows ASCII only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import pytest
from conftest import processes_of, wait_until

import engineroom as er
from engineroom import config
from engineroom.errors import ConfigError
from engineroom.stores import SQLiteDB


def tool(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", f"engineroom.cli.{name}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=100, env={**os.environ, **environment})


# ---------------------------------------------------------------------------------------------- a long TMPDIR


@pytest.mark.fault(47)
def test_a_cluster_starts_where_tmpdir_is_too_long_for_a_socket(fresh_cluster, tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    rc = fresh_cluster(n=1, database="none")
    assert rc[0].apply_sync(abs, -1) == 1


def test_the_folder_of_sockets(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    assert config.socket_dir().parent == Path("/tmp")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    assert config.socket_dir() == Path(f"/tmp/engineroom-{os.getuid()}")
    short = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
        assert config.socket_dir().parent == short
        monkeypatch.setattr(tempfile, "tempdir", "/tmp")
        assert config.socket_dir().parent == short, "the folder that the system makes for this user comes first"
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(short / "absent"))
        monkeypatch.setattr(tempfile, "tempdir", str(short))
        assert config.socket_dir().parent == short, "a folder that cannot be made"
    finally:
        shutil.rmtree(short)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(config, "_SOCKET_PATH", 10)
    with pytest.raises(ConfigError, match="Set TMPDIR to a short path"):
        config.socket_dir()


# ---------------------------------------------------------------------------------------------- a read-only mount

@pytest.mark.skipif(sys.version_info[:2] == (3, 13), reason="Python 3.13 cannot import socket there")
def test_a_cluster_starts_in_a_folder_that_has_been_removed(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    script = f"""
import os, engineroom as er
os.rmdir({str(folder)!r})
def double(x): return 2 * x
with er.Cluster(n=1, profile_dir={str(tmp_path / "p")!r}) as rc:
    print(rc.load_balanced_view().map_sync(double, range(3)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.stdout == "[0, 2, 4]\n", done.stderr


def test_a_profile_that_cannot_be_written_names_what_to_choose(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(er.ConfigError, match=r"file/p: Not a directory. Choose another with profile_dir= .*IPYTHONDIR"):
        er.Cluster(n=1, profile_dir=tmp_path / "file" / "p").start_cluster_sync()


@pytest.fixture
def recorded(fresh_cluster):
    """The folder of a profile with a database of one task."""
    rc = fresh_cluster(n=1, database="sqlite")
    rc[0].apply_sync(abs, -1)
    rc.cluster.stop_cluster_sync()
    return rc.cluster.profile_dir


def mounted_readonly(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command that sees a folder as on a read-only mount."""
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script, str(folder), *command],
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_a_database_on_a_read_only_mount_can_be_read(recorded):
    if shutil.which("unshare") is None or mounted_readonly(recorded, "true").returncode:
        pytest.skip("no mount namespace can be made here")
    shown = mounted_readonly(
        recorded, sys.executable, "-m", "engineroom.cli.engineroom", "tasks", f"--profile-dir={recorded}"
    )
    assert shown.returncode == 0, shown.stderr
    assert "abs" in shown.stdout
    source = f"""
from engineroom.stores import SQLiteDB
store = SQLiteDB.open_readonly({str(recorded / "tasks.db")!r})
print([record["state"] for record in store.find_records({{}}, keys=["state"])])
store.close()
"""
    asked = mounted_readonly(recorded, sys.executable, "-c", source)
    assert asked.stdout == "['completed']\n", asked.stderr


def test_a_database_in_a_folder_that_cannot_be_written_can_be_read(recorded, monkeypatch):
    """As on a read-only mount: SQLite may make no files beside the database."""
    path = recorded / "tasks.db"
    access = os.access
    monkeypatch.setattr(os, "access", lambda where, mode: mode != os.W_OK and access(where, mode))
    store = SQLiteDB.open_readonly(path)
    assert [record["state"] for record in store.find_records({}, keys=["state"])] == ["completed"]
    store.close()


# ---------------------------------------------------------------------------------------------- terminals


def test_a_terminal_that_knows_ascii_only_is_shown_escapes(tmp_path):
    folder = tmp_path / "profile_default"
    arguments = ["start", "-n", "1", "--daemonize", f"--profile-dir={folder}"]
    started = tool("ipcluster", *arguments, PYTHONIOENCODING="ascii")
    try:
        assert started.returncode == 0, started.stderr
        assert rb"\u2026" in started.stdout
        with er.Client(profile_dir=folder) as rc:
            view = rc.load_balanced_view()
            view.label = "größe"
            view.apply_sync(abs, -1)
        shown = tool("engineroom", "tasks", f"--profile-dir={folder}", PYTHONIOENCODING="ascii")
        assert shown.returncode == 0, shown.stderr
        assert rb"gr\xf6\xdfe" in shown.stdout
    finally:
        stopped = tool("ipcluster", "stop", f"--profile-dir={folder}", PYTHONIOENCODING="ascii")
    assert stopped.returncode == 0, stopped.stderr
    wait_until(lambda: not processes_of(tmp_path))


def test_engines_in_a_terminal_are_not_stopped_by_it(fresh_cluster):
    """`ipengine` in the foreground of a terminal: a task that reads from the terminal is told, and does not hang."""
    rc = fresh_cluster(n=0, database="none")
    [path] = (rc.cluster.profile_dir / "security").glob("*-engine.json")
    ours, theirs = os.openpty()
    settings = termios.tcgetattr(theirs)
    settings[3] |= termios.TOSTOP
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    source = """
import fcntl, sys, termios
from engineroom.cli.ipengine import main
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.exit(main())
"""
    command = [sys.executable, "-c", source, f"--file={path}"]
    nanny = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    try:
        rc.wait_for_engines(1, timeout=30)
        for code in ("input()", "import getpass; getpass.getpass()", "open('/dev/tty').read(1)"):
            with pytest.raises(er.RemoteError, match=r"cannot read input|No such device"):
                rc[0].execute(code).get(60)
        result = rc[0].apply_async(lambda: __import__("os").system("stty -a; cat; echo done"))
        assert result.get(60) == 0
        assert result.stdout.endswith("done\n")
    finally:
        nanny.terminate()
        nanny.wait(60)
        os.close(ours)
        os.close(theirs)
