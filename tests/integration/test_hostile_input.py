"""What a user may do by mistake harms nothing but the call itself."""

from __future__ import annotations

import functools
import json
import re
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
        assert lb.apply_async(abs, -1).get(60) == 1


@pytest.mark.parametrize("metadata", [{1: 2}, {"x": object()}, {"x": 10**30}, {"x": "\udc80"}, {"x": 1j}])
def test_metadata_that_cannot_be_kept_is_refused_in_the_call(lb: er.LoadBalancedView, metadata: Any):
    with lb.temp_flags(metadata=metadata), pytest.raises(er.ConfigError, match="metadata"):
        lb.apply_async(abs, -1)
    assert lb.apply_async(abs, -1).get(60) == 1


@pytest.mark.parametrize(
    "query",
    [
        {"engine_id": 10**30},
        {"label": "\udc80"},
        {"state": "done"},
        {"submitted": {"$gt": "-2h"}},
        {"submitted": {"$gt": datetime.min}},
        {"completed": True},
        {"engine_id": "0"},
        {"duration": {"$in": [1.5, "2"]}},
        {"$or": [{"label": 5}]},
        {"msg_id": b"x"},
        {"label": {"$in": [re.compile("x"), "y"]}},
        functools.reduce(lambda query, _: {"$and": [query]}, range(200), {}),
    ],
)
def test_queries_that_could_only_be_slips(rc: er.Client, query: Any):
    with pytest.raises(er.QueryError) as caught:
        rc.db_count(query)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("window", [{"limit": 10**30}, {"skip": 2**63}, {"limit": -1}, {"skip": 1.5}])
def test_windows_beyond_counting(rc: er.Client, window: Any):
    with pytest.raises(er.QueryError):
        rc.db_query({}, **window)


@pytest.mark.parametrize(
    "options",
    [
        {"sort": ["label"]},
        {"sort": ("label", -1)},
        {"sort": {"label": 1}},
        {"sort": 5},
        {"sort": [("label", "down")]},
        {"sort": [(1, 1)]},
        {"sort": ""},
        {"keys": [1]},
        {"keys": b"label"},
        {"keys": 5},
    ],
)
def test_what_else_a_question_cannot_take(rc: er.Client, options: Any):
    """Each of these once ended the client's session, and with it all that it waited for."""
    with pytest.raises(er.QueryError):
        rc.db_query({}, **options)
    assert isinstance(rc.db_count({}), int)


def test_groups_of_what_is_no_key(rc: er.Client):
    for call in (
        lambda: rc.db_distinct(5),  # type: ignore[arg-type]
        lambda: rc.db_group(None),  # type: ignore[arg-type]
        lambda: rc.db_group("state", values=1),  # type: ignore[arg-type]
        lambda: rc.db_group("state", values="duration", percentiles="50"),  # type: ignore[arg-type]
        lambda: rc.db_group("state", values="duration", percentiles=[None]),  # type: ignore[list-item]
        lambda: rc.db_group("state", query=0),  # type: ignore[arg-type]
    ):
        with pytest.raises(er.QueryError):
            call()
    assert isinstance(rc.db_count({}), int)


@pytest.mark.parametrize("label", [5, b"x", "\udc80", ["a"]])
def test_labels_that_are_no_text_are_refused_in_the_call(rc: er.Client, lb: er.LoadBalancedView, label: Any):
    done = lb.apply_async(abs, -1)
    done.get(60)
    for call in (
        lambda: lb.map_async(abs, [1], label=label),
        lambda: rc[:].map_async(abs, [1], label=label),
        lambda: rc[:].execute("1", label=label),
        lambda: rc.resubmit(done, label=label),
    ):
        with pytest.raises(er.ConfigError, match="label"):
            call()
    assert lb.apply_async(abs, -1).get(60) == 1


def test_options_of_the_wrong_type_end_nothing_but_the_call(rc: er.Client, lb: er.LoadBalancedView):
    done = lb.apply_async(abs, -1)
    assert done.get(60) == 1
    for options in ({"retries": "2"}, {"retries": -1}, {"metadata": 5}):
        with pytest.raises(er.ConfigError):
            rc.resubmit(done, **options)
    assert rc[:].execute("1", silent=1).get(60)  # type: ignore[arg-type]
    assert rc.queue_status(verbose=1)["unassigned"] == []  # type: ignore[arg-type]
    with pytest.raises(er.errors.SerializationError):
        rc._channel.ask(er.messages.DistinctValues(5, {}))  # type: ignore[arg-type]
    assert lb.apply_async(abs, -1).get(60) == 1


def test_tasks_are_named_by_any_collection(rc: er.Client, lb: er.LoadBalancedView):
    results = [lb.apply_async(abs, -n) for n in (1, 2)]
    assert rc.get_result(result.msg_ids[0] for result in results).get(60) == [1, 2]
    assert rc.get_result(iter(results[:1])).get(60) == [1]
    with pytest.raises(TypeError, match="named by"):
        rc.get_result(b"\x00")


def test_what_takes_one_task_says_so(rc: er.Client, lb: er.LoadBalancedView):
    results = [lb.apply_async(abs, -n) for n in (1, 2)]
    rc.wait(results)
    for call in (rc.provenance, rc.replay):
        with pytest.raises(ValueError, match="one task, not 2"):
            call(results)
        with pytest.raises(ValueError, match="one task, not 0"):
            call([])


def test_exports_that_make_no_sense(rc: er.Client, lb: er.LoadBalancedView, tmp_path: Any):
    lb.apply_async(abs, -1).get(60)
    assert rc.export(tmp_path / "a.jsonl", keys=[]).count > 0
    assert list(json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])) == ["msg_id"]
    with pytest.raises(er.ConfigError, match="no format"):
        rc.export(tmp_path / "a.jsonl", format=["csv"])  # type: ignore[arg-type]


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
    result.get(60)
    assert "heard" in result.stderr


@pytest.mark.fault(35)
def test_processes_forked_by_a_task_end_when_told_to(lb: er.LoadBalancedView):
    for _ in range(20):
        assert lb.apply_async(pool).get(60) == [1, 2]


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
