"""joblib's calls on a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import engineroom as ipp

joblib = pytest.importorskip("joblib")


@pytest.fixture
def rc(cluster: ipp.Cluster) -> Iterator[ipp.Client]:
    with cluster.connect_client_sync() as client:
        client.wait_for_engines(2, timeout=30)
        yield client


def square(x: int) -> int:
    return x * x


def test_calls_run_on_the_engines(rc: ipp.Client):
    view = rc.load_balanced_view()
    view.register_joblib_backend("engines")
    pids = set(rc[:].apply_sync(os.getpid))
    with joblib.parallel_backend("engines"):
        assert joblib.Parallel()(joblib.delayed(square)(x) for x in range(200)) == [x * x for x in range(200)]
        assert set(joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(20))) <= pids
    assert view.history, "they are tasks of the view, with records"
    with joblib.parallel_config("engines", n_jobs=1):
        assert joblib.Parallel()(joblib.delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_results_can_be_taken_as_they_come(rc: ipp.Client):
    rc.load_balanced_view().register_joblib_backend("engines")
    with joblib.parallel_backend("engines"):
        found = joblib.Parallel(return_as="generator")(joblib.delayed(square)(x) for x in range(5))
        assert list(found) == [0, 1, 4, 9, 16]


def test_an_error_is_raised_and_the_rest_is_given_up(rc: ipp.Client):
    rc.load_balanced_view().register_joblib_backend("engines")
    with joblib.parallel_backend("engines"), pytest.raises(ZeroDivisionError):
        joblib.Parallel()(joblib.delayed(divmod)(1, x) for x in (1, 0, 2))


def test_parallel_inside_a_task_runs_in_its_process(rc: ipp.Client):
    def inner(n: int) -> list[int]:
        import joblib

        return joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-x) for x in range(n))

    rc.load_balanced_view().register_joblib_backend("engines")
    with joblib.parallel_backend("engines"):
        assert joblib.Parallel()(joblib.delayed(inner)(n) for n in (1, 3)) == [[0], [0, 1, 2]]


def test_the_backend_finds_the_cluster_by_itself(cluster: ipp.Cluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IPP_PROFILE_DIR", str(cluster.profile_dir))
    monkeypatch.setenv("IPP_CLUSTER_ID", cluster.cluster_id)
    ipp.register_joblib_backend()
    with joblib.parallel_backend("ipyparallel") as (backend, _):
        assert joblib.Parallel()(joblib.delayed(square)(x) for x in range(4)) == [0, 1, 4, 9]
        backend._view.client.close()
