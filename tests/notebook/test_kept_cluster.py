"""A cluster that outlives the kernel that started it, and the next `er.Cluster` of the profile, which takes it over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import processes_of, wait_until
from support.notebooks import Notebook, kernel_environment

import engineroom as er


@pytest.fixture
def profile(tmp_path: Path) -> Iterator[Path]:
    """A profile of its own; no process of it is left, also if the test fails."""
    yield tmp_path / "profile_default"
    left = processes_of(tmp_path)
    for process in left:
        process.kill()
    assert left == []


def test_the_next_cluster_of_the_profile_takes_over_what_a_killed_kernel_kept(tmp_path: Path, profile: Path):
    pytest.importorskip("nbclient", reason="nbclient is not installed, so no notebook can be run")
    gate = tmp_path / "gate"
    start = f"import engineroom as er\ncluster = er.Cluster(n=2, profile_dir={str(profile)!r}, keep=True)\n"
    connect = start + "rc = cluster.start_and_connect_sync()\n"
    environment = kernel_environment(tmp_path, JPY_SESSION_NAME="fit.ipynb")
    with Notebook(tmp_path, environment).running() as notebook:
        made = notebook.run(
            connect + "def step(i, gate):\n    import os, time\n"
            "    while i == 2 and not os.path.exists(gate): time.sleep(0.01)\n    return i * i\n"
            f"ar = rc.load_balanced_view().map_async(step, range(4), [{str(gate)!r}] * 4)\n"
            "rc.wait(ar, 0); rc.db_count({})"
        )
        assert made.error is None, made
        before = notebook.value("cluster.cluster_id, cluster.controller.pid")
        notebook.restart()
        found = notebook.run(connect + "cluster.cluster_id, cluster.controller.pid")
        assert found.error is None, found
        assert found.bundles[-1]["text/plain"] == before
        assert notebook.value("len(rc.ids)") == "2"
        gate.touch()
        assert notebook.value("rc.session('fit')[0].get(60)") == "[0, 1, 4, 9]"
        second = er.Cluster(n=1, profile_dir=profile)  # the kept one is in use
        with pytest.warns(UserWarning, match="another cluster of this profile is running"):
            rc = second.start_and_connect_sync()
        assert second.cluster_id not in before
        assert len(rc.ids) == 1
        second.stop_cluster_sync()
    assert processes_of(profile), "the kernel has ended, its cluster has not"
    with pytest.warns(UserWarning, match="has 2 engines, not 1"):
        last = er.Cluster(n=1, profile_dir=profile).start_cluster_sync()
    assert last.keep
    assert last.cluster_id in before
    last.stop_cluster_sync()
    wait_until(lambda: not processes_of(profile))
    assert list((profile / "security").glob("*.json")) == []


def test_leaving_a_with_only_disconnects_and_more_engines_are_added(profile: Path):
    with er.Cluster(n=1, profile_dir=profile, keep=True) as rc:
        id = rc.cluster.cluster_id
    assert rc.closed
    try:
        with er.Cluster(n=2, profile_dir=profile) as again:
            assert again.cluster.cluster_id == id
            again.wait_for_engines(2, timeout=60)
            assert again[:].apply_sync(abs, -1) == [1, 1]
    finally:
        er.Cluster.from_file(profile_dir=profile, cluster_id=id).stop_cluster_sync()
    wait_until(lambda: not processes_of(profile))


def test_a_kept_cluster_that_has_died_is_left_alone(profile: Path):
    kept = er.Cluster(n=1, profile_dir=profile, keep=True).start_cluster_sync()
    text = kept.cluster_file.read_text()
    kept.stop_cluster_sync()
    kept.cluster_file.write_text(text)
    with er.Cluster(n=1, profile_dir=profile) as rc:
        assert rc.cluster.cluster_id != kept.cluster_id
        assert not rc.cluster.keep
    kept.cluster_file.write_text("nonsense")
    assert er.Cluster(profile_dir=profile).cluster_id != kept.cluster_id
