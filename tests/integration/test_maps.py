"""Maps: what one item does to the others, and the shape of a result, whoever fetches it."""

from __future__ import annotations

import itertools
import operator
import os
import threading
import time

import numpy as np
import pytest
from conftest import wait_until

import engineroom as er
from engineroom.client.results.map_result import GrowingMapResult


def fails_at(*bad):
    def call(x):
        if x in bad:
            raise ValueError(f"no {x}")
        return -x

    return call


def kinds(values):
    return [getattr(value, "evalue", value) for value in values]


# ------------------------------------------------------------------------------------------ one item that fails


def test_an_endless_iterator_may_be_beside_other_items(lb, rc):
    for view in (lb, rc[:]):
        assert view.map_sync(pow, [2, 3, 4], itertools.repeat(2)) == [4, 9, 16]
        assert view.map_sync(pow, itertools.count(), (n for n in (1, 2))) == [0, 1]
        with pytest.raises(ValueError, match="endless"):
            view.map_sync(abs, itertools.count())


@pytest.mark.parametrize("how", [{}, {"chunksize": 7}, {"chunksize": 4000}])
def test_an_error_takes_the_place_of_its_item_alone(lb, how):
    result = lb.map_async(fails_at(700), range(3000), **how)
    values = result.get(60, return_exceptions=True)
    assert kinds(values[699:702]) == [-699, "no 700", -701]
    assert values[:700] + values[701:] == [-x for x in range(3000) if x != 700]
    with pytest.raises(er.RemoteError, match="no 700") as caught:
        result.get(1)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, er.CompositeError), "programs written for ipyparallel catch this"
    assert not result.successful()


def test_the_flag_of_the_map_does_the_same(lb, rc):
    for view in (lb, rc[:]):
        values = view.map_sync(fails_at(5), range(3000), return_exceptions=True)
        assert len(values) == 3000
        assert kinds(values[4:7]) == [-4, "no 5", -6]


def test_several_errors_are_raised_together_in_the_order_of_the_items(lb):
    result = lb.map_async(fails_at(11, 3, 25), range(30), chunksize=10)
    with pytest.raises(er.CompositeError) as caught:
        result.get(60)
    assert [evalue for _, evalue, _, _ in caught.value.elist] == ["no 3", "no 11", "no 25"]


@pytest.mark.parametrize("dist", ["b", "r"])
def test_a_direct_map_keeps_the_good_items(rc, dist):
    result = rc[:].map_async(fails_at(2, 7), range(9), dist=dist)
    assert kinds(result.get(30, return_exceptions=True)) == [0, -1, "no 2", -3, -4, -5, -6, "no 7", -8]
    with pytest.raises(er.CompositeError):
        result.get(1)


def test_iterating_raises_in_the_place_of_the_item_and_goes_on(lb, rc):
    for result in (
        lb.map_async(fails_at(3), range(6), chunksize=4),
        lb.map_async(fails_at(3), range(6)),
        rc[:].map_async(fails_at(3), range(6), dist="r"),
    ):
        for _ in range(2):  # before and after `get`
            seen, items = [], iter(result)
            while True:
                try:
                    seen.append(next(items))
                except er.RemoteError as error:
                    seen.append(error.evalue)
                except StopIteration:
                    break
            assert seen == [0, -1, -2, "no 3", -4, -5]
            result.get(10, return_exceptions=True)


def test_unordered_items_and_those_of_imap_go_on_too(lb):
    def all_of(items):
        while True:
            try:
                yield next(items)
            except er.RemoteError as error:
                yield error.evalue
            except StopIteration:
                return

    unordered = lb.map_async(fails_at(3), range(6), chunksize=2, ordered=False)
    assert sorted(map(str, all_of(iter(unordered)))) == sorted(["0", "-1", "-2", "no 3", "-4", "-5"])
    assert list(all_of(lb.imap(fails_at(3), range(6)))) == [0, -1, -2, "no 3", -4, -5]


