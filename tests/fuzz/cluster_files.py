"""The files by which a cluster is found: the connection file, the cluster file, the dashboard's link, the process id.

A case is the content of such a file; all four get it. They are private, so that only their owner may write them: but
they are copied between hosts, edited by hand, and written by other versions. The readers may raise ConnectionFileError
and ConfigError, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from random import Random
from unittest import mock

import msgspec

from engineroom import config
from engineroom.client.connection.connecting import has_ended, profile_of
from engineroom.cluster import Cluster
from engineroom.cluster.cluster_files import ClusterFiles, is_other_host
from engineroom.cluster.found_cluster import FoundCluster
from engineroom.config import ConnectionInfo, read_connection_file, with_rights
from engineroom.errors import ConfigError, ConnectionFileError
from engineroom.transport.reaching import address_of
from engineroom.transport.tcp.certificates import link_context, new_identity

from . import mutations
from .target import Target, memory_folder

_ATOMS = (
    "tcp://127.0.0.1:1", "tcp://[::1]:80", "ipc:///x", "tcp://:1", "tcp://a:99999", "ipc://\0", "full", "readonly",
    "slurm", "local",
    "local-controller", "dask", "ray", "ssh", "mpi", "url", "key", "pid", "cluster", "controller", "engines", "n",
    "class", "log_file", "job_id",
    "options", "processes", "hosts", "http://127.0.0.1:80/?token=a", 10**20, -(10**20), -1, os.getpid(),
)  # fmt: skip


class ClusterFilesTarget(Target):
    """All readers of these files."""

    name = "cluster-files"

    def __enter__(self) -> ClusterFilesTarget:
        self._folder = tempfile.TemporaryDirectory(dir=memory_folder())
        self._profile = config.make_profile_dir(Path(self._folder.name) / "profile_fuzz")
        self._umask = os.umask(0o077)
        self._files = ClusterFiles(self._profile)
        self._certificate, _ = new_identity()
        # A link may name any port of this host: nobody is called.
        self._no_calls = mock.patch.object(config.socket, "create_connection", side_effect=ConnectionRefusedError)
        self._no_calls.start()
        return self

    def __exit__(self, *error: object) -> None:
        os.umask(self._umask)
        self._no_calls.stop()
        self._folder.cleanup()

    def seeds(self) -> list[bytes]:
        host = os.uname().nodename
        info = ConnectionInfo(
            url="ipc:///run/x/socket",
            key="k" * 32,
            location=host,
            pid=1,
            profile_dir="/p",
            database="sqlite:///p/tasks.db",
        )
        far = msgspec.structs.replace(
            info,
            url="tcp://10.0.0.1:7000",
            other_urls=("tcp://[::1]:7000",),
            certificate=self._certificate,
            rights="submit",
        )
        about = {"cluster_id": "", "profile_dir": str(self._profile), "version": "0.1"}
        batch = {"class": "slurm", "job_id": "12", "pid": None, "log_file": "/p/log", "n": 4, "resources": {"gpu": 1}}
        local = {"class": "local", "pid": 1, "log_file": "/p/log", "n": 2}
        trees = [
            msgspec.to_builtins(info),
            msgspec.to_builtins(far),
            {"cluster": about, "controller": None, "engines": {"a": local, "b": batch}},
            {"cluster": {**about, "keep": {"pid": 1}}, "controller": {"pid": 1, "log_file": "/p/log"}, "engines": {}},
            {"url": "http://127.0.0.1:80/?token=a", "pid": 1, "host": host},
        ]
        return [*(json.dumps(tree).encode() for tree in trees), b"123", b""]

    def mutate(self, case: bytes, rng: Random) -> bytes:
        return mutations.change_json(case, rng, _ATOMS)

    def run(self, case: bytes) -> None:
        files = self._files
        for path in (
            files.connection_files[0],
            files.cluster_file,
            files.pid_file,
            config.dashboard_file(self._profile),
        ):
            path.write_bytes(case)
        try:
            info = read_connection_file(files.connection_files[0])
        except ConnectionFileError:
            pass
        else:
            self._use(info)
        found = FoundCluster(self._profile)
        assert files.connection_files[0] in files.existing()
        with contextlib.suppress(ConfigError):
            Cluster.from_file(files.cluster_file)
        for _ in (found.controller, found.is_elsewhere, found.supervisor, found.running):
            pass
        config.dashboard_url(self._profile)

    def _use(self, info: ConnectionInfo) -> None:
        """What a client does with it, before it connects."""
        has_ended(info)
        is_other_host(info)
        profile_of(info)
        with contextlib.suppress(ConfigError):
            with_rights(info, "readonly")
        if not info.url.startswith("ipc://"):
            try:  # as a link does, which makes a ConnectionFileError of a ValueError
                list(map(address_of, info.urls))
                link_context(info.certificate, info.key)
            except (ValueError, OSError):
                pass
