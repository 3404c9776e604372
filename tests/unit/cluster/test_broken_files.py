"""The files by which a cluster is found, with contents that we did not write: a typed error, or no cluster."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from engineroom.client.connection.connecting import has_ended
from engineroom.cluster import Cluster
from engineroom.cluster.cluster_files import ClusterFiles
from engineroom.cluster.found_cluster import FoundCluster
from engineroom.config import ConnectionInfo, make_profile_dir, read_connection_file, write_private
from engineroom.errors import ConfigError, ConnectionFileError
from engineroom.launchers import FoundProcess

INFO: dict[str, Any] = {"url": "ipc:///x", "key": "k"}


@pytest.fixture
def files(tmp_path: Path) -> ClusterFiles:
    return ClusterFiles(make_profile_dir(tmp_path / "profile_broken"))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"[]", b'{"url": "\xff", "key": ""}', b'{"url": "a", "key": "b", "x": ' + b"[" * 100_000,
        *(json.dumps({**INFO, **more}).encode() for more in (
            {"pid": 10**20}, {"pid": -1}, {"pid": 2**31}, {"url": "ipc:///a\0b"}, {"database": "sqlite:///a\0b"},
            {"location": "a\x1b[31m"},
            {"profile_dir": "\n"}, {"other_urls": ["tcp://a\0:1"]},
        )),
    ],
)  # fmt: skip
def test_a_broken_connection_file_is_a_connection_file_error(files: ClusterFiles, content: bytes):
    path = files.connection_files[0]
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(ConnectionFileError, match="is not a connection file of Engineroom"):
        read_connection_file(path)
    assert files.connection is None
    assert not FoundCluster(files.profile_dir).running


def test_a_process_that_cannot_be_has_ended():
    info = ConnectionInfo(url="ipc:///x", key="k", location=socket.gethostname(), pid=2**31 - 1)
    assert has_ended(info)
    for pid in (10**20, -1, -(10**20)):
        assert not FoundProcess(pid, "x").running


ENGINES: list[Any] = [
    [], {"a": []}, {"a": {"class": "batch"}}, {"a": {"class": "slurm", "n": "x", "log_file": "/l", "job_id": "1"}},
    {"a": {"class": "slurm", "n": "12", "log_file": "/l", "job_id": "1"}},
    {"a": {"class": "slurm", "n": 1, "log_file": "", "job_id": "1"}}, {"a": {"class": 3}}, {"a": {"class": "local",
    "n": ""}},
    {"a": {"class": "batch", "n": 1, "log_file": "/l", "job_id": "1", "options": "x"}},
    {"a": {"class": "batch", "n": 1, "log_file": "/l", "job_id": "1", "options": {"poll_seconds": []}}},
]  # fmt: skip


@pytest.mark.parametrize("engines", ENGINES, ids=lambda engines: json.dumps(engines)[:40])
def test_a_broken_cluster_file_is_a_config_error(files: ClusterFiles, engines: Any):
    about = {"cluster_id": "", "profile_dir": str(files.profile_dir)}
    write_private(files.cluster_file, json.dumps({"cluster": about, "controller": None, "engines": engines}))
    with pytest.raises(ConfigError):
        Cluster.from_file(files.cluster_file)
    assert FoundCluster(files.profile_dir).processes == []


def test_a_cluster_file_nested_without_end_is_a_config_error(files: ClusterFiles):
    write_private(files.cluster_file, "[" * 100_000)
    with pytest.raises(ConfigError, match="is not a cluster file"):
        Cluster.from_file(files.cluster_file)
