"""Tasks that run: their state, their engine and start in records, and their output, for any client."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from conftest import wait_until

import engineroom as er


@pytest.fixture
def other(rc):
    """A second client of the same cluster."""
    with er.Client(rc.connection) as client:
        yield client


def talk_until(path: str) -> str:
    """Print, and go on until a file is there."""
    print("begun", flush=True)
    print("a complaint", file=sys.stderr, flush=True)
    while not os.path.exists(path):
        time.sleep(0.01)
    print("ended")
    return path


def state_of(client: er.Client, id: str) -> str:
    [record] = client.db_query({"msg_id": id}, "state")
    return str(record["state"])


def test_a_task_that_runs_is_a_record_that_says_so(rc, tmp_path):
    end = str(tmp_path / "end")
    view = rc.load_balanced_view(label=f"runs {time.time_ns()}")
    quick = view.apply_async(abs, -1)
    quick.get(60)
    result = view.apply_async(talk_until, end)
    [id] = result.msg_ids
    wait_until(lambda: state_of(rc, id) == "running")
    [record] = rc.db_query({"state": "running", "label": view.label})
    assert record["msg_id"] == id
    assert record["engine_id"] in rc.ids
    assert record["engine_uuid"]
    assert record["submitted"] <= record["started"]
    assert (record["completed"], record["duration"], record["attempts"]) == (None, None, [])
    assert [r["msg_id"] for r in rc.db_query({"completed": None, "label": view.label})] == [id]
    assert rc.db_count({"state": "pending", "label": view.label}) == 0
    assert rc.result_status([id]) == {"pending": [id], "completed": []}
    assert "has been running on engine" in str(rc.explain(result))
    running = rc.queue_status(record["engine_id"])["running"]
    assert (running["msg_id"], running["label"]) == (id, view.label)
    assert "talk_until" in running["function"]
    assert rc.queue_status(record["engine_id"])["memory"] > 1 << 20
    with pytest.raises(er.PendingTask):
        rc.purge_results(id)
    open(end, "w").close()
    assert result.get(60) == end
    assert state_of(rc, id) == "completed"
    assert rc.db_count({"state": "running", "label": view.label}) == 0


def test_another_client_reads_what_a_running_task_prints(rc, other, tmp_path):
    end = str(tmp_path / "end")
    result = rc.load_balanced_view().apply_async(talk_until, end)
    wait_until(lambda: "begun" in result.stdout and "complaint" in result.stderr)
    late = other.get_result(result.msg_ids[0])
    assert late.stdout == "begun\n", "it was printed before this client asked"
    assert late.stderr == "a complaint\n"
    assert late.engine_id == result.engine_id is not None
    assert late.started is not None
    again = other.get_result(result.msg_ids[0])
    assert again.stdout == "begun\n", "a second result of the same task"
    mine = rc.get_result(result.msg_ids[0])
    assert mine.stdout == "begun\n"
    open(end, "w").close()
    assert late.get(60) == again.get(60) == mine.get(60) == end
    assert late.stdout == again.stdout == mine.stdout == "begun\nended\n"


def test_when_the_engine_of_a_running_task_dies_it_runs_no_more(fresh_cluster, tmp_path):
    rc = fresh_cluster()
    end = str(tmp_path / "end")
    result = rc.load_balanced_view(retries=2).apply_async(talk_until, end)
    [id] = result.msg_ids
    wait_until(lambda: state_of(rc, id) == "running")
    first = rc.db_query({"msg_id": id})[0]
    os.kill(rc.queue_status(first["engine_id"])["pid"], signal.SIGKILL)

    def runs_again():
        record = rc.db_query({"msg_id": id})[0]
        return record["state"] == "running" and record["engine_uuid"] != first["engine_uuid"] and record

    second = wait_until(runs_again)
    assert second["started"] > first["started"]
    assert [a["engine_uuid"] for a in second["attempts"]] == [first["engine_uuid"]]
    open(end, "w").close()
    assert result.get(60) == end


def test_what_is_known_of_a_task_outlives_its_engine_and_its_cluster(fresh_cluster, tmp_path):
    rc = fresh_cluster(n=1)
    view = rc.load_balanced_view()

    def runs():
        result = view.apply_async(talk_until, str(tmp_path / "never"))
        wait_until(lambda: "begun" in result.stdout and "complaint" in result.stderr and result.started)
        return result, (result.stdout, result.stderr, result.started, result.engine_id)

    dead, shown = runs()
    [id] = dead.msg_ids
    os.kill(rc.queue_status(dead.engine_id)["pid"], signal.SIGKILL)
    with pytest.raises(er.EngineError, match="was lost while running"):
        dead.get(60)
    assert (dead.stdout, dead.stderr, dead.started, dead.engine_id) == shown
    [record] = rc.db_query({"msg_id": id})
    assert (record["stdout"], record["stderr"], record["started"], record["engine_id"]) == shown
    assert record["duration"] > 0
    assert [attempt["started"] for attempt in record["attempts"]] == [record["started"]]
    with er.Client(rc.connection) as another:  # the cluster's own client is closed with it
        view = another.load_balanced_view()
        stopped, shown = runs()
        rc.cluster.stop_cluster_sync()
        with pytest.raises(er.TaskAborted):
            stopped.get(60)
        assert (stopped.stdout, stopped.stderr, stopped.started, stopped.engine_id) == shown


@pytest.mark.fault(11)
def test_a_task_runs_on_when_the_controller_is_started_again(fresh_cluster, tmp_path):
    rc = fresh_cluster()
    end = str(tmp_path / "end")
    result = rc.load_balanced_view().apply_async(talk_until, end)
    [id] = result.msg_ids
    wait_until(lambda: state_of(rc, id) == "running")
    before = rc.db_query({"msg_id": id})[0]
    os.kill(rc.cluster.controller.pid, signal.SIGKILL)
    after = wait_until(lambda: rc.db_query({"msg_id": id})[0])
    assert {k: after[k] for k in ("state", "engine_uuid", "started")} == {
        k: before[k] for k in ("state", "engine_uuid", "started")
    }
    wait_until(lambda: any((s["running"] or {}).get("msg_id") == id for s in status_of(rc)))
    open(end, "w").close()
    assert result.get(60) == end
    assert state_of(rc, id) == "completed"


def status_of(rc: er.Client) -> list[dict]:
    status = rc.queue_status()
    return [inner for engine, inner in status.items() if engine != "unassigned"]


def test_short_tasks_are_never_said_to_run(rc):
    view = rc.load_balanced_view(label=f"short {time.time_ns()}")
    view.map_sync(abs, range(500), chunksize=1)
    assert rc.db_group("state", {"label": view.label}) == [{"key": "completed", "count": 500}]


def test_many_tasks_are_explained_by_reason(rc, tmp_path):
    view = rc.load_balanced_view(label=f"many {time.time_ns()}")
    end = str(tmp_path / "end")
    held = [view.apply_async(talk_until, end) for _ in range(40)]
    wait_until(lambda: rc.db_count({"state": "running", "label": view.label}) == 2)
    explained = rc.explain(held)
    assert len(explained) == 40
    assert len(str(explained).splitlines()) < 8, "one line for each reason"
    open(end, "w").close()
    rc.wait(held, 20)
    lines = str(rc.explain(held)).splitlines()
    assert len(lines) <= 2, "one for each engine"
    counts = [line.split()[0] for line in lines]
    assert sum(int(count) if count.isdecimal() else 1 for count in counts) == 40, "a single task is named"


def test_parts_of_records_under_dotted_keys(rc):
    view = rc.load_balanced_view(label=f"parts {time.time_ns()}", metadata={"run": 7})
    view.apply_sync(abs, -1)
    query = {"label": view.label}
    [record] = rc.db_query(query, keys=["attempts.peak_memory", "metadata.run", "state"])
    assert set(record) == {"msg_id", "attempts.peak_memory", "metadata.run", "state"}
    assert record["metadata.run"] == 7
    assert record["attempts.peak_memory"][0] > 0
    [alone] = rc.db_query(query, keys="attempts.peak_memory")
    assert alone["attempts.peak_memory"] == record["attempts.peak_memory"]
    assert next(iter(rc.db_iter(query, "metadata.run")))["metadata.run"] == 7
    assert list(rc.db_query(query, "metadata.run", as_frame="pandas")["metadata.run"]) == [7]
    with pytest.raises(er.QueryError, match="did you mean 'metadata'"):
        rc.db_query(query, keys="metdata.run")


def test_the_tasks_of_a_map_keep_their_order(rc):
    view = rc.load_balanced_view(label=f"order {time.time_ns()}")
    ids = view.map(abs, range(300), chunksize=1).msg_ids
    rc.wait()
    newest = rc.db_query({"label": view.label}, "submitted", sort="-submitted")
    assert [record["msg_id"] for record in newest] == ids[::-1]
    assert rc.hub_history(session="mine")[-300:] == ids


def test_flags_pass_through_an_executor(rc):
    with rc.executor(retries=1, label="pool") as pool:
        assert pool.view.retries == 1
        assert pool.submit(abs, -1).result(60) == 1
