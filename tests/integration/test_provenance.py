"""Where a task came from, run again here, answered from the database, acted upon by query."""

from __future__ import annotations

import csv
import json
import linecache
import os
import signal
import sys
import time
import traceback
import types

import pytest
from conftest import hold, wait_until

import engineroom as er
from engineroom.client.records import replay as replaying


def record_of(rc, result):
    return rc.db_query({"msg_id": result.msg_ids[0]})[0]


def pid():
    return os.getpid()


# attempts


def test_every_attempt_is_a_row(any_rc):
    view = any_rc.load_balanced_view(retries=1)
    good, bad = view.apply_async(pid), view.apply_async(lambda: 1 / 0)
    any_rc.wait(timeout=60)
    [attempt] = record_of(any_rc, good)["attempts"]
    assert attempt["host"] == os.uname().nodename
    assert (attempt["cause"], attempt["traceback"]) == ("ok", None)
    assert attempt["peak_memory"] > 1 << 20
    first, second = record_of(any_rc, bad)["attempts"]
    for attempt in (first, second):
        assert attempt["cause"].startswith("ZeroDivisionError")
        assert "in <lambda>" in attempt["traceback"]
    ids = {"msg_id": {"$in": [*good.msg_ids, *bad.msg_ids]}}
    assert any_rc.db_count({**ids, "attempts.cause": {"$regex": "^Zero"}}) == 1
    assert any_rc.db_count({**ids, "attempts.host": os.uname().nodename, "attempts.peak_memory": {"$gt": 1}}) == 2


@pytest.mark.fault(5)
def test_of_a_killed_engine_the_nanny_reports_the_memory(fresh_cluster):
    rc = fresh_cluster(1)

    def die():
        kept = bytearray(80 << 20)
        os.kill(os.getpid(), signal.SIGKILL)
        return kept

    for view in (rc[0], rc.load_balanced_view()):
        rc.wait_for_engines(1, timeout=30)
        result = view.apply_async(die)
        result.wait(60)
        [attempt] = record_of(rc, result)["attempts"]
        assert "SIGKILL" in attempt["cause"]
        assert attempt["peak_memory"] > 80 << 20
        assert attempt["traceback"] is None
        wait_until(lambda: rc.ids == [0])


# provenance


def test_a_record_tells_with_what_its_task_was_made(any_rc):
    result = any_rc.load_balanced_view().apply_async(pid)
    result.get(60)
    record = record_of(any_rc, result)
    assert record["function_name"] == f"{__name__}.pid"
    told = any_rc.provenance(result)
    assert told["function"]["source"] == "def pid():\n    return os.getpid()\n"
    assert told["function"]["digest"] == record["function"]
    assert told["environment"]["python"] == sys.version.split()[0]
    assert told["environment"]["cwd"] == os.getcwd()
    assert "msgspec" in told["environment"]["packages"]
    assert told["engines"] == [os.uname().nodename]
    assert told["cached_from"] is None
    cell = any_rc[0].execute("1 + 1")
    cell.get(60)
    assert any_rc.provenance(cell)["function"] is None
    assert any_rc.db_count({"msg_id": {"$in": result.msg_ids}, "function_name": {"$glob": "*.pid"}}) == 1
    with pytest.raises(er.UnknownTask):
        any_rc.provenance("nothing")


# replay


def test_a_recorded_call_runs_again_here(any_rc, typed):
    f = typed("offset = 10\ndef f(x, *, y=0):\n    return x + y + offset + __import__('os').getpid() * 0")
    view = any_rc.load_balanced_view()
    first = view.apply_async(f, 1, y=2)
    second = view.apply_async(f, first)
    assert second.get(60) == 23
    typed("offset = 99")
    assert any_rc.replay(first) == 13, "with what travelled then"
    assert any_rc.replay(second) == 23, "with the recorded result of the first"
    assert sys.modules["__main__"].offset == 99
    assert any_rc.replay(view.map_async(f, [1, 2], chunksize=2)) == [100, 101]
    here = any_rc[0].apply_async(pid)
    assert here.get(60) != any_rc.replay(here) == os.getpid()


def test_a_replayed_error_is_the_error_itself_with_a_traceback_of_here(any_rc, typed, monkeypatch):
    f = typed("class Mine(Exception):\n    pass\ndef f(x):\n    raise KeyError(x)")
    bad = any_rc.load_balanced_view().apply_async(f, "k")
    with pytest.raises(er.RemoteError):
        bad.get(60)
    with pytest.raises(KeyError) as raised:
        any_rc.replay(bad)
    assert raised.value.args == ("k",)
    assert traceback.extract_tb(raised.value.__traceback__)[-1].name == "f"
    seen = []
    monkeypatch.setattr(replaying, "post_mortem", seen.append)
    with pytest.raises(KeyError):
        any_rc.replay(bad, debug=True)
    assert seen[0].tb_frame.f_code.co_name == "f"
    assert seen[0].tb_frame.f_locals == {"x": "k"}


