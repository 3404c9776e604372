"""Clusters that others have started: a client finds the only one; two notebooks may both say `Cluster()`."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from conftest import wait_until

import engineroom as er
from engineroom.client.connection.connecting import find_connection


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of profiles in which no cluster runs."""
    for name in ("IPP_CLUSTER_ID", "IPP_PROFILE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def test_the_only_cluster_is_found_whoever_started_it(profiles: Path):
    with er.Cluster(n=1) as theirs, er.Client() as found:
        assert found.connection.url == theirs.connection.url
        assert found.ids == [0]
    with pytest.raises(er.ConnectionFileError, match="no cluster is running here"):
        er.Client(timeout=0.1)
    with er.Cluster(n=0, profile="night") as theirs, er.Client() as found:
        assert found.connection.url == theirs.connection.url
        with pytest.raises(er.ConnectionFileError, match="no cluster is running here"):
            er.Client(profile="default", timeout=0.1)


def test_of_several_clusters_the_message_says_what_to_write(profiles: Path):
    with er.Cluster(n=0, cluster_id="one", database="memory") as one:
        with er.Cluster(n=0, cluster_id="two", database="memory"):
            with pytest.raises(er.ConnectionFileError) as caught:
                er.Client()
            text = str(caught.value)
            assert "2 clusters are running" in text
            assert "Client(cluster_id='one'), Client(cluster_id='two')" in text
            assert find_connection(None, None, None, None, "one", 1.0).url == one.connection.url
        with er.Client() as found:
            assert found.connection.url == one.connection.url


@pytest.mark.parametrize("profile", ["night", "default", None])
def test_what_the_message_says_can_be_typed(profiles: Path, profile: str | None):
    where = profile or "night"
    with (
        er.Cluster(n=0, profile=where, cluster_id="one", database="memory"),
        er.Cluster(n=0, profile=where, cluster_id="two", database="memory") as two,
    ):
        with pytest.raises(er.ConnectionFileError) as caught:
            er.Client(profile=profile)
        [first, second] = re.findall(r"Client\(.*?\)", str(caught.value))
        with eval(f"er.{first}") as one, eval(f"er.{second}") as other:
            assert {one.connection.cluster_id, other.connection.cluster_id} == {"one", "two"}
            assert two.connection.url in (one.connection.url, other.connection.url)


def test_two_notebooks_may_both_start_a_cluster(profiles: Path):
    with er.Cluster(n=1) as first:
        assert first.load_balanced_view().apply_sync(abs, -1) == 1
        second = er.Cluster(n=1)
        with pytest.warns(UserWarning, match=r"has its database tasks\.db; this one records its tasks in tasks-2\.db"):
            rc = second.start_and_connect_sync()
        try:
            assert Path(rc.connection.database).name == "tasks-2.db"
            assert rc.load_balanced_view().apply_sync(abs, -2) == 2
            assert (first.db_count({}), rc.db_count({})) == (1, 1)
            with pytest.raises(er.UnknownTask, match=r"there is tasks\.db, of .*--db-url=/.*/tasks\.db"):
                rc.get_result(first.history[0]).get(60)
            os.kill(second.controller.pid, signal.SIGKILL)
            wait_until(lambda: rc.db_count({}) == 1, 30)
            assert Path(second.connection.database).name == "tasks-2.db", "started again on its own database"
        finally:
            second.stop_cluster_sync()
    with er.Cluster(n=0) as third:
        assert Path(third.connection.database).name == "tasks.db", "it is free again"
        assert third.db_count({}) == 1


def test_a_number_as_engines_is_a_number_of_engines():
    assert er.Cluster(engines=3).n == 3
    assert er.Cluster(n=3, engines=3).n == 3
    with pytest.raises(er.ConfigError, match="n=2 and engines=3"):
        er.Cluster(n=2, engines=3)
    with pytest.raises(er.ConfigError, match="number of engines"):
        er.Cluster(engines=-1)
    with pytest.raises(er.ConfigError, match="the launchers there are"):
        er.Cluster(engines=True)  # type: ignore[arg-type]
