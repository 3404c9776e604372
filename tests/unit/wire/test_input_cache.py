"""Results as arguments: what engine and controller agree to keep, and how values get into a call."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engineroom.wire import payload
from engineroom.wire.input_cache import InputCache, ResultOf, providing, value_of

NIGHTLY = bool(os.environ.get("ENGINEROOM_NIGHTLY"))

IDS = [f"t{number}" for number in range(8)]
#: a result's size never changes
SIZES = {id: 7 * number + 1 for number, id in enumerate(IDS)}

batches = st.lists(st.one_of(st.none(), st.lists(st.sampled_from(IDS), max_size=6)), max_size=30)


@settings(max_examples=20_000 if NIGHTLY else 300, deadline=None)
@given(batches, st.integers(0, 120))
def test_two_mirrors_fed_the_same_agree(messages: list[list[str] | None], limit: int):
    ours: InputCache[None] = InputCache(limit)
    theirs: InputCache[str] = InputCache(limit)
    for ids in messages:
        if ids is None:  # a Welcome
            ours.clear()
            theirs.clear()
            continue
        sent = ours.missing(ids)
        assert sent == [id for id in dict.fromkeys(ids) if id not in theirs]
        ours.use(ids, {id: (SIZES[id], None) for id in sent})
        found = theirs.use(ids, {id: (SIZES[id], f"value of {id}") for id in sent})
        assert found == {id: f"value of {id}" for id in ids}
        assert list(ours) == list(theirs)
        assert ours.bytes == theirs.bytes == sum(SIZES[id] for id in ours) <= limit


def test_what_was_used_longest_ago_goes_first():
    cache: InputCache[str] = InputCache(limit=10)
    new = {id: (4, id) for id in "abc"}
    cache.use("ab", new)
    cache.use("a", {})
    assert cache.use("c", new) == {"c": "c"}
    assert list(cache) == ["a", "c"]
    assert cache.missing("bac") == ["b"]


def test_a_value_beyond_the_limit_is_used_and_not_kept():
    cache: InputCache[str] = InputCache(limit=10)
    assert cache.use("a", {"a": (11, "huge")}) == {"a": "huge"}
    assert list(cache) == []
    assert cache.bytes == 0


def test_a_value_that_nobody_sent_is_not_found():
    assert InputCache().use("ab", {"a": (1, 1)}) == {"a": 1}


def unpickled(argument: Any, **results: Any) -> Any:
    with providing({id: payload.dumps(value) for id, value in results.items()}):
        return pickle.loads(pickle.dumps(argument))


def test_one_result_or_a_list_of_several():
    assert unpickled(ResultOf(("a",), True), a={"x": 1}) == {"x": 1}
    assert unpickled(ResultOf(("a", "b"), False), a=1, b=[2]) == [1, [2]]
    assert unpickled(ResultOf((), False)) == []


def test_it_may_be_anywhere_in_the_arguments():
    assert unpickled({"deep": [ResultOf(("a",), True)]}, a=5) == {"deep": [5]}


@pytest.mark.parametrize("size", [4, 5_000, 200_000])
def test_each_task_gets_a_value_of_its_own(size: int):
    results = {"a": payload.dumps(np.arange(size))}
    for _ in range(2):
        with providing(results):
            mine = value_of(("a",), True)
        assert (mine == np.arange(size)).all()
        mine[:] = 0  # what the next one gets is not touched


def test_a_long_stream_beside_the_message():
    text = "x" * (payload.INLINE + 1)
    stream, frames = payload.dumps([text, b"y" * payload.INLINE])
    assert frames
    assert unpickled(ResultOf(("a",), True), a=[text]) == [text]
    with providing({"a": (stream, frames)}):
        assert value_of(("a",), True) == [text, b"y" * payload.INLINE]


def test_a_value_that_has_not_come_is_named():
    with pytest.raises(LookupError, match="result of task b, an argument of this task, cannot be had"):
        unpickled([ResultOf(("a",), True), ResultOf(("b",), True)], a=1)
    with pytest.raises(LookupError, match="on the engine"):
        pickle.loads(pickle.dumps(ResultOf(("a",), True)))