def test_a_cell_runs_in_a_fresh_namespace(any_rc, capsys):
    any_rc[0].push({"pushed": 5}, block=True)
    cell = any_rc[0].execute("print(pushed + 1)")
    cell.get(60)
    with pytest.raises(NameError):
        any_rc.replay(cell)
    assert any_rc.replay(cell, namespace={"pushed": 6}) is None
    assert capsys.readouterr().out == "7\n"
    assert f"<cell of {cell.msg_ids[0]}>" in linecache.cache


def test_what_cannot_be_replayed_says_why(any_rc):
    with pytest.raises(er.UnknownTask, match="no such task"):
        any_rc.replay("nothing")
    first = any_rc.load_balanced_view().apply_async(abs, -1)
    second = any_rc.load_balanced_view().apply_async(abs, first)
    second.get(60)
    any_rc.purge_results(first)
    with pytest.raises(er.UnknownTask, match="an argument of this one"):
        any_rc.replay(second)


# reuse


@pytest.fixture
def stamped(typed):
    """A function whose every run gives another value."""
    return typed("def stamped(x):\n    import time\n    return x, time.time_ns()")


def test_an_equal_call_is_answered_from_the_database(any_rc, stamped):
    view = any_rc.load_balanced_view(cache=True, label="again")
    first = view.apply_async(stamped, 1)
    value = first.get(60)
    assert first.metadata["cached_from"] is None
    again = view.apply_async(stamped, 1)
    assert again.get(60) == value
    assert again.metadata["cached_from"] == first.msg_ids[0]
    assert again.metadata["engine_id"] is None
    record = record_of(any_rc, again)
    assert (record["cached_from"], record["state"], record["label"]) == (first.msg_ids[0], "completed", "again")
    assert (record["attempts"], record["started"]) == ([], None)
    assert first.msg_ids[0] in str(any_rc.explain(again))
    third = view.apply_async(stamped, 1)
    assert (third.get(60), third.metadata["cached_from"]) == (value, first.msg_ids[0])
    assert view.apply_sync(stamped, 2) != value
    assert any_rc.load_balanced_view().apply_sync(stamped, 1) != value, "only where it is asked for"
    with er.Client(any_rc.connection) as other:
        assert other.load_balanced_view().apply_with_flags(stamped, (1,), cache=True).get(60) == value
        assert other.get_result(again.msg_ids[0]).get(60) == value


def test_maps_are_answered_item_by_item(any_rc, stamped):
    view = any_rc.load_balanced_view(cache=True)
    values = dict(view.map_sync(stamped, [1, 2, 3]))
    more = view.map_async(stamped, [3, 4, 1])
    found = dict(more.get())
    assert (found[1], found[3]) == (values[1], values[3])
    assert [r["cached_from"] is None for r in any_rc.db_query({"msg_id": {"$in": more.msg_ids}})] == [
        False,
        True,
        False,
    ]
    many = view.map_async(stamped, range(1200))
    assert len(many.get()) == len(many.msg_ids) == 1200
    assert dict(many.get())[2] == values[2]


def test_a_large_result_is_answered_too(any_rc, typed):
    np = pytest.importorskip("numpy")
    f = typed("def f(n):\n    import numpy\n    return numpy.random.random(n)")
    view = any_rc.load_balanced_view(cache=True)
    first, again = view.apply_sync(f, 100_000), view.apply_sync(f, 100_000)
    assert np.array_equal(first, again)


def test_a_resubmitted_task_runs(any_rc, stamped):
    view = any_rc.load_balanced_view(cache=True)
    first = view.apply_async(stamped, 1)
    first.get(60)
    fresh = any_rc.resubmit(first)
    assert fresh.get(60) != first.get()
    assert view.apply_sync(stamped, 1) == fresh.get(), "the latest is used"


def test_tasks_that_depend_on_an_answered_one_go_on(any_rc, stamped):
    view = any_rc.load_balanced_view(cache=True)
    value = view.apply_sync(stamped, 1)
    hit = view.apply_async(stamped, 1)
    after = any_rc.load_balanced_view(after=hit).apply_async(abs, -1)
    takes = view.apply_async(tuple, hit)
    assert after.get(60) == 1
    assert takes.get(60) == value
    assert "it was not looked up" in str(any_rc.explain(takes))


