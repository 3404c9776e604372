"""What programs written for ipyparallel do with a client, its views and their results."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import hold, wait_until

import engineroom as ipp
from engineroom.client.connection.submission import Acceptance


@pytest.fixture
def rc(cluster: ipp.Cluster) -> Iterator[ipp.Client]:
    with cluster.connect_client_sync() as client:
        client.wait_for_engines(2, timeout=30)
        yield client


# ---------------------------------------------------------------------------------------------- arguments of Client


def test_former_names_of_arguments_are_understood(cluster: ipp.Cluster):
    file = cluster._connection_file()
    with pytest.warns(DeprecationWarning, match="connection_info"), ipp.Client(url_or_file=file) as rc:
        assert rc.connection == cluster.connection
    with (
        pytest.warns(DeprecationWarning, match="profile_dir"),
        ipp.Client(cluster_dir=str(cluster.profile_dir), cluster_id=cluster.cluster_id) as rc,
    ):
        assert rc.connection == cluster.connection


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("exec_key", "secret", "connection file"), ("username", "me", "session"), ("context", object(), "of its own")],
)
def test_arguments_without_effect_say_what_replaces_them(cluster: ipp.Cluster, name: str, value: object, said: str):
    with pytest.warns(UserWarning, match=said), ipp.Client(cluster.connection, **{name: value}):
        pass


def test_none_is_no_argument(cluster: ipp.Cluster):
    with ipp.Client(cluster.connection, context=None, sshserver=None, paramiko=None):
        pass


def test_no_ssh_tunnel_leads_to_a_unix_socket(cluster: ipp.Cluster):
    with pytest.raises(ipp.ConfigError, match=r"to which no tunnel leads. Start it with --ip=127.0.0.1"):
        ipp.Client(cluster.connection, sshserver="login")
    with pytest.raises(TypeError, match="no argument 'sesion'"):
        ipp.Client(cluster.connection, sesion=1)


# ---------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize("is_coalescing", [False, True])
def test_a_broadcast_view_is_a_direct_view(rc: ipp.Client, is_coalescing: bool):
    view = rc.broadcast_view(is_coalescing=is_coalescing)
    assert isinstance(view, ipp.DirectView)
    assert view.is_coalescing is is_coalescing
    assert "BroadcastView" in repr(view)
    view.push({"a": 2}, block=True)
    assert view.pull("a", block=True) == [2, 2]
    result = view.apply_async(os.getpid)
    values = result.get()
    assert dict(zip(result.engine_id, values, strict=True)) == rc[:].apply_async(os.getpid).get_dict()
    view.scatter("x", range(4), block=True)
    assert view.gather("x", block=True) == [0, 1, 2, 3]
    assert view.map_sync(abs, [-1, -2, -3]) == [1, 2, 3]
    with pytest.raises(ipp.ConfigError, match="is_coalescing"):
        view.is_coalescing = "yes"
    view.clear(block=True)


def test_views_have_executors(rc: ipp.Client):
    for view in (rc.load_balanced_view(), rc[0]):
        with view.executor as executor:
            assert executor.view is view
            assert executor.submit(pow, 2, 5).result() == 32


def test_picklers_can_be_named(rc: ipp.Client):
    view = rc[:]
    for use in (view.use_dill, view.use_cloudpickle, view.use_pickle):
        use().get()
    offset = 3
    assert view.map_sync(lambda x: x + offset, [1, 2]) == [4, 5]


def test_a_parallel_function_can_return_exceptions(rc: ipp.Client):
    def half(numbers):
        return [1 // number for number in numbers]

    both = ipp.parallel(rc[:], block=True, return_exceptions=True)(half)
    first, second = both([1, 0])
    assert first == 1
    assert isinstance(second, ZeroDivisionError)
    with pytest.raises(ipp.RemoteError, match="ZeroDivisionError"):
        ipp.parallel(rc[:], block=True)(half)([1, 0])


# ---------------------------------------------------------------------------------------------- records


def test_in_takes_any_iterable(rc: ipp.Client):
    result = rc[:].apply_async(os.getpid)
    result.get()
    uuids = map(rc._engines.get, (0, 1))
    found = rc.db_query({"msg_id": {"$in": iter(result.msg_ids)}, "engine_uuid": {"$in": uuids}}, keys=["msg_id"])
    assert {record["msg_id"] for record in found} == set(result.msg_ids)
    assert rc.db_count({"$and": [{"msg_id": {"$in": (id for id in result.msg_ids)}}]}) == 2
    again = rc.resubmit(query={"msg_id": {"$in": (id for id in result.msg_ids)}})
    assert len(again.get()) == 2
    assert rc.purge_results(query={"msg_id": {"$nin": {}.keys(), "$in": iter(again.msg_ids)}}).count == 2


def test_resubmit_takes_a_subheader(rc: ipp.Client):
    result = rc.load_balanced_view().apply_async(os.getpid)
    result.get()
    again = rc.resubmit(result.msg_ids, subheader={"retries": 2, "run": "b"})
    again.get()
    [record] = rc.db_query({"msg_id": again.msg_ids[0]}, keys=["metadata"])
    assert record["metadata"]["run"] == "b"


def test_results_and_metadata_are_mappings_of_tasks_that_have_ended(rc: ipp.Client, gate: Path):
    done = rc.load_balanced_view().apply_async(abs, -1)
    done.get()
    running = rc.load_balanced_view().apply_async(hold, str(gate))
    [id], [other] = done.msg_ids, running.msg_ids
    assert id in rc.results
    assert id in rc.metadata
    assert other not in rc.results
    assert "nobody" not in rc.results
    assert (rc.results[id], rc.results.get(id), rc.results.get("nobody", 5)) == (1, 1, 5)
    assert rc.metadata[id].engine_id in rc.ids
    running.abort()
    gate.touch()
    rc.wait()
    assert other in set(rc.results)


def test_results_are_purged_as_from_a_dict(rc: ipp.Client, gate: Path):
    view = rc.load_balanced_view()
    results = [view.apply_async(abs, x) for x in range(-5, 0)]
    assert [result.get() for result in results] == [5, 4, 3, 2, 1]
    ids = list(rc.results)
    assert len(ids) == len(rc.results) == len(rc.metadata) == 5
    assert rc.results.copy() == dict(zip(ids, [5, 4, 3, 2, 1], strict=True))
    assert rc.results.pop(ids[0]) == 5
    assert rc.results.pop(ids[0], "gone") == "gone"
    assert rc.results.setdefault(ids[1]) == 4
    del rc.metadata[ids[1]]
    assert list(rc.results) == rc.history == view.history == ids[2:]
    with pytest.raises(KeyError):
        del rc.results[ids[1]]
    with pytest.raises(TypeError, match="a dict of your own"):
        rc.results["x"] = 1
    assert "3 finished tasks" in repr(rc.results)
    running = view.apply_async(hold, str(gate))
    rc.results.clear()
    assert (len(rc.results), rc.history) == (0, running.msg_ids)
    assert rc.db_count({"msg_id": {"$in": ids}}) == 5, "the records are there"
    gate.touch()
    running.get()


@pytest.mark.parametrize("how", ["result", "msg_id", "iterator", "all", "targets", "query"])
def test_a_task_that_was_purged_from_the_hub_is_in_no_mapping(rc: ipp.Client, how: str):
    done = rc[0].apply_async(abs, -1)
    assert done.get() == 1
    [id] = done.msg_ids
    assert id in rc.metadata
    named = {
        "result": {"jobs": done}, "msg_id": {"jobs": id}, "iterator": {"jobs": iter([id])},
        "all": {"jobs": "all"}, "targets": {"targets": 0}, "query": {"query": {"msg_id": id}},
    }  # fmt: skip
    assert rc.purge_hub_results(**named[how]) >= 1
    if how == "query":  # the client finds out when it asks
        with pytest.raises(ipp.UnknownTask):
            rc.metadata[id]
    for mapping in (rc.results, rc.metadata):
        assert id not in mapping
        assert id not in list(mapping)
        with pytest.raises(ipp.UnknownTask):
            mapping[id]
    assert id in rc.history, "only the records are gone"
    assert (done.get(), done.metadata["engine_id"]) == (1, 0), "a result that is held keeps what it has"
    rc.purge_local_results(id)
    assert id not in rc.history


def test_a_task_of_another_client_is_fetched_once(cluster: ipp.Cluster, rc: ipp.Client):
    done = rc.load_balanced_view(label="mine").apply_async(abs, -1)
    done.get()
    with cluster.connect_client_sync() as other:
        first = other.get_result(done.msg_ids[0])
        assert first.get() == 1
        again = other.get_result(done.msg_ids)
        assert again.ready(), "no question to the controller"
        assert (again.get(), again["label"], again.submitted) == ([1], ["mine"], [done.submitted])
        assert type(again) is ipp.AsyncResult, "it needs no hub any more"
        with pytest.raises(ipp.UnknownTask):
            other.get_result("nobody").get()
        with pytest.raises(ipp.UnknownTask):
            other.get_result("nobody").get()


def test_the_profile_of_a_client_has_a_name(cluster: ipp.Cluster, rc: ipp.Client):
    assert rc.profile == "default", "the folder is profile_default"
    with ipp.Client(cluster.connection) as other:
        assert other.profile == "default"


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("targets", [[0], "all"])
def test_one_failing_task_of_a_call_on_several_engines_is_a_composite_error(rc: ipp.Client, targets):
    view = rc.direct_view(targets)
    view.scatter("k", range(len(view)), flatten=True, block=True)
    with pytest.raises(ipp.CompositeError) as caught:
        view.execute("1 / k", block=True)
    assert [entry[0] for entry in caught.value.elist] == ["ZeroDivisionError"]
    assert isinstance(caught.value, ZeroDivisionError)
    with pytest.raises(ipp.RemoteError, match="division by zero") as raised:
        caught.value.raise_exception()
    assert not isinstance(raised.value, ipp.CompositeError)
    with pytest.raises(ipp.RemoteError) as caught:
        rc[0].execute("1 / 0", block=True)
    assert not isinstance(caught.value, ipp.CompositeError), "a view of a single engine"
    view.clear(block=True)


def test_waiting_for_buffers_to_be_sent_ends_in_time(rc: ipp.Client):
    assert rc[:].apply_async(abs, 1).wait_for_send(0) is True
    tracked = rc[0].apply_async(len, bytes(100_000))
    tracked._acceptance = Acceptance(1)
    with pytest.raises(TimeoutError, match="do not change them"):
        tracked.wait_for_send(0.01)
    assert not tracked.sent


# ---------------------------------------------------------------------------------------------- output of results


def test_stream_output_shows_what_tasks_print(rc: ipp.Client, capsys: pytest.CaptureFixture[str]):
    result = rc[:].apply_async(print, "hello")
    with result.stream_output():
        result.wait()
    assert sorted(capsys.readouterr().out.split("\n")) == ["", "[stdout:0] hello", "[stdout:1] hello"]


def test_stream_output_shows_errors_of_one_task_to_stderr(rc: ipp.Client, capsys: pytest.CaptureFixture[str]):
    result = rc[0].apply_async(lambda: print("half a line", end="", file=sys.stderr))
    with result.stream_output():
        result.wait()
    assert capsys.readouterr().err == "half a line\n"


# ---------------------------------------------------------------------------------------------- engines


@pytest.fixture
def own_cluster(tmp_path) -> Iterator[ipp.Cluster]:
    cluster = ipp.Cluster(n=2, profile_dir=tmp_path / "profile_default", database="memory")
    cluster.start_cluster_sync()
    try:
        yield cluster
    finally:
        cluster.stop_cluster_sync()


def test_engines_are_restarted(own_cluster: ipp.Cluster):
    with own_cluster.connect_client_sync() as rc:
        rc.wait_for_engines(2, timeout=30)
        before = rc[:].apply_async(os.getpid).get_dict()
        uuids = dict(rc._engines)
        rc.shutdown(1, restart=True, block=True)
        after = rc[:].apply_async(os.getpid).get_dict()
        assert after[0] == before[0]
        assert after[1] != before[1]
        assert rc._engines[1] != uuids[1]
        rc.shutdown(restart=True, block=True)
        assert not set(rc[:].apply_sync(os.getpid)) & {*before.values(), *after.values()}
        with pytest.raises(ipp.ConfigError, match="hub=True"):
            rc.shutdown(restart=True, hub=True)
        with pytest.raises(IndexError, match="no engine 7"):
            rc.shutdown(7, restart=True)


def test_an_engine_finishes_its_task_before_it_is_restarted(own_cluster: ipp.Cluster, gate: Path):
    with own_cluster.connect_client_sync() as rc:
        rc.wait_for_engines(2, timeout=30)
        uuids = dict(rc._engines)
        running = rc.load_balanced_view().apply_async(hold, str(gate), "finished")
        wait_until(lambda: running.started)
        rc.shutdown(restart=True)
        others = rc.load_balanced_view().map_async(abs, [-1, -2, -3])
        gate.touch()
        assert running.get(60) == "finished"
        assert others.get(60) == [1, 2, 3]
        wait_until(lambda: len(rc) == 2 and not set(rc._engines.values()) & set(uuids.values()))


def test_one_engine_is_stopped_signalled_restarted_by_the_cluster(own_cluster: ipp.Cluster):
    with own_cluster.connect_client_sync() as rc:
        rc.wait_for_engines(2, timeout=30)
        uuid = rc._engines[0]
        own_cluster.restart_engine_sync(0)
        wait_until(lambda: rc._engines.get(0, uuid) != uuid)
        sleeping = rc[1].apply_async(time.sleep, 60)
        wait_until(lambda: sleeping.started)
        own_cluster.signal_engine_sync(2, 1)
        with pytest.raises(ipp.RemoteError, match="KeyboardInterrupt"):
            sleeping.get(60)
        own_cluster.stop_engine_sync(1)
        assert own_cluster.connect_client_sync().ids == [0]


def test_a_task_that_has_ended_has_its_metadata_at_once(rc: ipp.Client):
    result = rc.load_balanced_view().map_async(abs, [-1, -2, -3, -4], chunksize=2)
    result.get()
    for id in result.msg_ids:
        again = rc.get_result(id)
        assert again.ready()
        assert again.engine_id in rc.ids
        assert len(again.get()) == 2


def test_nothing_is_excluded_by_an_empty_text(rc: ipp.Client):
    result = rc.load_balanced_view().map_async(abs, [-1], label="labelled")
    result.get()
    found = rc.db_query({"label": {"$nin": ""}, "msg_id": result.msg_ids[0]}, keys=["label"])
    assert [record["label"] for record in found] == ["labelled"]
    with pytest.raises(ipp.QueryError, match="takes a list"):
        rc.db_query({"label": {"$nin": "labelled"}})


# ---------------------------------------------------------------------------------------------- results of maps


def test_a_map_counts_items(rc: ipp.Client):
    for result in (
        rc[:].map_async(abs, [-1, -2, -3, -4, -5]),
        rc.load_balanced_view().map_async(abs, [-1, -2, -3, -4, -5], chunksize=2),
        rc.load_balanced_view().map_async(abs, [-1, -2, -3, -4, -5]),
    ):
        result.wait()
        assert len(result) == result.progress == 5
        assert (result[0], result[4], result[-1], result[0:2]) == (1, 5, 5, [1, 2])
        assert len(result["engine_id"]) == len(result.split()) == len(result.msg_ids)
        with pytest.raises(IndexError):
            result[5]


def test_an_item_that_failed_is_an_error_and_the_others_are_not(rc: ipp.Client):
    result = rc[:].map_async(lambda x: 1 // x, [1, 0, 1, 1])
    assert (result[0], result[2], result[2:]) == (1, 1, [1, 1])
    for key in (1, slice(0, 2)):
        with pytest.raises(ZeroDivisionError):
            result[key]
    again = rc[:].map_async(lambda x: 1 // x, [1, 0, 1, 1], return_exceptions=True)
    assert isinstance(again[1], ZeroDivisionError)
    assert isinstance(again[0:2][1], ZeroDivisionError)


def test_gathered_items_have_their_numbers(rc: ipp.Client):
    view = rc[:]
    for dist in ("b", "r"):
        view.scatter("x", [1, 2, 3], dist=dist, block=True)
        result = view.gather("x", dist=dist)
        assert [result[i] for i in range(3)] == [1, 2, 3]
        assert result[1:] == [2, 3]
    dealt = view.map_async(abs, [-1, -2, -3, -4, -5], dist="r")
    assert [dealt[i] for i in range(5)] == [1, 2, 3, 4, 5]
    view.clear(block=True)


# ---------------------------------------------------------------------------------------------- fetched results


def test_fetched_results_know_what_their_records_say(cluster: ipp.Cluster, rc: ipp.Client):
    mine = rc.load_balanced_view(label="kept").map_async(abs, [-1, -2])
    mine.get()
    with cluster.connect_client_sync() as other:
        for result in (rc.get_result(mine.msg_ids), other.get_result(mine.msg_ids)):
            assert result.get() == [1, 2]
            assert result["label"] == ["kept", "kept"]
            assert [abs((a - b).total_seconds()) < 1e-3 for a, b in zip(result.submitted, mine.submitted, strict=True)]
            assert 0 < result.elapsed == result.wall_time
            assert result.timedelta(result.submitted, result.received) > 0
        again = other.resubmit(mine.msg_ids)
        again.get()
        assert again["label"] == ["kept", "kept"]
        assert min(again.submitted) > max(mine.submitted)
        assert again.elapsed > 0
        first, _ = other.get_result(mine.msg_ids).split()
        assert first.get() == [1], "the items of one task"
        assert first.metadata.label == "kept"


def test_a_running_task_that_is_fetched_knows_when_it_was_submitted(cluster: ipp.Cluster, rc: ipp.Client):
    running = rc.load_balanced_view(label="slow").apply_async(time.sleep, 0.3)
    again = rc.get_result(running.msg_ids[0])
    assert again.submitted == running.submitted
    assert again.label == "slow"
    with cluster.connect_client_sync() as other:
        fetched = other.get_result(running.msg_ids[0])
        assert fetched.metadata.label == "slow"
        assert fetched.get() is None
        assert fetched.elapsed >= 0.3


def test_a_view_is_shown_when_its_client_is_closed(tmp_path):
    with ipp.Cluster(n=1, profile_dir=tmp_path / "profile_default", database="none") as rc:
        views = rc[:], rc[0], rc.broadcast_view(), rc.load_balanced_view()
        assert repr(views[1]) == "<DirectView 0>" or repr(views[1]) == "<DirectView [0]>"
    for view in views:
        assert type(view).__name__ in repr(view)


def test_after_a_shutdown_that_waits_tasks_are_refused(tmp_path):
    with ipp.Cluster(n=2, profile_dir=tmp_path / "profile_default", database="none") as rc:
        rc.shutdown(block=True)
        with pytest.raises(ipp.NoEnginesRegistered):
            rc.load_balanced_view().apply_async(abs, -1)
