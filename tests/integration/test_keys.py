"""Keys with lesser rights and new keys, on a real cluster: as their holders meet them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import hold, wait_until

import engineroom as er
from engineroom.cli import engineroom as command
from engineroom.cluster import keys
from engineroom.cluster.cluster_files import ClusterFiles
from engineroom.cluster.processes.restarts import SHORT_LIVES
from engineroom.config import ConnectionInfo, read_connection_file, with_rights, write_connection_file
from engineroom.system.processes import birth_of

SECONDS = 60.0


def key(cluster: er.Cluster, what: str) -> int:
    return command.main(["key", what, f"--profile-dir={cluster.profile_dir}", f"--cluster-id={cluster.cluster_id}"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("keys") / "profile"
    with er.Cluster(n=1, profile_dir=folder) as rc:
        yield rc


def test_a_reader_and_a_submitter_of_a_running_cluster(made: er.Client, capsys: pytest.CaptureFixture[str]):
    cluster = made.cluster
    task = made.load_balanced_view().apply_async(abs, -1)
    assert task.get(SECONDS) == 1
    assert key(cluster, "readonly") == 0
    assert key(cluster, "submit") == 0
    reader_file, submitter_file = (line.split(": it can")[0] for line in capsys.readouterr().out.splitlines())
    assert Path(reader_file).stat().st_mode & 0o777 == 0o600
    with er.Client(reader_file) as reader, er.Client(submitter_file) as submitter:
        assert reader.get_result(task.msg_ids).get(SECONDS) == [1]
        assert reader.ids == [0]
        assert reader.queue_status()["unassigned"] == 0
        with pytest.raises(er.NotAllowed, match="readonly"):
            reader.load_balanced_view().apply_sync(abs, -2)
        with pytest.raises(er.NotAllowed):
            reader.purge_results("all")
        with pytest.raises(er.NotAllowed):
            reader.resubmit(task)
        with pytest.raises(er.NotAllowed):
            reader.shutdown(hub=True)
        own = submitter.load_balanced_view().apply_async(abs, -3)
        assert own.get(SECONDS) == 3
        assert submitter[0].apply_sync(abs, -4) == 4
        wait_until(lambda: made.db_count({"msg_id": own.msg_ids[0], "state": "completed"}))
        assert {record["msg_id"] for record in submitter.db_query({}, keys=["msg_id"])} == set(submitter.history)
        with pytest.raises(er.EngineroomError, match="own session"):
            submitter.get_result(task.msg_ids).get(SECONDS)
        with pytest.raises(er.NotAllowed):
            submitter.purge_results("all")
    assert made.load_balanced_view().apply_sync(abs, -5) == 5


def test_the_engine_file_is_of_no_use_to_a_client(made: er.Client):
    with pytest.raises(er.AuthenticationError, match="rights 'engine'"):
        er.Client(str(made.cluster._connection_file("engine")), timeout=SECONDS)
    with pytest.raises(er.ConfigError, match="made from the one with all rights"):
        with_rights(read_connection_file(made.cluster._connection_file("engine")), "full")


def test_what_is_no_key(made: er.Client, capsys: pytest.CaptureFixture[str]):
    assert key(made.cluster, "all") != 0
    assert "WHAT is one of readonly, submit, engine, rotate" in capsys.readouterr().err


def test_new_keys_keep_the_queue_and_shut_the_old_ones_out(
    tmp_path: Path, gate: Path, capsys: pytest.CaptureFixture[str]
):
    with er.Cluster(n=1, profile_dir=tmp_path / "profile") as rc:
        cluster, files = rc.cluster, ClusterFiles(tmp_path / "profile", rc.cluster.cluster_id)
        assert key(cluster, "readonly") == 0
        old = {path: path.read_text() for path in (*files.connection_files, files.lesser["readonly"])}
        waits = rc.load_balanced_view().apply_async(hold, str(gate), "waited")
        queued = rc.load_balanced_view().map_async(abs, range(20), chunksize=1)
        wait_until(lambda: rc.db_count({"state": "running"}) == 1)
        assert rc.db_count({}) == 21
        assert key(cluster, "rotate") == 0
        assert all(path.read_text() != text for path, text in old.items())
        assert "new keys" in capsys.readouterr().out
        with er.Client(str(files.connection_files[0]), timeout=SECONDS) as fresh:
            fresh.wait_for_engines(1, timeout=SECONDS)
            gate.touch()
            assert fresh.get_result(queued.msg_ids).get(SECONDS) == list(range(20))
            assert fresh.get_result(waits.msg_ids).get(SECONDS) == ["waited"]
            with er.Client(str(files.lesser["readonly"]), timeout=SECONDS) as reader:
                assert reader.db_count({"state": "completed"}) == 21
        stolen = tmp_path / "stolen.json"
        for text in old.values():
            info = msgspec.json.decode(text, type=ConnectionInfo)
            write_connection_file(stolen, msgspec.structs.replace(info, pid=0))
            with pytest.raises(er.AuthenticationError):
                er.Client(str(stolen), timeout=SECONDS)
        stolen.write_text(next(iter(old.values())))
        with pytest.raises(er.ControllerLost, match=f"with new keys.*{files.connection_files[0]}"):
            er.Client(str(stolen), timeout=0.1)
    assert [path for path in files.lesser.values() if path.exists()] == []


def test_an_engine_that_is_refused_before_its_nanny_starts_anew_with_it(tmp_path: Path, gate: Path):
    with er.Cluster(n=1, profile_dir=tmp_path / "profile") as rc:
        files, nanny = ClusterFiles(tmp_path / "profile", rc.cluster.cluster_id), rc.cluster.engine_set.pid
        engine = rc[0].apply_sync(os.getpid)
        task = rc.load_balanced_view().apply_async(hold, str(gate), "held")
        wait_until(lambda: rc.db_count({"state": "running"}) == 1)
        os.kill(nanny, signal.SIGSTOP)
        assert key(rc.cluster, "rotate") == 0
        gate.touch()
        wait_until(lambda: not birth_of(engine))
        os.kill(nanny, signal.SIGCONT)
        with er.Client(str(files.connection_files[0]), timeout=SECONDS) as fresh:
            assert fresh.get_result(task.msg_ids).get(SECONDS) == ["held"]
        assert rc.cluster.engine_set.pid == nanny


def test_rotations_one_after_the_other_do_not_count_as_a_controller_that_cannot_start(tmp_path: Path):
    with er.Cluster(n=1, profile_dir=tmp_path / "profile") as rc:
        files = ClusterFiles(tmp_path / "profile", rc.cluster.cluster_id)
        for _ in range(SHORT_LIVES + 1):
            assert key(rc.cluster, "rotate") == 0
        with er.Client(str(files.connection_files[0]), timeout=SECONDS) as fresh:
            fresh.wait_for_engines(1, timeout=SECONDS)
            assert fresh[:].apply_sync(abs, -1) == [1]


def test_a_controller_that_nobody_starts_again_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr(keys, "AGAIN_SECONDS", 0.5)
    with er.Cluster(n=1, profile_dir=tmp_path / "profile") as rc:
        rc.cluster._restarts.allowed = False
        assert key(rc.cluster, "rotate") != 0
        assert "nothing has started it again" in capsys.readouterr().err


def test_an_engine_whose_messages_make_no_sense_is_replaced(tmp_path: Path):
    def babble() -> None:
        import gc

        from engineroom.engine.session_link import SessionLink

        [link] = [each for each in gc.get_objects() if type(each) is SessionLink]
        link.send_frames([b"babble"])

    with er.Cluster(n=1, profile_dir=tmp_path / "profile") as rc:
        engine = rc[0].apply_sync(os.getpid)
        with pytest.raises(er.EngineError):
            rc.load_balanced_view().apply_async(babble).get(SECONDS)
        assert rc.load_balanced_view().apply_async(os.getpid).get(SECONDS) != engine


def test_new_keys_are_refused_where_they_would_cost_the_queue(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with er.Cluster(n=1, profile_dir=tmp_path / "profile", database="memory") as rc:
        assert key(rc.cluster, "rotate") != 0
        assert "would be lost with its controller" in capsys.readouterr().err
        assert rc[0].apply_sync(abs, -1) == 1