def test_the_parts_of_a_map_keep_theirs(lb, rc):
    first, second = lb.map_async(fails_at(3), range(6), chunksize=3).split()
    assert first.get(60) == [0, -1, -2]
    assert kinds(second.get(30, return_exceptions=True)) == ["no 3", -4, -5]
    with pytest.raises(er.RemoteError, match="no 3"):
        second.get(1)
    assert rc[:].map_async(abs, range(4)).get_dict(10) == {0: [0, 1], 1: [2, 3]}


def test_the_record_of_a_chunk_has_its_first_error_and_how_many_there_were(rc, lb):
    result = lb.map_async(fails_at(3, 4), range(6), chunksize=6)
    result.wait(60)
    [id] = result.msg_ids
    [record] = rc.db_query({"msg_id": id, "state": "failed"}, ["result_content"])
    assert record["result_content"]["ename"] == "ValueError"
    assert record["result_content"]["evalue"] == "no 3 (item 3 of this task; 2 of its 6 items failed)"
    assert "no 3" in record["result_content"]["traceback"]


def test_a_value_that_cannot_be_pickled_is_an_error_of_its_item(lb):
    def returns(x):
        import threading

        return threading.Lock() if x == 1 else x

    zero, bad, two = lb.map_async(returns, range(3), chunksize=3).get(30, return_exceptions=True)
    assert (zero, two) == (0, 2)
    assert "cannot be pickled" in str(bad)


def test_retries_run_a_chunk_again(rc, tmp_path):
    def once(x, folder):
        import pathlib

        if x == 1 and not pathlib.Path(folder, "again").exists():
            pathlib.Path(folder, "again").touch()
            raise ValueError("the first time")
        return x

    view = rc.load_balanced_view(retries=1)
    assert view.map_async(once, range(3), [str(tmp_path)] * 3, chunksize=3).get(60) == [0, 1, 2]


def test_a_cancelled_chunk_is_the_error_of_all_its_items(lb):
    def sleeps(x):
        time.sleep(60)

    result = lb.map_async(sleeps, range(3), chunksize=3)
    result.cancel()
    values = result.get(30, return_exceptions=True)
    assert [type(value) for value in values] == [er.TaskAborted] * 3


def test_a_dead_engine_is_the_error_of_all_items_of_its_chunk(lb):
    def dies(x):
        os._exit(3)

    values = lb.map_async(dies, range(3), chunksize=3).get(60, return_exceptions=True)
    assert [type(value) for value in values] == [er.EngineError] * 3


def test_an_item_that_exits_is_an_error_of_the_item(lb):
    def exits(x):
        if x == 1:
            raise SystemExit(3)
        return x

    zero, bad, two = lb.map_async(exits, range(3), chunksize=3).get(30, return_exceptions=True)
    assert (zero, bad.ename, two) == (0, "SystemExit", 2)


# ------------------------------------------------------------------------------------------ fetched again


def fetched_as(rc, result):
    """What every other way of fetching the tasks gives."""
    yield rc.get_result(result.msg_ids).get(60)
    yield rc.get_result(result.msg_ids, owner=False).get(60)
    yield rc.get_result(result).get(60)
    yield list(rc.get_result(result.msg_ids))
    yield er.AsyncResult.join(result).get(60)


def test_a_map_fetched_again_is_as_it_was(rc, lb):
    for result in (
        lb.map_async(abs, range(-5, 0)),
        lb.map_async(abs, range(-5, 0), chunksize=2),
        lb.map_async(operator.add, range(5), range(5)),
        rc[:].map_async(abs, range(-5, 0)),
        rc[:].map_async(abs, range(-5, 0), dist="r"),
        rc[:].map_async(lambda x: [x] * 1000, range(6)),
    ):
        first = result.get(60)
        for again in fetched_as(rc, result):
            assert again == first


def test_a_long_map_fetched_again_is_as_it_was(rc, lb):
    result = lb.map_async(abs, range(-3000, 0))
    first = result.get(60)
    assert first == [abs(x) for x in range(-3000, 0)]
    assert rc.get_result(result.msg_ids).get(60) == first