def test_explain_tells_why_a_call_did_not_hit(any_rc, typed, gate):
    view = any_rc.load_balanced_view(cache=True)

    def why(source, *args):
        typed(source)
        result = view.apply_async(sys.modules["__main__"].unheard, *args)
        result.wait(60)
        return result, str(any_rc.explain(result))

    first, words = why("def unheard(x):\n    return 1 / x", 0)
    assert "never called with cache=True" in words
    assert f"{first.msg_ids[0]}, failed: ZeroDivisionError" in why("def unheard(x):\n    return 1 / x", 0)[1]
    assert "the arguments differ" in why("def unheard(x):\n    return 1 / x", 1)[1]
    assert "the function has changed" in why("def unheard(x):\n    return 2 / x", 1)[1]
    assert "with the result of" in why("\n\ndef unheard(x):\n    # on another line\n    return 2 / x", 1)[1]
    waiting = any_rc.load_balanced_view(cache=True, targets=[0])
    with_work = any_rc[0].apply_async(hold, str(gate))
    held = waiting.apply_async(typed("def held():\n    return 1"))
    wait_until(lambda: "queued: it is being looked up" not in str(any_rc.explain(held)))
    assert "held was never called" in str(any_rc.explain(held))
    gate.touch()
    assert held.get(60) == 1
    with_work.get(60)


def test_what_is_aborted_while_it_is_looked_up_does_not_run(any_rc, stamped):
    for _ in range(20):
        result = any_rc.load_balanced_view(cache=True).apply_async(time.sleep, 60)
        any_rc.cancel(result, block=True)
        with pytest.raises(er.TaskAborted):
            result.get(60)
    result = any_rc.load_balanced_view(cache=True).apply_async(time.sleep, 60)
    any_rc.cancel()
    with pytest.raises(er.TaskAborted):
        result.get(60)


def test_without_a_database_nothing_is_answered_and_that_is_said(unrecorded_cluster, gate):
    with unrecorded_cluster.connect_client_sync() as rc:
        rc.wait_for_engines(2, timeout=30)
        with pytest.warns(UserWarning, match="keeps no task records"):
            view = rc.load_balanced_view(cache=True)
        assert [view.apply_sync(abs, -1) for _ in range(2)] == [1, 1]
        result = view.apply_async(hold, str(gate))
        wait_until(lambda: rc.explain(result)["state"] != "unknown")
        assert "keeps no task records" in str(rc.explain(result))
        gate.touch()
        result.get(60)


def test_the_flag_is_true_or_false_and_of_load_balanced_views(any_rc):
    for wrong in (2, "yes", None):
        with pytest.raises(er.ConfigError, match="cache is True or False"):
            any_rc.load_balanced_view(cache=wrong)
    with pytest.raises(er.ConfigError, match="no flag 'cache'"):
        any_rc[0].set_flags(cache=True)


# by query


@pytest.fixture
def mixed(any_rc):
    """Two completed tasks, one failed, and one that runs for a while, under one label."""
    label = f"mixed{time.time_ns()}"
    view = any_rc.load_balanced_view(label=label)
    done = [view.apply_async(abs, -x) for x in (1, 2)]
    bad = view.apply_async(lambda: 1 / 0)
    any_rc.wait([*done, bad], 10)
    pending = view.apply_async(time.sleep, 30)
    wait_until(lambda: any_rc.db_count({"msg_id": pending.msg_ids[0], "state": "running"}))
    yield types.SimpleNamespace(
        query={"label": label}, done=[d.msg_ids[0] for d in done], bad=bad.msg_ids[0], pending=pending.msg_ids[0]
    )
    any_rc.cancel(pending)
    any_rc.wait(pending, 10)


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(any_rc, mixed):
    finished, pending = [*mixed.done, mixed.bad], [mixed.pending]
    before = any_rc.db_query(mixed.query)
    for act, expected in (
        (any_rc.resubmit, finished), (any_rc.purge_results, finished), (any_rc.abort, pending),
        (any_rc.cancel, pending), (any_rc.wait, pending),
    ):  # fmt: skip
        chosen = act(query=mixed.query, dry_run=True)
        assert isinstance(chosen, er.Selection)
        assert (chosen.count, chosen.first, chosen.dry_run) == (len(expected), expected, True)
        assert chosen.left_out == 4 - len(expected)
        assert "would" in repr(chosen)
        assert "left out" in repr(chosen)
        assert len(chosen) == len(expected)
    assert any_rc.export("/nonexistent/x.csv", mixed.query, dry_run=True).count == 4
    assert any_rc.db_query(mixed.query) == before


def test_acting_by_query(any_rc, mixed):
    again = any_rc.resubmit(query={**mixed.query, "result_content.ename": "ZeroDivisionError"})
    assert again.selection.first == [mixed.bad]
    assert any_rc.wait(again, 10)
    assert any_rc.cancel(query=mixed.query, block=True).first == [mixed.pending]
    assert any_rc.wait(query=mixed.query, timeout=10) is True
    assert any_rc.db_query({"msg_id": mixed.pending}, "state")[0]["state"] == "aborted"
    purged = any_rc.purge_results(query={**mixed.query, "state": "completed"})
    assert (purged.count, purged.first, purged.dry_run) == (2, mixed.done, False)
    assert any_rc.db_count(mixed.query) == 3


