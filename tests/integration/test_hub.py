"""The memory: results of others, records, running again, forgetting."""

from __future__ import annotations

import datetime

import pytest
from conftest import hold, wait_until

import engineroom as er


@pytest.fixture
def other(any_rc):
    """A second client of the same cluster."""
    with er.Client(any_rc.connection) as client:
        yield client


def test_another_client_gets_results_finished_or_pending(any_rc, other, gate):
    done = any_rc[0].apply_async(abs, -7)
    done.get(60)
    pending = any_rc[0].apply_async(hold, str(gate))
    found = other.get_result(done.msg_ids[0])
    assert isinstance(found, er.AsyncHubResult)
    assert found.get(60) == 7
    assert found.engine_id == 0
    found = other.get_result(pending.msg_ids)
    gate.touch()
    assert found.get(60) == [None]
    assert other.get_result([*done.msg_ids, *pending.msg_ids]).get(60) == [7, None]
    with pytest.raises(er.UnknownTask, match="no such task"):
        other.get_result("nothing").get(60)
    with pytest.raises(KeyError):
        other.get_result("nothing").get(60)


def test_results_by_index(any_rc):
    view = any_rc[0]
    results = [view.apply_async(abs, -x) for x in range(3)]
    assert any_rc.get_result(-1).get(60) == 2
    assert any_rc.get_result([-3, -2]).get(60) == [0, 1]
    assert any_rc.get_result(results[1]).get(60) == 1
    assert any_rc.results[results[2].msg_ids[0]] == 2
    with pytest.raises(IndexError):
        any_rc.get_result(9999)


def test_result_status(any_rc, gate):
    done = any_rc[0].apply_async(abs, -7)
    done.get(60)
    pending = any_rc[0].apply_async(hold, str(gate))
    ids = [*done.msg_ids, *pending.msg_ids]
    assert any_rc.result_status(ids) == {"completed": done.msg_ids, "pending": pending.msg_ids}
    assert any_rc.result_status(done, status_only=False)[done.msg_ids[0]] == 7
    with pytest.raises(er.UnknownTask):
        any_rc.result_status(["nothing"])


def test_queue_status(any_rc, gate):
    running = any_rc[:].apply_async(hold, str(gate))
    queued = any_rc[0].apply_async(abs, -1)
    status = any_rc.queue_status()
    assert status[0]["queue"] == 2
    assert status[1]["queue"] == 1
    assert status["unassigned"] == 0
    verbose = any_rc.queue_status(verbose=True)
    assert verbose[0]["queue"] == [running.msg_ids[0], queued.msg_ids[0]]
    assert any_rc.queue_status(0)["queue"] == 2
    gate.touch()
    any_rc.wait(timeout=60)
    assert queued.msg_ids[0] in any_rc.queue_status(verbose=True)[0]["completed"]
    with pytest.raises(IndexError):
        any_rc.queue_status(9)


def test_resubmitting(any_rc, gate):
    old = any_rc[0].apply_async(lambda: __import__("os").urandom(8))
    value = old.get(60)
    new = any_rc.resubmit(old)
    assert new.get(60) != value if isinstance(new.get(60), bytes) else new.get(60) != [value]
    assert new.msg_ids != old.msg_ids
    record = wait_until(lambda: any_rc.db_query({"msg_id": old.msg_ids[0], "resubmitted": {"$ne": None}}))[0]
    assert record["resubmitted"] == new.msg_ids[0]
    pending = any_rc[0].apply_async(hold, str(gate))
    with pytest.raises(er.PendingTask):
        any_rc.resubmit(pending)
    with pytest.raises(er.UnknownTask):
        any_rc.resubmit("nothing")
    gate.touch()
    assert any_rc.wait(timeout=60)


def test_history_and_queries(any_rc):
    mine = {"client_uuid": any_rc.session.session}
    view = any_rc.load_balanced_view(label="question")
    good, bad = view.apply_async(abs, -1), view.apply_async(lambda: 1 / 0)
    any_rc.wait(timeout=60)
    assert any_rc.hub_history()[-2:] == [*good.msg_ids, *bad.msg_ids]
    query = any_rc.db_query
    assert [r["msg_id"] for r in query({**mine, "state": "failed"})] == bad.msg_ids
    assert [r["msg_id"] for r in query({**mine, "result_content.ename": "ZeroDivisionError"})] == bad.msg_ids
    hour_ago = datetime.datetime.now() - datetime.timedelta(hours=1)
    assert len(query({**mine, "label": "question", "submitted": {"$gt": hour_ago}})) == 2
    assert query({**mine, "submitted": {"$lt": hour_ago}}) == []
    assert [set(r) for r in query({**mine, "label": "question"}, keys="label")] == [{"msg_id", "label"}] * 2
    [last] = query({**mine, "label": "question"}, sort="-submitted", limit=1)
    assert last["msg_id"] == bad.msg_ids[0]
    assert "buffers" not in last
    assert last["completed"].tzinfo is not None
    assert any_rc.db_count({**mine, "label": {"$in": ["question"]}}) == 2
    for wrong in ({"nonsense": 1}, {"state": {"$nope": 1}}, {"$or": 5}, {"state": object()}, "state", {5: 1}):
        with pytest.raises(er.QueryError):
            query(wrong)
    with pytest.raises(er.QueryError, match="nonsense"):
        query({}, keys=["nonsense"])