def test_errors_stand_where_they_stood(rc, lb):
    result = lb.map_async(fails_at(3), range(6), chunksize=4)
    first = kinds(result.get(30, return_exceptions=True))
    assert kinds(rc.get_result(result.msg_ids).get(30, return_exceptions=True)) == first
    with pytest.raises(er.RemoteError, match="no 3"):
        rc.get_result(result.msg_ids).get(60)


def test_a_resubmitted_map_has_its_shape(rc, lb):
    result = lb.map_async(abs, range(-5, 0), chunksize=2)
    result.wait(60)
    assert rc.resubmit(result.msg_ids).get(60) == [5, 4, 3, 2, 1]


def test_gathered_and_parallel_arrays_are_whole(rc, lb):
    view = rc[:]
    for dist in ("b", "r"):
        view.scatter("part", np.arange(7), dist=dist, block=True)
        gathered = view.gather("part", dist=dist, block=False)
        assert gathered.get(60).tolist() == list(range(7))
        assert rc.get_result(gathered.msg_ids).get(60).tolist() == list(range(7))
        for caller in (view, lb):
            double = caller.parallel(dist=dist, block=False)(lambda part: part * 2)
            result = double(np.arange(7))
            assert result.get(60).tolist() == list(range(0, 14, 2))
            assert rc.get_result(result.msg_ids).get(60).tolist() == list(range(0, 14, 2))


def test_other_calls_keep_their_shape(rc, lb):
    single, several = rc[0].apply_async(abs, -1), rc[:].apply_async(abs, -1)
    assert (single.get(60), several.get(60)) == (1, [1, 1])
    assert rc.get_result(single.msg_ids[0]).get(60) == 1
    assert rc.get_result(several.msg_ids).get(60) == [1, 1]
    lists = rc[:].apply_async(list, "ab")
    assert rc.get_result(lists.msg_ids).get(60) == lists.get(60) == [["a", "b"], ["a", "b"]]
    ran = rc[:].execute("1 + 1", silent=False)
    assert [reply.data for reply in rc.get_result(ran.msg_ids).get(60)] == [reply.data for reply in ran.get(60)]
    graph = lb.run_graph({"b": ["a"]}, {"a": (abs, [-1]), "b": (list, ["xy"])})
    assert list(graph.get(60).values()) == rc.get_result(graph.msg_ids).get(60) == [1, ["x", "y"]]


def test_the_result_of_a_map_is_one_argument(rc, lb):
    mapped = lb.map_async(abs, range(-4, 0), chunksize=3)
    assert lb.apply_sync(list, mapped) == [4, 3, 2, 1]
    assert lb.apply_sync(list, rc.get_result(mapped.msg_ids)) == [4, 3, 2, 1]
    assert lb.apply_sync(list, mapped.split()[1]) == [1]


def test_what_was_unpickled_can_be_joined(lb):
    first, second = lb.apply_async(bytes, 10_000), lb.apply_async(bytes, 20_000)
    assert [len(first.get(60)), len(second.get(60))] == [10_000, 20_000]
    assert list(map(len, er.AsyncResult.join(first, second).get(60))) == [10_000, 20_000]


# ------------------------------------------------------------------------------------------ labels and metadata


def test_each_item_has_its_label_and_metadata(rc, lb):
    points = [{"alpha": alpha, "beta": beta} for alpha in (0.1, 0.2) for beta in (1, 2)]
    for number, view in enumerate((lb, rc[:])):
        view.set_flags(metadata={"sweep": number})
        labels = [f"point {number}.{i}" for i in range(4)]
        result = view.map_async(abs, range(-4, 0), labels=labels, metadata=points)
        assert result.get(60) == [4, 3, 2, 1]
        assert [about["label"] for about in result.metadata] == labels
        found = rc.db_query({"metadata.sweep": number, "metadata.alpha": 0.2}, ["label", "metadata"], sort="label")
        assert [record["label"] for record in found] == labels[2:]
        assert [record["metadata"] for record in found] == [{"sweep": number, **point} for point in points[2:]]