@pytest.mark.fault(42)
def test_pending_tasks_are_left_out_and_that_is_said(any_rc, mixed):
    purged = any_rc.purge_results(query=mixed.query)
    assert (purged.count, purged.left_out) == (3, 1)
    assert "1 unfinished one left out" in str(purged)
    assert any_rc.db_query(mixed.query, "msg_id") == [{"msg_id": mixed.pending}]
    again = any_rc.resubmit(query=mixed.query)
    assert (again.selection.count, again.selection.left_out) == (0, 1)


def test_a_session_narrows_queries_and_actions(any_rc, mixed):
    with er.Client(any_rc.connection) as other:
        theirs = other.load_balanced_view(label=mixed.query["label"]).apply_async(lambda: 1 / 0)
        theirs.wait(60)
        failed = {**mixed.query, "state": "failed"}
        assert any_rc.db_count(failed) == 2
        assert [r["msg_id"] for r in any_rc.db_query(failed, "msg_id", session="mine")] == [mixed.bad]
        assert [r["msg_id"] for r in any_rc.db_iter(failed, "msg_id", session=other)] == theirs.msg_ids
        assert any_rc.db_count({}, session=other.session.session[:10]) == 1
        assert any_rc.db_distinct("state", session=other) == ["failed"]
        assert any_rc.db_group("state", session=other) == [{"key": "failed", "count": 1}]
        assert any_rc.hub_history(session=other) == theirs.msg_ids
        would = any_rc.resubmit(query=failed, dry_run=True)
        assert (would.count, would.others, would.other_sessions) == (2, 1, 1)
        assert "; 1 of 1 other session" in repr(would)
        assert any_rc.export("/nonexistent/x.csv", failed, session="mine", dry_run=True).count == 1
        for act in (any_rc.resubmit, any_rc.purge_results):
            assert act(query=failed, session="mine", dry_run=True).first == [mixed.bad]
        for act in (any_rc.abort, any_rc.cancel, any_rc.wait):
            assert act(query="all", session=other, dry_run=True).count == 0
            with pytest.raises(ValueError, match="narrows a query"):
                act(session="mine")
        assert any_rc.pin(query=mixed.query, session=other) == any_rc.unpin(query=mixed.query, session=other) == 1
        again = any_rc.resubmit(query=failed, session="mine")
        assert again.selection.first == [mixed.bad]
        any_rc.wait(again, 10)
        assert any_rc.purge_hub_results(query="all", session=other) == 1


def test_acting_on_everything_needs_a_word(any_rc):
    for act in (any_rc.resubmit, any_rc.purge_results, any_rc.abort, any_rc.cancel, any_rc.wait):
        with pytest.raises(ValueError, match='query="all"'):
            act(query={})
        with pytest.raises(er.QueryError, match="did you mean 'label'"):
            act(query={"lable": "x"}, dry_run=True)
        with pytest.raises(ValueError, match="give query="):
            act(dry_run=True)
        with pytest.raises(ValueError, match="not both"):
            act("x", query={"label": "x"})
    assert any_rc.purge_results(query="all", dry_run=True).count >= 0
    with pytest.raises(er.QueryError):
        any_rc.purge_results(query="everything")


def test_records_are_exported(any_rc, mixed, tmp_path):
    ids = [*mixed.done, mixed.bad, mixed.pending]
    assert any_rc.export(tmp_path / "a.jsonl", mixed.query).count == 4
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["msg_id"] for line in lines] == ids
    assert lines[2]["attempts"][0]["cause"].startswith("ZeroDivisionError")
    any_rc.export(tmp_path / "a.csv", mixed.query, ["state", "submitted", "result_content", "error"])
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["completed", "completed", "failed", "running"]
    assert json.loads(rows[2]["result_content"])["ename"] == "ZeroDivisionError"
    assert any_rc.export(tmp_path / "all.csv").count == any_rc.db_count({})
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    any_rc.export(tmp_path / "a.parquet", mixed.query)
    frame = pandas.read_parquet(tmp_path / "a.parquet")
    assert list(frame["msg_id"]) == ids
    assert frame["submitted"].dt.tz is not None
    with pytest.raises(er.ConfigError, match="none of those endings"):
        any_rc.export(tmp_path / "a.txt", mixed.query)
    with pytest.raises(er.QueryError):
        any_rc.export(tmp_path / "b.csv", mixed.query, ["nonsense"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.jsonl", "a.parquet", "all.csv"]
