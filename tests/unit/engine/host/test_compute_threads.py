"""How many threads the numerical libraries of an engine start."""

from __future__ import annotations

import os
import sys
import types

import pytest

from engineroom.engine.host import compute_threads
from engineroom.engine.host.compute_threads import VARIABLES, limit, share_of_cores, variables


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(compute_threads, "usable_cores", lambda: 8)
    yield
    for name in VARIABLES:
        os.environ.pop(name, None)


def found() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def test_engines_share_the_cores():
    assert [share_of_cores(engines) for engines in (1, 2, 3, 8, 9, 0)] == [8, 4, 2, 1, 1, 8]


def test_every_library_gets_the_share():
    limit(None, 4)
    assert found() == dict.fromkeys(VARIABLES, "2")


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    monkeypatch.setenv("POLARS_MAX_THREADS", "6")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "")
    limit(None, 4)
    assert (os.environ["MKL_NUM_THREADS"], os.environ["POLARS_MAX_THREADS"]) == ("5", "6")
    assert (os.environ["OMP_NUM_THREADS"], os.environ["NUMBA_NUM_THREADS"]) == ("2", "2")


def test_libraries_that_follow_openmp_keep_to_the_users_number():
    chosen = variables(1, {"OMP_NUM_THREADS": "4"}, override=False)
    assert "OPENBLAS_NUM_THREADS" not in chosen
    assert "MKL_NUM_THREADS" not in chosen
    assert chosen["POLARS_MAX_THREADS"] == "1"


def test_a_setting_comes_before_the_environment_and_zero_changes_nothing(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    limit(0, 4)
    assert found() == {"OMP_NUM_THREADS": "4"}
    limit(3, 4)
    assert found() == dict.fromkeys(VARIABLES, "3")


def test_a_library_that_is_loaded_already_is_limited_too(monkeypatch):
    limits = []
    monkeypatch.setitem(sys.modules, "numpy", types.ModuleType("numpy"))
    fake = types.ModuleType("threadpoolctl")
    fake.threadpool_limits = limits.append
    monkeypatch.setitem(sys.modules, "threadpoolctl", fake)
    limit(None, 4)
    assert limits == [2]
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)  # not installed
    limit(None, 4)
    assert limits == [2]
