"""Clients, engines, controllers and files of other versions: they work together, or both sides say what to do."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until

import engineroom as er
from engineroom import _version
from engineroom.config import connection_file, read_connection_file

OURS = _version.PROTOCOL_VERSION
#: A program of another release: this one, with other numbers.
OTHER = """
import sys
from engineroom import _version
_version.__version__, _version.PROTOCOL_VERSION = {version!r}, {protocol}
"""
CLIENT = """
import engineroom as er
with er.Client(sys.argv[1], timeout=30) as rc:
    print(rc.load_balanced_view().apply_sync(abs, -7))
"""
ENGINE = """
from engineroom.cli.ipengine import main
sys.exit(main([f"--file={sys.argv[1]}", "--n=1"]))
"""
#: The connection file of a controller of Engineroom 0.1.0.
FILE_OF_0_1 = {
    "url": "ipc:///tmp/engineroom-0/89bef6ad6efd8293", "key": "5" * 64, "curve_serverkey": "", "location": "",
    "pid": 2**22 + 1, "cluster_id": "", "profile_dir": "", "version": "0.1.0", "database": "sqlite:///tmp/tasks.db",
}  # fmt: skip
#: How a connection of ZeroMQ begins.
ZEROMQ = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL" + bytes(48)


@pytest.fixture(scope="module")
def cluster() -> Any:
    with er.Cluster(n=1) as rc:
        yield rc.cluster


def run(script: str, file: Path, version: str, protocol: int) -> subprocess.CompletedProcess[str]:
    script = OTHER.format(version=version, protocol=protocol) + script
    return subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True, timeout=60, check=False)


def log_of(cluster: er.Cluster) -> str:
    return (cluster.profile_dir / "log").joinpath(f"ipcontroller-{cluster.cluster_id}.log").read_text()


def file_of_0_1(folder: Path, **changes: Any) -> Path:
    path = folder / "ipcontroller-client.json"
    path.write_text(json.dumps(FILE_OF_0_1 | changes))
    path.chmod(0o600)
    return path


def test_another_release_with_the_same_protocol_works(cluster: er.Cluster) -> None:
    done = run(CLIENT, connection_file(cluster.profile_dir, cluster.cluster_id), "0.2.99", OURS)
    assert (done.stdout, done.returncode) == ("7\n", 0), done.stderr


@pytest.mark.fault(29)
def test_one_protocol_apart_both_sides_say_what_to_do(cluster: er.Cluster) -> None:
    def reason(protocol: int) -> str:
        return (
            f"it speaks protocol version {protocol}, this controller {OURS} (engineroom {er.__version__}). Use one "
            f"release at both ends: there `pip install engineroom=={er.__version__}`, or upgrade here and start the "
            "cluster again"
        )

    for role, script in (("client", CLIENT), ("engine", ENGINE)):
        for protocol in (OURS - 1, OURS + 1):
            done = run(script, connection_file(cluster.profile_dir, cluster.cluster_id, role), "9.8.7", protocol)
            assert done.returncode != 0
            assert reason(protocol) in done.stderr
            assert done.stderr.endswith(f"This process has engineroom 9.8.7, with protocol version {protocol}.\n")
            assert role == "client" or done.stderr.count("\n") == 1, done.stderr
    said = log_of(cluster)
    assert reason(OURS - 1) in said, "the first; of those that follow soon not every one has a line"
    assert f"refused a 'client' of {socket.gethostname()!r}" in said


@pytest.mark.fault(29)
def test_a_controller_of_0_1_is_named_at_once(tmp_path: Path) -> None:
    path = file_of_0_1(tmp_path)
    match = rf"controller of engineroom 0\.1\.0, which speaks ZeroMQ\. This process has engineroom {er.__version__}.*"
    with pytest.raises(er.ProtocolError, match=match + r"`pip install engineroom==0\.1\.0`"):
        er.Client(path)
    done = run(ENGINE, path, er.__version__, OURS)
    assert done.returncode == 1
    assert done.stderr.startswith("ipengine: this connection file is of a controller of engineroom 0.1.0")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.fault(29)
def test_the_controller_names_peers_that_speak_zeromq(cluster: er.Cluster) -> None:
    url = cluster.connection.url
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(url.removeprefix("ipc://"))
        peer.settimeout(30)
        peer.sendall(ZEROMQ)
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
    text = f"it speaks ZeroMQ, as engineroom 0.1 does, and this is engineroom {er.__version__}"
    wait_until(lambda: text in log_of(cluster))


@pytest.mark.parametrize("url", [FILE_OF_0_1["url"], "tcp://127.0.0.1:45678"])
def test_the_connection_file_of_0_1_is_not_used_again(tmp_path: Path, url: str) -> None:
    """`ipcontroller --reuse` with the profile of an old cluster."""
    security = tmp_path / "security"
    security.mkdir(mode=0o700)
    path = file_of_0_1(security, url=url)
    words = ["--reuse", f"--profile-dir={tmp_path}", *(["--ip=127.0.0.1"] if "tcp" in url else [])]
    with subprocess.Popen(
        [sys.executable, "-m", "engineroom.controller", *words],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        try:
            wait_until(lambda: read_connection_file(path).version == er.__version__)
            new = read_connection_file(path)
            assert new.key != FILE_OF_0_1["key"]
            with er.Client(path, timeout=30) as rc:
                assert rc.ids == []
        finally:
            process.terminate()
            _, said = process.communicate()
    assert f"{path} is of engineroom 0.1.0 and is made anew: copy it again to other hosts" in said


def test_a_cluster_file_of_0_1_names_its_processes(tmp_path: Path) -> None:
    """`ipcluster stop` stops a cluster that was started before the upgrade."""
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", "engineroom.controller"])
    path = tmp_path / "cluster-.json"
    controller = {"class": "local", "pid": process.pid, "log_file": str(tmp_path / "log"), "args": []}
    about = {"cluster_id": "", "profile_dir": str(tmp_path), "version": "0.1.0"}
    engines = {"set": {**controller, "pid": 2**22 + 1, "n": 2, "resources": {}}}
    path.write_text(json.dumps({"cluster": about, "controller": controller, "engines": engines}))
    path.chmod(0o600)
    try:
        found = er.Cluster.from_file(path)
        assert found.n == 2
        found.stop_cluster_sync()
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()
