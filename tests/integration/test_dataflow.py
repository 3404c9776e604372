"""AsyncResults as arguments: they arrive as their values, and do not pass through the client."""

from __future__ import annotations

import functools
import operator
import pickle
import time

import numpy as np
import pytest
from conftest import hold

import engineroom as er


class Box:
    def __init__(self, content):
        self.content = content


def fail():
    raise ValueError("no")


@pytest.fixture(params=["cluster", "unrecorded_cluster"])
def view(request):
    """A load-balanced view, with and without records."""
    with request.getfixturevalue(request.param).connect_client_sync() as rc:
        rc.wait_for_engines(2, timeout=30)
        yield rc.load_balanced_view()
        rc.abort()


def test_a_result_may_stand_anywhere_in_the_arguments(view):
    one = view.apply_async(abs, -1)
    two = view.apply_async(operator.add, one, one)
    assert two.get(60) == 2
    assert view.apply_sync(lambda *a, **k: (a, k), one, [two, {"k": (one,)}], z=two) == (
        (1, [2, {"k": (1,)}]),
        {"z": 2},
    )
    assert view.apply_sync(lambda box: box.content, Box([one])) == [1]
    assert view.apply_sync(functools.partial(operator.sub, 5), two) == 3


def test_a_task_waits_for_its_arguments(view):
    slow = view.apply_async(lambda: time.sleep(0.1) or 5)
    sums = [view.apply_async(operator.add, slow, number) for number in range(20)]
    assert [result.get(60) for result in sums] == list(range(5, 25))
    assert min(result.started for result in sums) >= slow.completed


def test_long_chains(view):
    result = view.apply_async(int)
    for _ in range(200):
        result = view.apply_async(operator.add, result, 1)
    assert result.get(60) == 200


def test_many_results_into_one_whether_they_have_ended_or_not(view):
    for _ in range(50):
        parts = [view.apply_async(abs, -number) for number in range(3)]
        assert view.apply_async(sum, parts).get(60) == 3


def test_arrays_stay_arrays_and_belong_to_the_task(view):
    array = view.apply_async(np.arange, 200_000)

    def spoil(a):
        a[:] = 7
        return int(a.sum())

    assert view.apply_sync(spoil, array) == 1_400_000
    assert view.apply_sync(lambda a: (type(a).__name__, int(a[-1])), array) == ("ndarray", 199_999)


def test_a_map_arrives_as_its_list(view):
    squares = view.map_async(lambda x: x * x, range(10))
    assert view.apply_sync(lambda found: found, squares) == [x * x for x in range(10)]
    chunked = view.map_async(lambda x: x, range(100), chunksize=7)
    assert view.apply_sync(sum, chunked) == sum(range(100))
    growing = view.map_async(lambda x: x, range(5000))
    assert view.apply_sync(sum, growing) == sum(range(5000))
    assert growing.get(60) == list(range(5000))


def test_parts_are_put_together_as_they_were_taken_apart(view):
    for dist in ("b", "r"):
        doubled = view.parallel(dist=dist, block=False)(lambda part: np.asarray(part) * 2)(np.arange(9))
        assert view.apply_sync(lambda a: (type(a).__name__, a.tolist()), doubled) == ("ndarray", list(range(0, 18, 2)))


def test_several_results_arrive_as_a_list(view):
    joined = er.AsyncResult.join(view.apply_async(abs, -1), view.apply_async(abs, -2))
    assert view.apply_sync(lambda values: values, joined) == [1, 2]
    assert view.apply_sync(abs, joined.split()[1]) == 2


def test_items_of_a_map_may_be_results(view):
    items = [view.apply_async(abs, -number) for number in range(10)]
    assert view.map_sync(operator.neg, items) == [-number for number in range(10)]
    assert view.map_sync(operator.add, items, range(10), chunksize=3) == [2 * number for number in range(10)]
    result = view.map_async(operator.neg, items, chunksize=5)
    options = [set(ids) for ids in ([i.msg_ids[0] for i in items[:5]], [i.msg_ids[0] for i in items[5:]])]
    assert result.get(60)[-1] == -9
    assert options[0].isdisjoint(options[1])
    assert list(view.imap(operator.neg, iter(items))) == [-number for number in range(10)]


def test_what_takes_the_result_of_a_failed_task_is_impossible(view):
    failed = view.apply_async(fail)
    with pytest.raises(er.ImpossibleDependency, match="ValueError: no"):
        view.apply_async(abs, failed).get(60)
    failed.wait(60)
    with pytest.raises(er.ImpossibleDependency, match="no"):
        view.apply_async(abs, failed).get(60)


def test_the_value_does_not_pass_through_the_client(rc, lb):
    big = lb.apply_async(bytes, 10_000_000)
    size = lb.apply_async(len, big)
    assert size.get(60) == 10_000_000
    [record] = rc.db_query({"msg_id": size.msg_ids[0]}, keys=["header", "buffers"])
    assert record["header"]["inputs"] == big.msg_ids
    assert sum(map(len, record["buffers"])) < 1000


def test_results_of_other_clients_and_of_earlier_sessions(cluster, lb):
    with cluster.connect_client_sync() as other:
        made = other.load_balanced_view().apply_async(abs, -7)
        made.get(60)
    assert lb.apply_sync(abs, lb.client.get_result(made.msg_ids[0])) == 7


def test_a_resubmitted_task_takes_the_same_results(rc, lb):
    one = lb.apply_async(abs, -1)
    two = lb.apply_async(operator.add, one, 1)
    two.get(60)
    assert rc.resubmit(two).get(60) == 2


def test_results_of_direct_views_are_refused(rc, lb):
    direct = rc[0].apply_async(abs, -1)
    with pytest.raises(er.InvalidDependency, match="cannot depend on direct tasks"):
        lb.apply_async(abs, direct)
    with pytest.raises(er.InvalidDependency):
        lb.map(abs, [direct])
    assert lb.apply_async(abs, -1).get(60) == 1


def test_direct_views_take_no_results(rc, lb):
    one = lb.apply_async(abs, -1)
    for call in (
        lambda: rc[0].apply_async(abs, one),
        lambda: rc[:].push({"a": one}),
        lambda: rc[:].map(abs, [one]),
        lambda: rc[0].scatter("a", [one]),
    ):
        with pytest.raises(TypeError, match=r"give its value, ar\.get\(\)"):
            call()
    with pytest.raises(TypeError, match=r"ar\.get\(\)"):
        pickle.dumps(one)


def test_results_of_another_cluster_are_refused(unrecorded_cluster, lb, gate):
    with unrecorded_cluster.connect_client_sync() as other:
        other.wait_for_engines(1, timeout=30)
        slow = other.load_balanced_view().apply_async(hold, str(gate))
        with pytest.raises(er.InvalidDependency, match="another cluster"):
            lb.apply_async(abs, slow)


def test_an_argument_that_cannot_travel_is_still_named(lb):
    import threading

    one = lb.apply_async(abs, -1)
    with pytest.raises(er.SerializationError, match=r"argument 1\['lock'\]"):
        lb.apply_async(max, one, {"lock": threading.Lock()})
    assert lb.apply_sync(abs, one) == 1