@pytest.mark.fault(42)
def test_purging(any_rc, gate):
    def known(ids):
        return {r["msg_id"] for r in any_rc.db_query({"msg_id": {"$in": list(ids)}}, keys=["msg_id"])}

    view = any_rc[0].set_flags(label="purge")
    results = [view.apply_async(abs, -x) for x in range(4)]
    any_rc.wait(timeout=60)
    ids = [r.msg_ids[0] for r in results]
    any_rc.purge_results(results[0])
    assert known(ids) == set(ids[1:])
    with pytest.raises(er.UnknownTask):
        any_rc.get_result(ids[0], owner=False).get(60)
    with pytest.raises(er.UnknownTask):
        any_rc.purge_results([ids[1], "nothing"])
    assert known(ids) == set(ids[1:]), "nothing was purged"
    any_rc.purge_results(query={"label": "purge", "msg_id": ids[1]})
    assert known(ids) == set(ids[2:])
    with pytest.raises(ValueError, match="name what"):
        any_rc.purge_results()
    pending = any_rc[0].apply_async(hold, str(gate))
    with pytest.raises(er.PendingTask):
        any_rc.purge_results(pending)
    with pytest.raises(er.PendingTask):
        any_rc.purge_local_results(pending)
    wait_until(lambda: any_rc.db_count({"msg_id": pending.msg_ids[0], "engine_id": 0}) == 1)
    any_rc.purge_results(targets=[0])
    any_rc.purge_hub_results(targets=[0])
    assert known([*ids, *pending.msg_ids]) == set(pending.msg_ids)
    gate.touch()
    assert pending.get(60) is None
    assert pending.msg_ids[0] in any_rc.results, "a task that runs is not purged"
    any_rc.purge_everything()
    assert any_rc.hub_history() == []
    assert any_rc.history == []


def test_the_record_of_any_failed_task_has_its_error(any_rc):
    view = any_rc.load_balanced_view()
    chunk = view.map_async(divmod, [1, 1], [1, 0], chunksize=2)
    results = [view.apply_async(divmod, 1, 0), any_rc[0].execute("1 / 0"), chunk]
    any_rc.wait(results, 60)
    for result in results:
        [record] = any_rc.db_query({"msg_id": result.msg_ids[0]}, keys=["error", "result_content"])
        assert record["error"]["ename"] == "ZeroDivisionError"
        assert record["error"]["traceback"] == record["result_content"]["traceback"]
    these = {"$in": [result.msg_ids[0] for result in results]}
    assert any_rc.db_count({"error.ename": "ZeroDivisionError", "msg_id": these}) == 3


def test_records_have_the_keys_that_were_asked_for(any_rc, tmp_path):
    cell = any_rc[0].execute("1 / 0")
    with pytest.raises(er.RemoteError):
        cell.get(60)
    query = {"msg_id": cell.msg_ids[0]}
    [record] = any_rc.db_query(query, keys=["error", "execute_input", "label"])
    assert list(record) == ["msg_id", "error", "execute_input", "label"]
    assert record["error"]["ename"] == "ZeroDivisionError"
    assert record["pyerr"] == record.get("pyerr") == record["error"]
    assert "pyerr" in record
    assert "pyout" not in record
    with pytest.raises(KeyError, match="execute_result"):
        record["execute_result"]
    assert list(any_rc.db_iter(query, "error")) == [{"msg_id": cell.msg_ids[0], "error": record["error"]}]
    assert list(any_rc.db_query(query, "pyerr")[0]) == ["msg_id", "pyerr"]
    any_rc.export(tmp_path / "records.csv", query, ["execute_input"])
    assert (tmp_path / "records.csv").read_text().splitlines()[0] == "msg_id,execute_input"


def test_frames_have_the_columns_that_were_asked_for(rc):
    pytest.importorskip("pandas")
    rc[0].apply_sync(abs, -1)
    for query in ({}, {"label": "nobody"}):
        assert list(rc.db_query(query, ["error"], limit=1, as_frame="pandas").columns) == ["msg_id", "error"]
