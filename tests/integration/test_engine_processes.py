"""Engines as processes: their cores, threads, input, children and end."""

from __future__ import annotations

from engineroom.cores import usable_cores

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def threads_of(names):
    import os

    return [os.environ.get(name) for name in names]


def test_engines_share_the_cores_for_numerical_libraries(fresh_cluster, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    rc = fresh_cluster(n=2, database="none")
    share = str(max(1, usable_cores() // 2))
    assert rc[:].apply_sync(threads_of, VARIABLES) == [[share] * 3] * 2


def test_threads_can_be_chosen(fresh_cluster, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    rc = fresh_cluster(n=1, database="none", engine_args=["--threads=3"])
    assert rc[0].apply_sync(threads_of, VARIABLES) == ["3", "3", "3"]
    rc = fresh_cluster(n=1, database="none")
    assert rc[0].apply_sync(threads_of, VARIABLES[:2]) == ["5", None]
