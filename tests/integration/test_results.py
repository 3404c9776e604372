"""AsyncResult: waiting for, and asking about, what is not there yet."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import os
import threading
import time

import pytest
from conftest import hold, wait_until

import engineroom as er

# ---------------------------------------------------------------------------------------------- waiting


def test_a_result_before_and_after_its_end(rc, gate):
    result = rc[0].apply_async(hold, str(gate), 42)
    assert not result.ready()
    assert not result.done()
    assert result.wait(0.01) is False
    with pytest.raises(TimeoutError, match="tasks go on"):
        result.get(0.01)
    with pytest.raises(RuntimeError, match="not ready"):
        result.successful()
    with pytest.raises(TimeoutError):
        _ = result.wall_time
    with pytest.raises(TimeoutError):
        result.exception(0.01)
    assert "pending" in repr(result)
    gate.touch()
    assert result.get(timeout=60) == 42
    assert result.r == result.result() == 42
    assert result.wait() is True
    assert result.ready()
    assert result.successful()
    assert result.exception() is None
    assert not result.cancelled()
    assert "finished" in repr(result)


def test_zero_seconds_is_a_question(rc, gate):
    result = rc[0].apply_async(hold, str(gate))
    with pytest.raises(TimeoutError):
        result.get(0)
    assert result.wait(0) is False
    assert rc.wait(result, 0) is False


def test_wait_with_return_when_gives_the_parts(rc, gate):
    result = rc[:].apply_async(lambda gate, hold: hold(gate) if gate else 1, er.Reference("mine"), hold)
    rc[0]["mine"], rc[1]["mine"] = "", ""  # both were submitted first, and fail
    assert result.wait(60)
    assert not result.successful()

    fast, slow = rc[0].apply_async(abs, -1), rc[1].apply_async(hold, str(gate))
    both = er.AsyncResult.join(fast, slow)
    done, pending = both.wait(10, return_when=er.FIRST_COMPLETED)
    assert [r.get() for r in done] == [1]
    assert [r.msg_ids for r in pending] == [slow.msg_ids]
    gate.touch()
    done, pending = both.wait(10, return_when=er.ALL_COMPLETED)
    assert len(done) == 2
    assert pending == set()


def test_get_as_soon_as_one_has_failed(rc, gate):
    failing, slow = rc[0].apply_async(lambda: 1 / 0), rc[1].apply_async(hold, str(gate))
    with pytest.raises(er.RemoteError, match="ZeroDivisionError"):
        er.AsyncResult.join(failing, slow).get(10, return_when=er.FIRST_EXCEPTION)
    assert not slow.done()


def test_many_threads_may_wait_for_one_result(rc, gate):
    result = rc[:].apply_async(hold, str(gate), 5)
    values = []
    threads = [threading.Thread(target=lambda: values.append(result.get(60))) for _ in range(16)]
    for thread in threads:
        thread.start()
    gate.touch()
    for thread in threads:
        thread.join(20)
    assert values == [[5, 5]] * 16


def test_many_threads_may_submit_and_wait(lb):
    def work(base):
        values = [lb.apply_async(abs, -base - x) for x in range(50)]
        return [v.get(60) for v in values]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(0, 800, 100)))
    assert found == [list(range(base, base + 50)) for base in range(0, 800, 100)]


def test_results_are_futures(lb, gate):
    slow = lb.apply_async(hold, str(gate))
    fast = [lb.apply_async(abs, -x) for x in range(4)]
    done, not_done = concurrent.futures.wait([slow, *fast], timeout=10, return_when=er.FIRST_COMPLETED)
    assert done
    assert slow in not_done
    gate.touch()
    assert {f.result() for f in concurrent.futures.as_completed(fast, timeout=10)} == {0, 1, 2, 3}
    assert not concurrent.futures.wait([slow, *fast], timeout=10).not_done
    failing = lb.apply_async(lambda: 1 / 0)
    done, _ = concurrent.futures.wait([failing], timeout=10, return_when=er.FIRST_EXCEPTION)
    assert isinstance(done.pop().exception(), er.RemoteError)


def test_callbacks_are_called_once_before_or_after_the_end(rc, gate):
    called = []
    result = rc[:].apply_async(hold, str(gate), 3)
    result.add_done_callback(lambda r: called.append(("early", r.get())))
    result.add_done_callback(lambda r: 1 / 0)  # logged, and harms nobody
    gate.touch()
    assert result.get(60) == [3, 3]
    wait_until(lambda: called)
    result.add_done_callback(lambda r: called.append(("late", r.get())))
    assert called == [("early", [3, 3]), ("late", [3, 3])]


def test_a_callback_may_submit_more(lb):
    more = concurrent.futures.Future()
    lb.apply_async(abs, -1).add_done_callback(lambda r: more.set_result(lb.apply_async(abs, -2)))
    assert more.result(60).get(60) == 2


def test_results_can_be_awaited(rc):
    async def work():
        view = rc.load_balanced_view()
        one = await view.apply_async(abs, -1)
        several = await asyncio.gather(*[view.apply_async(pow, x, 2) for x in range(5)])
        wrapped = await asyncio.wrap_future(rc[:].apply_async(abs, -7))
        with pytest.raises(er.RemoteError):
            await view.apply_async(lambda: 1 / 0)
        return one, several, wrapped

    assert asyncio.run(work()) == (1, [0, 1, 4, 9, 16], [7, 7])


def test_waiting_interactively(rc, capsys, monkeypatch):
    monkeypatch.setenv("IPP_NONINTERACTIVE", "0")
    result = rc.load_balanced_view().map_async(time.sleep, [0.01] * 6)
    result.wait_interactive(interval=0.01, timeout=20)
    assert result.ready()
    rc.wait_interactive(timeout=5)


def test_waiting_interactively_has_a_limit(rc, gate):
    result = rc[0].apply_async(hold, str(gate))
    with pytest.raises(TimeoutError):
        result.wait_interactive(interval=0.01, timeout=0.05)
    with pytest.raises(TimeoutError):
        rc.wait_interactive(result, interval=0.01, timeout=0.05)


def test_the_client_waits_for_whatever_names_tasks(rc, gate):
    one, two = rc[0].apply_async(hold, str(gate)), rc[1].apply_async(abs, -1)
    assert rc.wait(two, timeout=10)
    assert rc.wait(two.msg_ids[0], timeout=10)
    assert rc.wait(-1, timeout=10)
    assert rc.wait([one, two.msg_ids[0]], timeout=0.01) is False
    assert rc.wait(timeout=0.01) is False
    assert rc.outstanding == set(one.msg_ids)
    gate.touch()
    assert rc.wait(timeout=60)
    assert rc.wait([], timeout=1)
    with pytest.raises(IndexError):
        rc.wait(10_000)
    with pytest.raises(TypeError):
        rc.wait(1.5)


# ---------------------------------------------------------------------------------------------- several tasks in one


def test_iteration_gives_values_as_they_are_there(rc, gate):
    result = er.AsyncResult.join(rc[0].apply_async(abs, -1), rc[1].apply_async(hold, str(gate), 2))
    values = iter(result)
    assert next(values) == 1
    assert not result.done()
    gate.touch()
    assert next(values) == 2
    with pytest.raises(StopIteration):
        next(values)
    with pytest.raises(TypeError):
        list(rc[0].apply_async(abs, -1))


def test_items_slices_and_length(lb):
    result = lb.map_async(abs, range(-5, 0))
    assert len(result) == 5
    assert result[0] == 5 or result[0] == [5]
    parts = er.AsyncResult.join(*[lb.apply_async(abs, -x) for x in range(4)])
    assert parts[1] == 1
    assert parts[-1] == 3
    assert parts[1:3] == [1, 2]
    assert parts.get(60) == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        parts[4]


def test_items_of_a_map_are_its_values(lb):
    result = lb.map_async(abs, range(-7, 0), chunksize=3)
    assert len(result) == 7
    assert len(result.msg_ids) == 3
    assert result.get(60) == [7, 6, 5, 4, 3, 2, 1]


def test_split_and_join(rc):
    whole = rc[:].apply_async(lambda: os.getpid())
    parts = whole.split()
    assert [type(p).__mro__[1] for p in parts] == [er.AsyncResult] * 2
    assert [p.get(60) for p in parts] == whole.get(60)
    joined = er.AsyncResult.join(*reversed(parts))
    assert joined.get(60) == whole.get(60)[::-1]
    assert joined.msg_ids == whole.msg_ids[::-1]
    assert joined.engine_id == [1, 0]
    late = er.AsyncResult.join(whole, rc[0].apply_async(abs, -1))
    assert late.get(60) == [*whole.get(), 1]
    with pytest.raises(ValueError):
        er.AsyncResult.join()


def test_values_by_engine(rc):
    assert rc[:].apply_async(abs, -1).get_dict(10) == {0: 1, 1: 1}
    assert rc[1].apply_async(abs, -1).result_dict == {1: 1}
    view = rc.load_balanced_view(targets=0)
    with pytest.raises(ValueError, match="engine 0"):
        er.AsyncResult.join(view.apply_async(abs, 1), view.apply_async(abs, 1)).get_dict(10)


def test_an_error_does_not_hide_the_other_values(rc):
    rc[:].scatter("number", [1, 0], flatten=True, block=True)
    result = rc[:].apply_async(lambda n: 1 / n, er.Reference("number"))
    with pytest.raises(er.RemoteError, match=r"\[1:apply\] ZeroDivisionError"):
        result.get(60)
    value, error = result.get(10, return_exceptions=True)
    assert value == 1.0
    assert error.ename == "ZeroDivisionError"
    assert result[0] == 1.0
    with pytest.raises(er.RemoteError):
        result[1]


# ---------------------------------------------------------------------------------------------- metadata


def test_metadata_tells_about_the_run(rc):
    before = datetime.datetime.now(datetime.UTC)
    result = rc[1].apply_async(time.sleep, 0.01)
    result.get(60)
    metadata = result.metadata
    assert metadata.msg_id == metadata["msg_id"] == result.msg_ids[0]
    assert before <= metadata.submitted <= metadata.started < metadata.completed
    assert metadata.completed <= metadata.received
    assert metadata.status == "ok"
    assert metadata.engine_id == result.engine_id == result["engine_id"] == 1
    assert metadata.engine_uuid
    assert (result.stdout, result.stderr, result.outputs, result.error) == ("", "", [], None)
    with pytest.raises(KeyError):
        result["nonsense"]
    with pytest.raises(AttributeError):
        _ = result.nonsense
    with pytest.raises(AttributeError):
        _ = metadata.nonsense
    assert {"started", "engine_id", "get"} <= set(dir(result))


def test_metadata_of_several_tasks_are_lists(rc):
    result = rc[:].apply_async(abs, -1)
    result.wait(60)
    assert result.engine_id == [0, 1]
    assert [m.engine_id for m in result.metadata] == [0, 1]
    assert result.status == ["ok", "ok"]


def test_the_label_is_kept(rc):
    view = rc.load_balanced_view(label="mine")
    result = view.apply_async(abs, -1)
    result.get(60)
    assert result.label == "mine"
    assert result.metadata.label == "mine"
    mapped = view.map_async(abs, [-1], label="its own")
    mapped.get(60)
    assert mapped.label == "its own"
    ids = rc.db_query({"label": "its own"}, keys=["label"])
    assert mapped.msg_ids[0] in [record["msg_id"] for record in ids]
    direct = rc[:].map_async(abs, [-1, -2], label="direct")
    direct.get(60)
    assert {r["label"] for r in rc.db_query({"msg_id": {"$in": direct.msg_ids}}, keys=["label"])} == {"direct"}


def test_times(rc):
    result = rc[:].apply_async(time.sleep, 0.05)
    assert result.elapsed > 0
    result.get(60)
    assert result.serial_time >= 0.1, "two engines slept 0.05 s each"
    assert result.wall_time >= 0.05
    assert result.elapsed == result.wall_time
    assert result.timedelta(result.submitted, result.received) >= 0.05
    assert result.progress == len(result) == 2


def test_progress_counts_what_has_ended(rc, gate):
    result = er.AsyncResult.join(rc[0].apply_async(abs, -1), rc[1].apply_async(hold, str(gate)))
    wait_until(lambda: result.progress == 1)
    gate.touch()
    result.wait(60)
    assert result.progress == 2


def test_a_running_task_is_known_to_run(rc, gate):
    result = rc[0].apply_async(hold, str(gate))
    wait_until(lambda: result.started)
    assert result.engine_id == 0
    assert result.completed is None
    assert result.running()
    gate.touch()
    result.get(60)
    assert not result.running()


# ---------------------------------------------------------------------------------------------- aborting


def test_what_is_queued_can_be_aborted_and_what_runs_goes_on(any_rc, gate):
    rc = any_rc
    running = [view.apply_async(hold, str(gate), "done") for view in rc]
    wait_until(lambda: all(r.started for r in running))
    queued = [rc[0].apply_async(abs, -1), rc.load_balanced_view().apply_async(abs, -1)]
    rc.abort(queued, block=True)
    for result in queued:
        with pytest.raises(er.TaskAborted):
            result.get(60)
        assert result.cancelled()
        assert not result.successful()
        assert result.status == "aborted"
    gate.touch()
    assert [r.get(60) for r in running] == ["done"] * 2
    states = {r["msg_id"]: r["state"] for r in rc.db_query({"client_uuid": rc.session.session}, keys=["state"])}
    assert [states[q.msg_ids[0]] for q in queued] == ["aborted"] * 2
    assert [states[q.msg_ids[0]] for q in running] == ["completed"] * 2


def test_ways_to_abort(rc, gate):
    running = rc[:].apply_async(hold, str(gate))
    wait_until(lambda: all(running.started))
    view = rc[0]
    results = [view.apply_async(abs, -x) for x in range(4)]
    others = rc[1].apply_async(abs, -1)
    assert results[0].cancel() is True
    results[1].abort()
    rc.abort(results[2].msg_ids[0], block=True)
    assert [r.wait(60) and r.cancelled() for r in results[:3]] == [True] * 3
    assert not results[3].done()
    view.abort(block=True)
    assert results[3].wait(60)
    assert results[3].cancelled()
    rc.abort(targets=1, block=True)
    assert others.wait(60)
    assert others.cancelled()
    gate.touch()
    assert running.wait(60)
    assert running.successful()
    assert running.cancel() is False


def test_aborting_a_map_in_the_middle(lb, gate):
    running = lb.map_async(hold, [str(gate)] * 50)
    wait_until(lambda: any(running.started))
    running.abort()
    wait_until(lambda: running.progress >= 40)
    gate.touch()
    with pytest.raises((er.CompositeError, er.TaskAborted)):
        running.get(60)


def test_aborting_what_has_ended_changes_nothing(rc):
    result = rc[0].apply_async(abs, -1)
    assert result.get(60) == 1
    rc.abort(result, block=True)
    rc.abort(iter([result.msg_ids[0]]), block=True)
    with pytest.raises(er.UnknownTask, match="no such task: no-such-task; nothing was aborted"):
        rc.abort(["no-such-task", result], block=True)
    assert result.get() == 1
    assert rc.get_result(result.msg_ids[0], owner=False).get(60) == 1


def test_a_look_at_another_clients_task_tells_whether_it_has_ended(rc, cluster):
    result = rc[0].apply_async(abs, -1)
    assert result.get(60) == 1
    with cluster.connect_client_sync() as other:
        wait_until(lambda: other.result_status(result.msg_ids)["completed"])
        assert other.wait(result.msg_ids, timeout=0) is True


# ---------------------------------------------------------------------------------------------- many


def test_a_great_many_tasks(any_rc):
    lb = any_rc.load_balanced_view()
    results = [lb.apply_async(abs, -x) for x in range(3000)]
    assert [r.get(60) for r in results] == list(range(3000))
    assert any_rc.outstanding == set()
