"""Nothing secret is in logs, errors, process lists or environments of a cluster's processes."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

import engineroom as er
from engineroom.cli import engineroom as command
from engineroom.cluster.cluster_files import ClusterFiles
from engineroom.messages.rights import RIGHTS, key_with_rights


def fails() -> None:
    raise ValueError("no")


def processes_of(rc: er.Client) -> list[psutil.Process]:
    """The controller, the nannies, zygotes and engines."""
    controller = psutil.Process(rc.cluster.connection.pid)
    us = psutil.Process(os.getpid())
    return [controller, *us.children(recursive=True)]


def test_no_key_is_where_others_look(tmp_path: Path, capfd) -> None:
    errors: list[str] = []
    with er.Cluster(n=2, profile_dir=tmp_path / "profile", controller_ip="127.0.0.1") as rc:
        files = ClusterFiles(tmp_path / "profile", rc.cluster.cluster_id)
        here = [f"--profile-dir={tmp_path / 'profile'}", f"--cluster-id={rc.cluster.cluster_id}"]
        for what in ("readonly", "submit"):
            assert command.main(["key", what, *here]) == 0
        key = rc.cluster.connection.key
        secrets = {key_with_rights(key, rights) for rights in RIGHTS} | {files.secret_file.read_text().strip()}
        assert len(secrets) == 5
        rc[:].apply_sync(abs, -1)
        for doing in (lambda: rc.load_balanced_view().apply_sync(fails), lambda: er.Client(files.connection_files[1])):
            try:
                doing()
            except er.EngineroomError as error:
                errors.append(f"{error!r} {error}")
        assert len(errors) == 2
        rc.db_query({})
        seen = ""
        for process in processes_of(rc):
            for name in ("cmdline", "environ"):
                seen += (Path("/proc") / str(process.pid) / name).read_bytes().decode(errors="replace")
        assert "engineroom" in seen, "the test sees the processes"
        seen += repr(rc) + repr(rc.cluster) + "".join(errors)
    logs = list((tmp_path / "profile").rglob("*.log"))
    assert len(logs) >= 2
    for path in logs:
        seen += path.read_text(errors="replace")
    out, err = capfd.readouterr()
    seen += out + err
    for secret in secrets:
        assert secret not in seen
