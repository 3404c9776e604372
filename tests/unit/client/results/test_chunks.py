"""How a growing map is cut into tasks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engineroom.client.results.chunks import AHEAD, CHUNK_SECONDS, GROWTH, SAMPLE, ChunkPlan


def sizes(chunks: list[tuple[int, int]]) -> list[int]:
    return [end - begin for begin, end in chunks]


def test_it_begins_with_single_items():
    plan = ChunkPlan(10_000, 2)
    assert plan.room(0) == SAMPLE * 2
    assert sizes(plan.cut(plan.room(0))) == [1] * (SAMPLE * 2)
    assert not plan.complete


def test_a_chunk_takes_about_as_long_as_it_should_and_grows_step_by_step():
    plan = ChunkPlan(1_000_000, 2)
    plan.next = 8
    plan.measured(0.001, 1)
    assert sizes(plan.cut(1)) == [GROWTH]
    assert sizes(plan.cut(1)) == [GROWTH**2]
    assert sizes(plan.cut(1)) == [int(CHUNK_SECONDS / 0.001)]


def test_slow_items_stay_alone():
    plan = ChunkPlan(10_000, 2)
    plan.measured(5.0, 1)
    assert sizes(plan.cut(3)) == [1, 1, 1]


def test_nothing_is_cut_off_until_the_caller_moves_on():
    plan = ChunkPlan(10, 1)
    assert plan.cut(1) == plan.cut(1) == [(0, 1)]
    plan.next = 10
    assert plan.complete
    assert plan.cut(1) == plan.cut(None) == []


def test_room_is_what_may_be_out_at_a_time():
    plan = ChunkPlan(10_000, 3)
    plan.next = 1
    assert plan.room(AHEAD * 3) == 0
    assert plan.room(AHEAD * 3 - 2) == 2


@given(st.integers(1, 500), st.integers(0, 9), st.floats(1e-9, 10), st.one_of(st.none(), st.integers(1, 50)))
def test_chunks_cover_the_items_in_order_and_once(total, engines, seconds, most):
    plan, covered = ChunkPlan(total, engines), 0
    while not plan.complete:
        chunks = plan.cut(most)
        assert chunks
        assert most is None or len(chunks) <= most
        for begin, end in chunks:
            assert begin == covered < end <= total
            covered = end
        plan.next = covered
        plan.measured(seconds, 1)
    assert covered == total
