"""What a user may do by mistake harms nothing but the call itself."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Any

import numpy as np
import pytest

import engineroom as er


@functools.lru_cache(maxsize=8)
def cached(x: int) -> int:
    return x + 1


def stops_at_one(x: int) -> int:
    if x == 1:
        raise StopIteration
    return x


def logs() -> None:
    import logging

    logging.getLogger("library").error("heard")


def pool() -> list[int]:
    import multiprocessing

    with multiprocessing.Pool(2) as workers:
        return workers.map(abs, [-1, -2])


@pytest.mark.parametrize("value", [np.float64(1.5), np.int64(3), np.bool_(True), np.str_("x"), (1, 2), {3}])
def test_metadata_takes_what_can_be_kept(lb: er.LoadBalancedView, value: Any):
    with lb.temp_flags(metadata={"value": value}):
        assert lb.apply_async(abs, -1).get(10) == 1


@pytest.mark.parametrize("metadata", [{1: 2}, {"x": object()}, {"x": 10**30}, {"x": "\udc80"}, {"x": 1j}])
def test_metadata_that_cannot_be_kept_is_refused_in_the_call(lb: er.LoadBalancedView, metadata: Any):
    with lb.temp_flags(metadata=metadata), pytest.raises(er.ConfigError, match="metadata"):
        lb.apply_async(abs, -1)
    assert lb.apply_async(abs, -1).get(10) == 1


@pytest.mark.parametrize(
    "query",
    [
        {"engine_id": 10**30},
        {"label": "\udc80"},
        {"state": "done"},
        {"submitted": {"$gt": "-2h"}},
        {"submitted": {"$gt": datetime.min}},
    ],
)
def test_queries_that_could_only_be_slips(rc: er.Client, query: Any):
    with pytest.raises(er.QueryError):
        rc.db_count(query)


@pytest.mark.parametrize("window", [{"limit": 10**30}, {"skip": 2**63}, {"limit": -1}, {"skip": 1.5}])
def test_windows_beyond_counting(rc: er.Client, window: Any):
    with pytest.raises(er.QueryError):
        rc.db_query({}, **window)


def test_a_query_of_thousands_of_alternatives(rc: er.Client):
    assert rc.db_count({"$or": [{"label": str(i)} for i in range(3000)]}) == 0


@pytest.mark.parametrize("number", [0, 999, -1, 2**70])
def test_signals_that_do_not_exist_reach_nobody(rc: er.Client, number: int):
    with pytest.raises(ValueError, match="there is no signal"):
        rc.send_signal(number)
    assert rc[:].apply_sync(abs, -1) == [1, 1]


def test_stopiteration_is_an_error_of_the_function(rc: er.Client, lb: er.LoadBalancedView):
    for view in (lb, rc[:]):
        with pytest.raises(er.RemoteError, match="StopIteration"):
            view.map_sync(stops_at_one, range(5))


def test_what_a_task_logs_is_its_output(lb: er.LoadBalancedView):
    result = lb.apply_async(logs)
    result.get(10)
    assert "heard" in result.stderr


def test_processes_forked_by_a_task_end_when_told_to(lb: er.LoadBalancedView):
    for _ in range(20):
        assert lb.apply_async(pool).get(30) == [1, 2]


def test_numpys_integers_count(rc: er.Client, lb: er.LoadBalancedView):
    assert rc[np.int64(0)].apply_sync(abs, -2) == 2
    assert lb.map_sync(abs, [-1, -2], chunksize=np.int64(2)) == [1, 2]
    with lb.temp_flags(retries=np.int64(1)):
        assert lb.apply_sync(abs, -3) == 3


def test_targets_that_name_nobody(rc: er.Client):
    with pytest.raises(er.ConfigError, match="no engine"):
        rc.load_balanced_view(targets=[])


def test_a_cached_function_of_a_script(typed, lb: er.LoadBalancedView):
    scripted = typed("import functools\n@functools.lru_cache(maxsize=4)\ndef f(x):\n    return x + 1")
    assert lb.apply_sync(cached, 1) == 2
    assert lb.apply_sync(scripted, 1) == 2


def test_an_async_function_says_how_to_run_it(lb: er.LoadBalancedView):
    async def later() -> int:
        return 1

    with pytest.raises(er.RemoteError, match=r"asyncio\.run"):
        lb.apply_sync(later)
