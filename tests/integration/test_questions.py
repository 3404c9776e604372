"""More than matching: pages, groups, distinct values and frames, asked by a client."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

import engineroom as er


@pytest.fixture
def asked(any_rc: er.Client) -> Iterator[er.Client]:
    """A client with twelve finished tasks of label "asked"."""
    view = any_rc.load_balanced_view(label="asked", metadata={"parity": ["even", "odd"]})
    any_rc.wait([view.apply_async(math.sqrt, n) for n in (*range(11), -1)])
    yield any_rc
    any_rc.purge_results(query=MINE)


MINE = {"label": "asked"}


def test_records_come_in_pages(asked: er.Client) -> None:
    expected = [record["msg_id"] for record in asked.db_query(MINE)]
    for batch in (1, 5, 6, 1000):
        assert [record["msg_id"] for record in asked.db_iter(MINE, "state", batch=batch)] == expected
    with pytest.raises(er.QueryError, match="1 or more"):
        next(asked.db_iter(MINE, batch=0))
    with pytest.raises(er.QueryError, match="did you mean 'label'"):
        next(asked.db_iter({"lable": "x"}))


def test_values_and_groups(asked: er.Client) -> None:
    assert asked.db_distinct("state", MINE) == ["completed", "failed"]
    assert {"even", "odd"} <= set(asked.db_distinct("metadata.parity"))
    groups = asked.db_group("state", MINE, values="duration", percentiles=[0, 50, 100])
    assert [(group["key"], group["values"] <= group["count"]) for group in groups] == [
        ("completed", True),
        ("failed", True),
    ]
    assert groups[0]["min"] == groups[0]["p0"] <= groups[0]["p50"] <= groups[0]["p100"] == groups[0]["max"]
    with pytest.raises(er.QueryError, match="from 0 to 100"):
        asked.db_group("state", MINE, values="duration", percentiles=[101])


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_answers_as_frames(asked: er.Client, kind: str) -> None:
    pytest.importorskip(kind)
    frame = asked.db_query(MINE, ["submitted", "state", "duration", "metadata"], as_frame=kind)
    assert list(frame.columns) == ["msg_id", "state", "metadata", "metadata.parity", "submitted", "duration"]
    assert len(frame) == 12
    assert isinstance(frame["submitted"][0], datetime)
    assert set(frame["state"]) == {"completed", "failed"}
    assert list(asked.db_query({"label": "nobody's"}, "state", as_frame=kind).columns) == ["msg_id", "state"]
    assert list(asked.db_group("label", as_frame=kind).columns) == ["key", "count"]


def test_what_is_missing_for_a_frame_is_said(any_rc: er.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="'pandas' or 'polars'"):
        any_rc.db_query({}, as_frame="excel")
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match=r"engineroom\[frames\]"):
        any_rc.db_query({}, as_frame="polars")


def test_a_query_that_takes_too_long_is_given_up(fresh_cluster: Callable[..., er.Client]) -> None:
    rc = fresh_cluster(n=1, controller_args=["--IPController.query_seconds=0.3"])
    rc[:].apply_sync(print, "a" * 5000)
    with pytest.raises(er.QueryError, match=r"given up after 0\.3 s"):
        rc.db_query({"stdout": {"$regex": "(a|aa)+$b"}})
    assert rc[:].apply_sync(abs, -1) == [1]


def test_a_question_after_a_cached_call_finds_its_task(any_rc: er.Client) -> None:
    view = any_rc.load_balanced_view(cache=True)
    for n in range(20):
        result = view.apply_async(math.factorial, n)
        assert set(any_rc.result_status(result.msg_ids)) == {"pending", "completed"}
        if any_rc._channel.keeps:
            assert any_rc.pin(result.msg_ids) == 1
            any_rc.unpin(result.msg_ids)
        assert result.get(60) == math.factorial(n)
