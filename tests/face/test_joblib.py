"""joblib's calls on a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import engineroom as ipp

joblib = pytest.importorskip("joblib")
numpy = pytest.importorskip("numpy")


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


def test_calls_run_on_the_engines_however_the_backend_is_chosen(rc: ipp.Client):
    rc.load_balanced_view().register_joblib_backend("engines")
    pids = set(rc[:].apply_sync(os.getpid))
    with joblib.parallel_config("engines"):
        assert set(joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(4))) <= pids
    assert set(joblib.Parallel(backend="engines")(joblib.delayed(os.getpid)() for _ in range(4))) <= pids


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


def test_the_backend_has_our_name_too(rc: ipp.Client, monkeypatch: pytest.MonkeyPatch):
    ipp.register_joblib_backend()
    with joblib.parallel_backend("engineroom", view=rc.load_balanced_view()):
        assert joblib.Parallel()(joblib.delayed(square)(x) for x in range(5)) == [0, 1, 4, 9, 16]
    with joblib.parallel_config("engineroom", view=rc.load_balanced_view(), n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(square)(x) for x in range(5)) == [0, 1, 4, 9, 16]


def kind_of(array, number):
    """Whether an array is a map of a file, whether it can be written, and an item."""
    base = array
    while getattr(base, "base", None) is not None:
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    return type(base).__name__, bool(array.flags.writeable), float(array[number])


def test_large_arrays_are_written_once_and_mapped_by_all(rc: ipp.Client, tmp_path):
    rc.load_balanced_view().register_joblib_backend("engines")
    large, small = numpy.arange(200_000.0), numpy.arange(10.0)
    with joblib.parallel_backend("engines"):
        calls = [joblib.delayed(kind_of)(large, number) for number in range(50)]
        found = joblib.Parallel(temp_folder=str(tmp_path))(calls)
        kinds, writeable, values = zip(*found, strict=True)
        assert (set(kinds), set(writeable)) == ({"mmap"}, {False})
        assert list(values) == list(range(50))
        assert list(tmp_path.iterdir()) == [], "the file is removed"
        assert joblib.Parallel()([joblib.delayed(kind_of)(array=small, number=1)]) == [("bytearray", True, 1.0)]
        [(_, can_write, _)] = joblib.Parallel(max_nbytes=None)([joblib.delayed(kind_of)(large, 0)])
        assert can_write, "a copy of its own"
        [(_, can_write, _)] = joblib.Parallel(mmap_mode="c")([joblib.delayed(kind_of)(large, 0)])
        assert can_write
        with pytest.raises(IndexError):
            joblib.Parallel(temp_folder=str(tmp_path))([joblib.delayed(kind_of)(large, -1_000_000)])
        assert list(tmp_path.iterdir()) == []


def test_a_grid_search_of_scikit_learn_runs_on_the_engines(rc: ipp.Client):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: grid search is not tested")
    from sklearn.datasets import make_classification
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeClassifier

    data, classes = make_classification(300, 10, random_state=0)
    grid = {"max_depth": [1, 2, 4], "min_samples_leaf": [1, 5]}
    here = GridSearchCV(DecisionTreeClassifier(random_state=0), grid, cv=3).fit(data, classes)
    view = rc.load_balanced_view(label="search")
    view.register_joblib_backend("engines")
    with joblib.parallel_backend("engines"):
        there = GridSearchCV(DecisionTreeClassifier(random_state=0), grid, cv=3, n_jobs=-1).fit(data, classes)
    assert there.best_params_ == here.best_params_
    assert there.cv_results_["mean_test_score"].tolist() == here.cv_results_["mean_test_score"].tolist()
    assert rc.db_count({"label": "search", "msg_id": {"$in": list(view.history)}}) >= 1