def test_a_frame_has_a_row_for_each_point(rc, lb):
    pytest.importorskip("pandas")
    lb.map_sync(abs, [1, 2], labels=["framed"] * 2, metadata=[{"alpha": 1}, {"beta": 2.5}])
    frame = rc.db_query({"label": "framed"}, ["metadata", "state"], sort="submitted", as_frame="pandas")
    assert {"metadata.alpha", "metadata.beta"} <= set(frame.columns)
    assert frame["metadata.alpha"].tolist()[0] == 1
    assert frame["metadata.beta"].tolist()[1] == 2.5


def test_a_round_robin_map_with_labels_keeps_the_order_of_the_items(rc):
    result = rc[:].map_async(lambda x: x, range(5), dist="r", labels=list("abcde"))
    assert result.get(60) == list(range(5))
    assert result.engine_id == [0, 1, 0, 1, 0]


def test_too_few_labels_are_an_error_and_nothing_is_sent(rc, lb):
    before = len(rc.history)
    for view in (rc[:], lb):
        with pytest.raises(ValueError, match="labels has 1 entries, but the map has 2 items"):
            view.map(abs, [1, 2], labels=["a"])
        with pytest.raises(ValueError, match="metadata has 3 entries, but the map has 2 items"):
            view.map(abs, [1, 2], metadata=[{}] * 3)
        with pytest.raises(er.ConfigError, match="metadata of item 1"):
            view.map(abs, [1, 2], metadata=[{}, {"x": object()}])
        with pytest.raises(TypeError, match="label= is for all items"):
            view.map(abs, [1, 2], labels="ab")
    with pytest.raises(ValueError, match="chunksize=2"):
        lb.map(abs, [1, 2], labels=["a", "b"], chunksize=2)
    assert len(rc.history) == before


# ----------------------------------------------------------------------- a map whose own thread is slow to go on


@pytest.fixture
def slow_map(cluster, monkeypatch):
    """A client; and the function that has it begin a map, and waits until all that it has submitted has ended."""
    go_on = threading.Event()
    as_results_come = GrowingMapResult._submit_as_results_come

    def slowly(self):
        go_on.wait(60)
        as_results_come(self)

    monkeypatch.setattr(GrowingMapResult, "_submit_as_results_come", slowly)

    def begin(function=abs):
        result = rc.load_balanced_view(label="a slow map").map_async(function, range(10_000))
        wait_until(lambda: result._ids and not rc.outstanding)
        assert not result.ready()
        return result

    with cluster.connect_client_sync() as rc:
        rc.wait_for_engines(2, timeout=60)
        rc.purge_results(query={"label": "a slow map"})
        try:
            yield rc, begin
        finally:
            go_on.set()


def test_the_end_of_a_client_submits_the_rest_of_its_maps(slow_map, rc):
    of_map, begin = slow_map
    begin()
    of_map.close()
    wait_until(lambda: not rc.db_count({"label": "a slow map", "completed": None}))
    ids = [record["msg_id"] for record in rc.db_query({"label": "a slow map"}, keys=["msg_id"])]
    assert sorted(rc.get_result(ids).get(60)) == list(range(10_000))


def test_who_waits_for_everything_waits_for_maps_that_will_submit_more(slow_map):
    rc, begin = slow_map
    result = begin()
    assert rc.wait(timeout=0.1) is False
    rc.abort()
    with pytest.raises(er.TaskAborted, match="the rest of a map"):
        result.get(60)
    assert rc.wait(timeout=60) is True


def test_ctrl_c_ends_a_map_that_will_submit_more(slow_map):
    rc, begin = slow_map
    result = begin()
    rc.on_interrupt = "abort"
    rc._port.interrupted(result._ids)
    with pytest.raises(er.TaskAborted, match="the rest of a map"):
        result.get(60)
