"""Classic tasks on real engines: data in and out, failure and recovery, properties, records."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import pytest
from conftest import wait_until

import engineroom as er
from engineroom.tasks import MapTask, Task, TaskClient, TaskResult
from engineroom.tasks.result import KEYS


@pytest.fixture
def tc(rc):
    rc[:].clear_properties(block=True)
    yield TaskClient(rc)
    rc[:].clear_properties(block=True)


def result_of(tc: TaskClient, task: Task | MapTask) -> TaskResult:
    id = tc.run(task)
    assert tc.barrier(id, timeout=30)
    result = tc.get_task_result(id)
    assert result is not None
    assert result.taskid == id
    return result


# ---------------------------------------------------------------------------------------------- running


def test_a_thousand_tasks_as_in_the_old_manual(tc):
    ids = [tc.run(Task(f"a = {n}", pull="a")) for n in range(1000)]
    assert ids == list(range(1000))
    assert tc.barrier(ids)
    result = tc.get_task_result(ids[73], block=True)
    assert repr(result) == "TaskResult[ID:73]:{'a': 73}"
    assert (result.results["a"], result.ns.a) == (73, 73)
    assert result.engineid in tc.client.ids
    assert result.submitted <= result.completed <= datetime.now(UTC)
    assert result.duration == pytest.approx((result.completed - result.submitted).total_seconds(), abs=1e-5)
    assert result.failure is None
    result.raise_exception()
    assert tc.queue_status() == {"scheduled": 0, "pending": 0, "succeeded": 1000, "failed": 0}


def test_while_a_task_has_not_finished_there_is_no_result(tc, tmp_path):
    id = tc.run(Task(f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)"))
    assert tc.get_task_result(id) is None
    assert tc.barrier(id, timeout=0.05) is False
    wait_until(lambda: tc.queue_status(verbose=True)["pending"] == [id])
    (tmp_path / "go").touch()
    assert tc.get_task_result(id, block=True).results == {}
    assert tc.queue_status(verbose=True) == {"scheduled": [], "pending": [], "succeeded": [id], "failed": []}


def test_names_go_in_and_come_out_and_the_namespace_is_cleared_when_it_is_said(tc):
    rc = tc.client
    rc[:].push({"old": 1}, block=True)
    assert result_of(tc, Task("c = a + old", pull=["c", "a"], push={"a": 1})).results == {"c": 2, "a": 1}
    cleared = result_of(tc, Task("there = 'old' in globals()", pull="there", push={"a": 1}, clear_before=True))
    assert cleared.ns.there is False
    rc[:].push({"old": 1}, block=True)
    done = result_of(tc, Task("b = 1", pull="b", clear_after=True))
    assert done.ns.b == 1
    assert rc[done.engineid].apply_sync(lambda: sorted({"old", "b"} & set(globals()))) == []
    rc[:].push({"old": 1}, block=True)
    failed = result_of(tc, Task("b = 1 / 0", clear_after=True))
    assert rc[failed.engineid].apply_sync(lambda: "old" in globals()) is False


def test_a_function_of_a_script_finds_its_helpers_though_the_namespace_is_cleared(tc, typed):
    call = typed("base = 40\ndef helper(x): return base + x\ndef call(x): return helper(x)")
    assert result_of(tc, MapTask(call, (2,), clear_before=True, clear_after=True)).result == 42


def test_a_map_task_may_push_and_pull_too(tc, typed):
    plus = typed("def plus(n): return a + n")
    result = result_of(tc, MapTask(plus, (1,), push={"a": 1}, pull="a"))
    assert (result.result, result.results) == (2, {"result": 2, "a": 1})
    assert result_of(tc, MapTask(int, ("ff",), {"base": 16})).result == 255
    with pytest.raises(AttributeError, match="has no result of a function"):
        result_of(tc, Task("a = 1", pull="a")).result  # noqa: B018


def test_large_arrays_and_results_of_views_may_be_pushed(tc):
    np = pytest.importorskip("numpy")
    numbers = np.arange(100_000)
    seven = tc.client.load_balanced_view().apply_async(abs, -7)
    result = result_of(
        tc, Task("total = numbers.sum() * seven", pull="total", push={"numbers": numbers, "seven": seven})
    )
    assert result.ns.total == numbers.sum() * 7


def test_a_task_is_read_when_it_is_run_and_may_be_run_again(tc):
    task = Task("b = a", pull="b", push={"a": 1})
    first = tc.run(task)
    task.push = {"a": 2}
    second = tc.run(task)
    assert [tc.get_task_result(id, block=True).ns.b for id in (first, second)] == [1, 2]


def test_several_threads_may_run_tasks(tc):
    found: list[tuple[int, int]] = []

    def work(start: int) -> None:
        for n in range(start, start + 50):
            id = tc.run(Task(f"a = {n}", pull="a"))
            found.append((n, tc.get_task_result(id, block=True).ns.a))

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 150
    assert all(n == a for n, a in found)
    assert len(tc._runs) == 150


def test_views_and_classic_tasks_share_engines_at_the_same_time(tc):
    view = tc.client.load_balanced_view()
    mine = [(view.apply_async(abs, -n), tc.run(Task(f"a = {n}", pull="a"))) for n in range(200)]
    for n, (result, id) in enumerate(mine):
        assert result.get(60) == n == tc.get_task_result(id, block=True).ns.a


# ---------------------------------------------------------------------------------------------- mistakes


def test_mistakes_are_named_at_the_call(tc):
    tc.run(Task("a = 1"))
    for nonsense in ("a = 1", None, 3, lambda: 1):
        with pytest.raises(TypeError, match="a Task or a MapTask"):
            tc.run(nonsense)
    for call in (tc.get_task_result, tc.abort, tc.barrier, tc.msg_id):
        for number in (99, -1):
            with pytest.raises(IndexError, match=f"no task {number}"):
                call(number)
        with pytest.raises(TypeError):
            call(True)
        with pytest.raises(TypeError):
            call(1.5)
    with pytest.raises(er.UnknownTask):
        tc.get_task_result("nobody")
    with pytest.raises(er.SerializationError, match=r"push\['bad'\]"):
        tc.run(Task("a = 1", push={"good": 1, "bad": threading.Lock()}))
    with pytest.raises(er.SerializationError, match=r"argument 1.*lock"):
        tc.run(MapTask(abs, (1, [threading.Lock()])))
    guard = threading.Lock()
    with pytest.raises(er.SerializationError, match="guard"):
        tc.run(Task("a = 1", depend=lambda properties: guard))
    with pytest.raises(er.SerializationError):
        tc.run(Task("1 / 0", recovery_task=Task("a = 1", push={"bad": guard})))
    assert tc.queue_status() == {"scheduled": 0, "pending": 0, "succeeded": 1, "failed": 0} or tc.barrier(0)
    assert tc.run(Task("a = 1")) == 1, "what was refused takes no number"


def test_what_a_task_client_is_made_from(rc, tmp_path):
    assert TaskClient(rc).client is rc
    profile_dir, cluster_id = rc.cluster.profile_dir if rc.cluster else None, rc.connection.cluster_id
    with TaskClient(profile_dir=profile_dir or rc.connection.profile_dir, cluster_id=cluster_id) as tc:
        assert result_of(tc, Task("a = 1", pull="a")).ns.a == 1
    with pytest.raises(er.ControllerLost):
        tc.run(Task("a = 1"))
    with pytest.raises(er.ConnectionFileError, match="copy ipcontroller-client"):
        TaskClient(("nowhere.example", 10113), ipython_dir=tmp_path)
    for nonsense in (3, ("host",), ("host", "port"), (1, 2)):
        with pytest.raises(TypeError):
            TaskClient(nonsense)
    with pytest.raises(TypeError, match="profile"):
        TaskClient(rc, profile="other")


def test_an_address_finds_its_connection_file(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    with er.Cluster(n=1, profile_dir=tmp_path / "profile_far", controller_ip="127.0.0.1") as rc:
        host, _, port = rc.connection.url.removeprefix("tcp://").rpartition(":")
        with TaskClient((host, int(port))) as tc:
            assert result_of(tc, Task("a = 1", pull="a")).ns.a == 1


# ---------------------------------------------------------------------------------------------- failure and recovery


def test_a_failure_is_an_exception(tc):
    result = result_of(tc, Task("a = 1\nb = 1 / 0", pull="a"))
    assert isinstance(result.failure, er.RemoteError)
    assert result.failure.ename == "ZeroDivisionError"
    assert "b = 1 / 0" in result.failure.traceback
    for ask in (result.raise_exception, lambda: result.results, lambda: result.ns, lambda: result.result):
        with pytest.raises(er.RemoteError, match="division by zero"):
            ask()
    assert repr(result).startswith(f"TaskResult[ID:{result.taskid}]:RemoteError")
    assert result_of(tc, Task("a = = 1")).failure.ename == "SyntaxError"


def test_a_name_that_is_not_there_to_be_pulled_is_the_tasks_failure(tc):
    result = result_of(tc, Task("a = 1", pull=["a", "missing"], clear_before=True))
    assert result.failure.ename == "NameError"
    assert "'missing'" in result.failure.evalue


def test_retries_count_and_the_namespace_is_cleared_before_each(tc, tmp_path):
    code = f"assert 'mark' not in globals(); mark = 1; open({str(tmp_path / 'log')!r}, 'a').write('x'); 1 / 0"
    assert result_of(tc, Task(code, retries=3, clear_before=True)).failure.ename == "ZeroDivisionError"
    assert (tmp_path / "log").read_text() == "xxxx"


def test_a_recovery_task_that_fails_goes_to_its_own(tc):
    last = Task("a = 'last'", pull="a")
    result = result_of(tc, Task("1 / 0", recovery_task=MapTask(int, ("x",), retries=1, recovery_task=last)))
    assert result.ns.a == "last"
    assert tc.queue_status() == {"scheduled": 0, "pending": 0, "succeeded": 1, "failed": 0}
    all_fail = result_of(tc, Task("1 / 0", recovery_task=Task("2 / 0", recovery_task=Task("[][1]"))))
    assert all_fail.failure.ename == "IndexError", "the last word"
    assert tc.queue_status()["failed"] == 1


def test_a_recovery_task_that_is_not_needed_is_not_run(tc, tmp_path):
    task = Task("a = 1", pull="a", recovery_task=Task(f"open({str(tmp_path / 'run')!r}, 'w')"))
    assert result_of(tc, task).ns.a == 1
    assert tc.client.wait(timeout=60)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_engines_that_die_are_failures_like_others(fresh_cluster):
    rc = fresh_cluster(n=2)
    tc = TaskClient(rc)
    die = "import os; os.kill(os.getpid(), 9)"
    fine = Task("a = 'fine'", pull="a", clear_before=True)
    assert result_of(tc, Task(die, recovery_task=Task(die, recovery_task=fine))).ns.a == "fine"
    assert isinstance(result_of(tc, Task(die)).failure, er.EngineError)
    first_only = (
        "import engineroom as er, os\nif er.current_task().attempt == 1: os.kill(os.getpid(), 9)\na = 'x' in globals()"
    )
    rc.wait_for_engines(2, timeout=30)
    rc[:].push({"x": 1}, block=True)
    assert result_of(tc, Task(first_only, pull="a", retries=1, clear_before=True)).ns.a is False


def test_aborting_ends_a_task_and_its_recovery(tc, tmp_path):
    path = str(tmp_path / "recovered")
    sleeper = Task("import time; time.sleep(600)", recovery_task=Task(f"open({path!r}, 'w')"))
    ids = [tc.run(sleeper) for _ in range(4)]
    wait_until(lambda: tc.queue_status()["pending"] > 0)
    for id in ids:
        tc.abort(id)
    assert tc.barrier(ids, timeout=20)
    assert {type(tc.get_task_result(id).failure) for id in ids} == {er.TaskAborted}
    with pytest.raises(IndexError, match="Task Already Completed"):
        tc.abort(ids[0])
    assert tc.queue_status()["failed"] == 4
    assert result_of(tc, Task("a = 1", pull="a")).ns.a == 1
    assert not os.path.exists(path)


# ---------------------------------------------------------------------------------------------- properties


def test_properties_are_set_and_read_from_both_ends(tc):
    rc = tc.client
    rc[:].set_properties({"a": 1, "b": [2]}, block=True)
    assert rc[0].get_properties(block=True) == {"a": 1, "b": [2]}
    assert rc[:].get_properties("a", block=True) == [{"a": 1}, {"a": 1}]
    assert rc[0].has_properties(["a", "c"], block=True) == [True, False]
    rc[0].del_properties("a", block=True)
    with pytest.raises(er.RemoteError, match="no property 'a'"):
        rc[0].get_properties(["b", "a"], block=True)
    with pytest.raises(er.RemoteError, match="no property 'zz'"):
        rc[0].del_properties(["b", "zz"], block=True)
    assert rc[0].get_properties(block=True) == {"b": [2]}, "all of them, or none"
    rc[1].execute("import engineroom as er; er.properties['c'] = 3; del er.properties['b']", block=True)
    assert rc[1].get_properties(block=True) == {"a": 1, "c": 3}
    rc[:].clear_properties(block=True)
    assert rc[:].get_properties(block=True) == [{}, {}]
    for call in (lambda: rc[0].set_properties(["a"]), lambda: rc[0].set_properties({1: 2})):
        with pytest.raises(TypeError):
            call()
    assert er.properties == {}, "the client has its own, which mean nothing"


def test_tasks_go_where_their_depend_is_true(tc):
    rc = tc.client
    rc[1].set_properties({"ram": 16}, block=True)
    ids = [tc.run(Task("a = 1", pull="a", depend=lambda properties: properties["ram"] > 8)) for _ in range(200)]
    assert tc.barrier(ids, timeout=30)
    assert {tc.get_task_result(id).engineid for id in ids} == {1}


def test_a_task_that_suits_nobody_waits_and_goes_when_properties_change(tc):
    rc = tc.client
    ids = [tc.run(Task("a = 1", pull="a", depend=lambda properties: properties["ram"] > 8)) for _ in range(500)]
    other = tc.run(Task("a = 2", pull="a"))
    assert tc.get_task_result(other, block=True).ns.a == 2, "others go on"
    wait_until(lambda: "KeyError: 'ram'" in str(rc.explain(tc.msg_id(ids[0]))))
    assert tc.queue_status() == {"scheduled": 500, "pending": 0, "succeeded": 1, "failed": 0}
    rc[0].set_properties({"ram": 9}, block=True)
    assert tc.barrier(ids, timeout=30)


def test_tasks_that_use_properties_up_leave_none_below_nothing(tc):
    rc = tc.client
    rc[0].set_properties({"ram": 5}, block=True)
    rc[1].set_properties({"ram": 3}, block=True)
    take = Task(
        "import engineroom as er; er.properties['ram'] -= 1",
        depend=lambda properties: properties["ram"] > 0,
    )
    ids = [tc.run(take) for _ in range(12)]
    wait_until(lambda: tc.queue_status()["succeeded"] == 8)
    # An engine may still be asked about them: then they are pending for a moment, and none is scheduled.
    wait_until(
        lambda: any("false" in str(rc.explain(tc.msg_id(n))) for n in tc.queue_status(verbose=True)["scheduled"])
    )
    assert rc[:].get_properties("ram", block=True) == [{"ram": 0}, {"ram": 0}]
    rc[1].set_properties({"ram": 4}, block=True)
    assert tc.barrier(ids, timeout=30)
    assert rc[:].get_properties("ram", block=True) == [{"ram": 0}, {"ram": 0}]


def test_spin_looks_at_what_nobody_has_told(tc, tmp_path):
    path, asked = str(tmp_path / "open"), tmp_path / "asked"
    asked.mkdir()

    def is_open(properties):
        import os
        from pathlib import Path

        Path(asked, str(os.getpid())).touch()
        return os.path.exists(path)

    id = tc.run(Task("a = 1", pull="a", depend=is_open))
    wait_until(lambda: len(list(asked.iterdir())) == len(tc.client))
    wait_until(lambda: "false" in str(tc.client.explain(tc.msg_id(id))))
    (tmp_path / "open").touch()
    assert tc.barrier(id, timeout=0.05) is False
    tc.spin()
    assert tc.barrier(id, timeout=20)


def test_a_depend_that_hangs_is_interrupted_and_counts_as_false(tc, monkeypatch):
    rc = tc.client

    def shorten(seconds):
        import engineroom.engine.main as main

        before, main.DEPENDENCY_SECONDS = main.DEPENDENCY_SECONDS, seconds
        return before

    before = rc[:].apply_sync(shorten, 0.2)[0]
    try:
        id = tc.run(Task("a = 1", depend=lambda properties: __import__("time").sleep(600)))
        wait_until(lambda: str(rc.explain(tc.msg_id(id))).count("took longer than 0.2 s") == 2)
        assert result_of(tc, Task("a = 1", pull="a")).ns.a == 1, "engines go on"
        tc.abort(id)
        assert tc.barrier(id, timeout=10)
    finally:
        rc[:].apply_sync(shorten, before)


def test_a_busy_engine_is_asked_when_it_is_free(tc, tmp_path):
    rc = tc.client
    go = str(tmp_path / "go")
    rc[0].set_properties({"ram": 9}, block=True)
    busy = rc[0].apply_async(
        lambda: [__import__("time").sleep(0.01) for _ in iter(lambda: __import__("os").path.exists(go), True)]
    )
    wait_until(busy.running)
    id = tc.run(Task("a = 1", pull="a", depend=lambda properties: properties["ram"] > 8))
    assert tc.barrier(id, timeout=0.1) is False
    (tmp_path / "go").touch()
    assert tc.get_task_result(id, block=True).engineid == 0


def test_a_thread_of_a_task_may_change_properties(tc):
    rc = tc.client
    id = tc.run(Task("a = 1", pull="a", depend=lambda properties: properties["late"]))
    code = (
        "import threading, time, engineroom as er\n"
        "def later():\n    time.sleep(0.1)\n    er.properties['late'] = True\n"
        "threading.Thread(target=later).start()"
    )
    rc[0].execute(code, block=True)
    assert tc.barrier(id, timeout=20)


@pytest.mark.slow
def test_a_new_engine_is_asked_too_and_properties_die_with_an_engine(fresh_cluster):
    rc = fresh_cluster(n=1)
    tc = TaskClient(rc)
    rc[0].set_properties({"ram": 9}, block=True)
    wants = Task("a = 1", pull="a", depend=lambda properties: properties["ram"] > 8)
    assert result_of(tc, wants).ns.a == 1
    pid = rc[0].apply_sync(os.getpid)
    os.kill(pid, 9)
    wait_until(lambda: rc.ids and rc[0].apply_async(os.getpid).get(return_exceptions=True) != pid)
    id = tc.run(wants)
    wait_until(lambda: "KeyError: 'ram'" in str(rc.explain(tc.msg_id(id))))
    rc[0].set_properties({"ram": 9}, block=True)
    assert tc.barrier(id, timeout=20)


@pytest.mark.slow
def test_a_killed_controller_goes_on_with_classic_tasks(fresh_cluster):
    rc = fresh_cluster(n=2)
    tc = TaskClient(rc)
    rc[1].set_properties({"ram": 9}, block=True)
    ids = [tc.run(Task(f"import time; time.sleep(0.01); a = {n}", pull="a")) for n in range(200)]
    choosy = [tc.run(Task("a = 1", pull="a", depend=lambda p: p["ram"] > 8)) for _ in range(50)]
    never = tc.run(Task("a = 1", depend=lambda p: p["ram"] > 10))
    failing = [tc.run(Task("1 / 0", recovery_task=Task("a = 'saved'", pull="a"))) for _ in range(20)]
    wait_until(lambda: tc.queue_status()["succeeded"] > 20)
    os.kill(rc.connection.pid, 9)
    assert tc.barrier([*ids, *choosy, *failing], timeout=90)
    assert [tc.get_task_result(id).ns.a for id in ids] == list(range(200))
    assert {tc.get_task_result(id).engineid for id in choosy} == {1}
    assert {tc.get_task_result(id).ns.a for id in failing} == {"saved"}
    assert tc.get_task_result(never) is None
    rc[0].set_properties({"ram": 11}, block=True)
    assert tc.barrier(never, timeout=30)


# ---------------------------------------------------------------------------------------------- order and records


def test_a_subclass_may_order_tasks(rc, tmp_path):
    class ByWish(TaskClient):
        def priority(self, task):
            return task.wish

    tc = ByWish(rc)
    go, log = tmp_path / "go", str(tmp_path / "log")
    blockers = [
        rc[engine].apply_async(
            lambda path: [
                __import__("time").sleep(0.01) for _ in iter(lambda: __import__("os").path.exists(path), True)
            ],
            str(go),
        )
        for engine in rc.ids
    ]
    wait_until(lambda: all(blocker.running() for blocker in blockers))
    ids = []
    rc[0].set_properties({"me": True}, block=False)
    for wish in (1, 3, 2):
        task = Task(f"open({log!r}, 'a').write('{wish}')", depend=lambda properties: properties["me"])
        task.wish = wish
        ids.append(tc.run(task))
    go.touch()
    assert tc.barrier(ids, timeout=20)
    assert (tmp_path / "log").read_text() == "321"
    rc[0].clear_properties(block=True)


def test_a_record_tells_the_result_in_any_session(any_rc):
    tc = TaskClient(any_rc)
    good = tc.run(Task("a = 'x' * 100_000", pull="a"))
    bad = tc.run(Task("1 / 0"))
    saved = tc.run(Task("1 / 0", recovery_task=Task("a = 'saved'", pull="a")))
    mapped = tc.run(MapTask(abs, (-3,)))
    tc.barrier([good, bad, saved, mapped])
    [record] = any_rc.db_query({"metadata.task": good, "client_uuid": any_rc.session.session}, KEYS)
    assert TaskResult.from_record(record).results == {"a": "x" * 100_000}
    with er.Client(any_rc.connection) as later:
        other = TaskClient(later)
        again = other.get_task_result(tc.msg_id(good), block=True)
        first = tc.get_task_result(good)
        assert (again.taskid, again.engineid, again.results) == (good, first.engineid, first.results)
        assert again.submitted == first.submitted
        assert other.get_task_result(tc.msg_id(bad)).failure.ename == "ZeroDivisionError"
        assert other.get_task_result(tc.msg_id(saved), block=True).ns.a == "saved"
        assert other.get_task_result(tc.msg_id(mapped)).result == 3
        plain = later.load_balanced_view().apply_async(abs, -4)
        assert other.get_task_result(plain.msg_ids[0], block=True).result == 4, "not a classic one"


def test_a_classic_task_can_be_resubmitted(tc):
    tc.client[1].set_properties({"ram": 9}, block=True)
    id = tc.run(Task("a = 5", pull="a", depend=lambda properties: properties["ram"] > 8))
    tc.barrier(id)
    again = tc.client.resubmit(tc.msg_id(id))
    assert again.get(60) == {"a": 5}
    assert again.engine_id == 1


@pytest.mark.slow
def test_when_a_client_dies_its_tasks_and_their_recovery_go_on(fresh_cluster, tmp_path):
    rc = fresh_cluster(n=1)
    script = tmp_path / "client.py"
    script.write_text(
        "import os, sys, engineroom as er\n"
        "from engineroom.tasks import Task, TaskClient\n"
        "tc = TaskClient(er.Client(sys.argv[1]))\n"
        "id = tc.run(Task('import time; time.sleep(1); 1 / 0', recovery_task=Task('a = 42', pull='a')))\n"
        "rc = tc.client\n"
        "while not rc.db_query({'msg_id': tc.msg_id(id)}): pass\n"
        "print(tc.msg_id(id), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    file = next((tmp_path / "cluster0").rglob("*-client.json"))
    told = subprocess.run([sys.executable, str(script), str(file)], capture_output=True, text=True, timeout=60)
    msg_id = told.stdout.strip()
    assert msg_id, told.stderr
    tc = TaskClient(rc)
    deadline = time.monotonic() + 30
    while (result := tc.get_task_result(msg_id, block=True)) is None:
        assert time.monotonic() < deadline
    assert result.ns.a == 42
