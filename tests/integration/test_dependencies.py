"""Graph dependencies on real engines: when, where, what is impossible; cancelling, and what tasks wait for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from conftest import wait_until

import engineroom as er


def fail(text="no"):
    raise ValueError(text)


def until(path, timeout=30.0):
    """Run until a file is there."""
    deadline = time.monotonic() + timeout
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.005)


@pytest.fixture
def gate(tmp_path, lb):
    """A task that runs until `gate.open()`."""

    class Gate:
        path = tmp_path / "gate"
        task = lb.apply_async(until, str(path))
        open = staticmethod(lambda: (tmp_path / "gate").touch())

    yield Gate
    Gate.open()
    Gate.task.wait(60)


# ---------------------------------------------------------------------------------------------- when


@pytest.mark.parametrize("kind", ["AsyncResult", "msg_id", "list", "Dependency", "tuple of lists"])
def test_a_task_waits_for_others_however_they_are_named(lb, gate, kind):
    id = gate.task.msg_ids[0]
    after = {
        "AsyncResult": gate.task,
        "msg_id": id,
        "list": [gate.task],
        "Dependency": er.Dependency(gate.task),
        "tuple of lists": ([id], [gate.task]),
    }[kind]
    with lb.temp_flags(after=after):
        waiting = lb.apply_async(abs, -1)
    assert lb.after is None
    assert lb.apply_async(abs, -2).get(60) == 2, "the other engine is free"
    assert not waiting.done()
    gate.open()
    assert waiting.get(60) == 1
    assert waiting.started >= gate.task.completed
    assert waiting.metadata["after"] == [id]


def test_a_dependency_says_which_ends_count(lb):
    good, bad = lb.apply_async(abs, -1), lb.apply_async(fail)
    for dependency in (
        er.Dependency([good, bad], all=False),
        er.Dependency([good, bad], failure=True),
        er.Dependency(bad, success=False, failure=True),
        er.Dependency([good, bad], all=False, success=False, failure=True),
    ):
        assert lb.apply_with_flags(abs, (-3,), after=dependency).get(60) == 3


def test_after_a_map_means_after_all_of_it(lb):
    items = lb.map_async(lambda x: time.sleep(0.0001), range(3000))
    after = lb.apply_with_flags(abs, (-1,), after=items)
    assert after.get(60) == 1
    assert items.done()
    assert after.started >= max(items.completed)
    assert items.get() == [None] * 3000


def test_a_whole_map_waits_also_what_is_cut_from_it_later(lb, gate):
    with lb.temp_flags(after=gate.task, label="waits"):
        result = lb.map_async(abs, range(-1200, 0))
    gate.open()
    assert result.get(60) == list(range(1200, 0, -1))
    assert len(result.msg_ids) > 8
    assert all(started >= gate.task.completed for started in result.started)
    records = lb.client.db_query({"msg_id": {"$in": result.msg_ids}}, keys="label")
    assert {record["label"] for record in records} == {"waits"}


def test_flags_for_a_while_hold_for_all_that_an_imap_submits(rc):
    view = rc.load_balanced_view()
    with view.temp_flags(label="lazy"):
        items = view.imap(abs, range(-100, 0), max_outstanding=4)
    assert list(items) == list(range(100, 0, -1))
    assert rc.db_count({"label": "lazy", "msg_id": {"$in": view.history}}) == 100


def test_tasks_of_other_clients_and_of_earlier_sessions_count(rc, cluster, gate):
    with cluster.connect_client_sync() as other:
        view = other.load_balanced_view()
        waiting = view.apply_with_flags(abs, (-1,), after=gate.task.msg_ids)
        ended = view.apply_async(abs, -2)
        ended.get(60)
        gate.open()
        assert waiting.get(60) == 1
    assert rc.load_balanced_view().apply_with_flags(abs, (-3,), after=ended.msg_ids).get(60) == 3


def test_a_timeout_ends_the_waiting(lb, gate):
    late = lb.apply_with_flags(abs, (-1,), after=gate.task, timeout=0.1)
    with pytest.raises(er.DependencyTimeout, match=r"waited 0\.1 s"):
        late.get(60)
    with pytest.warns(UserWarning, match="set run_timeout=0.1"):
        assert lb.apply_with_flags(abs, (-1,), timeout=0.1).get(60) == 1, "nothing to wait for"
    assert lb.apply_with_flags(abs, (-2,), timeout=0.1).get(60) == 2, "it is said once"


# ---------------------------------------------------------------------------------------------- where


def test_following_means_the_same_engine(rc):
    for number in rc.ids:
        first = rc.load_balanced_view(targets=number).apply_async(abs, -1)
        view = rc.load_balanced_view(follow=first)
        assert [view.apply_async(abs, -2).get_dict(10) for _ in range(4)] == [{number: 2}] * 4
        assert view.apply_async(abs, -2).metadata.follow == first.msg_ids


def test_following_tasks_of_two_engines_is_impossible_and_any_of_them_is_not(rc):
    both = [rc.load_balanced_view(targets=number).apply_async(abs, -1) for number in rc.ids]
    lb = rc.load_balanced_view()
    with pytest.raises(er.ImpossibleDependency, match="more than one engine"):
        lb.apply_with_flags(abs, (-1,), follow=both).get(60)
    assert lb.apply_with_flags(abs, (-1,), follow=er.Dependency(both, all=False)).get(60) == 1


# ---------------------------------------------------------------------------------------------- impossible


@pytest.mark.fault(41)
@pytest.mark.parametrize(
    ("ends", "options"),
    [
        ("+-", {}),
        ("--", {"all": False}),
        ("+-", {"success": False, "failure": True}),
        ("++", {"all": False, "success": False, "failure": True}),
    ],
)
def test_what_can_no_longer_be_met_is_said_at_once(lb, gate, ends, options):
    tasks = [lb.apply_async(abs, -1) if end == "+" else lb.apply_async(fail) for end in ends]
    other = [gate.task] if options.get("all", True) else []
    impossible = lb.apply_with_flags(abs, (-1,), after=er.Dependency([*tasks, *other], **options))
    with pytest.raises(er.ImpossibleDependency):
        impossible.get(60)
    assert not gate.task.done()


@pytest.mark.fault(41)
def test_an_unknown_task_is_impossible(lb):
    with pytest.raises(er.InvalidDependency, match="there is no such task"):
        lb.apply_with_flags(abs, (-1,), after="nobody-17").get(60)


@pytest.mark.fault(41)
def test_the_path_of_failures_is_named(lb):
    first = lb.apply_async(fail, "the root")
    second = lb.apply_with_flags(abs, (-1,), after=first)
    third = lb.apply_with_flags(abs, (-1,), after=second)
    with pytest.raises(er.ImpossibleDependency) as caught:
        third.get(60)
    text = str(caught.value)
    assert text.index(second.msg_ids[0]) < text.index(first.msg_ids[0]) < text.index("the root")


def test_direct_tasks_are_refused_at_the_call(rc, lb):
    direct = rc[0].apply_async(abs, -1)
    for flags in ({"after": direct}, {"follow": direct.msg_ids}, {"after": er.Dependency([direct])}):
        with pytest.raises(er.InvalidDependency, match="cannot depend on direct tasks"):
            lb.apply_with_flags(abs, (-1,), **flags)
    assert lb.apply_async(abs, -1).get(60) == 1


def test_direct_tasks_of_others_end_the_task(cluster, lb):
    with cluster.connect_client_sync() as other:
        direct = other[0].apply_async(abs, -1)
        with pytest.raises(er.InvalidDependency, match="direct task"):
            lb.apply_with_flags(abs, (-1,), after=direct.msg_ids).get(60)


# ---------------------------------------------------------------------------------------------- flags


def test_flags_are_given_at_once_for_a_while_or_for_one_call(rc):
    view = rc.load_balanced_view(priority=3, resources={"gpu": 1}, timeout=5, run_timeout=2.5, scheme="lru")
    assert (view.priority, view.resources, view.timeout, view.scheme) == (3, {"gpu": 1}, 5.0, "lru")
    with view.temp_flags(priority=-1, resources=None, timeout=0, scheme=None):
        assert view.apply_async(abs, -1).get(60) == 1
    assert (view.priority, view.resources, view.timeout, view.scheme) == (3, {"gpu": 1}, 5.0, "lru")
    options = view._task_options()
    assert options is view._task_options(), "made once"
    assert (options.priority, options.resources, options.run_timeout) == (3, {"gpu": 1}, 2.5)
    assert view.apply_with_flags(divmod, (7, 2), resources=None).get(60) == (3, 1)
    assert view.apply_with_flags(dict, kwargs={"a": 1}, resources=None, block=True) == {"a": 1}


def test_an_engine_may_have_as_many_units_as_a_resource_may_have(fresh_cluster):
    """The process that engines are forked from is told each of them."""
    rc = fresh_cluster(n=1, database="none", resources={"memory": 65_536})
    assert rc.load_balanced_view(resources={"memory": 65_536}).apply_sync(abs, -1) == 1


@pytest.mark.parametrize(
    "flags",
    [
        {"timeout": -1},
        {"priority": 1.5},
        {"priority": 1 << 40},
        {"resources": {"gpu": 0}},
        {"run_timeout": 0},
        {"scheme": "leastlaod"},
        {"hwm": 3},
    ],
)
def test_flags_that_make_no_sense_are_refused(rc, flags):
    with pytest.raises(er.ConfigError):
        rc.load_balanced_view(**flags)


@pytest.mark.parametrize("after", [5, [None], "", {"a": 1}])
def test_what_names_no_task_is_refused(lb, after):
    with pytest.raises(TypeError, match="after: a dependency names tasks"):
        lb.set_flags(after=after)
    assert lb.after is None


def test_pure_refuses_what_it_cannot_honour_and_runs_the_rest(rc, lb):
    view = rc.load_balanced_view(scheme="pure")
    assert view.map_sync(abs, range(-20, 0)) == list(range(20, 0, -1))
    for flags in ({"retries": 1}, {"priority": 2}, {"after": lb.apply_async(abs, 1)}, {"targets": 0}):
        with pytest.raises(er.ConfigError, match=f"cannot honour {next(iter(flags))}="):
            view.apply_with_flags(abs, (-1,), **flags)
    with pytest.raises(er.ConfigError, match="AsyncResults as arguments"):
        view.apply_async(abs, lb.apply_async(abs, 1))
    with pytest.raises(er.ConfigError, match="after="):
        view.run_graph({"b": ["a"]}, {"a": time.time, "b": time.time})


def test_run_timeout_ends_tasks_of_both_kinds_of_views(rc):
    for view in (rc[0], rc.load_balanced_view()):
        with view.temp_flags(run_timeout=0.1):
            stopped = view.apply_async(time.sleep, 60)
        with pytest.raises(er.TaskTimeout, match=r"0\.1 s"):
            stopped.get(20)


# ---------------------------------------------------------------------------------------------- cancel


def test_cancel_stops_what_is_running(lb):
    running = lb.apply_async(time.sleep, 60)
    wait_until(running.running)
    assert running.cancel() is True
    with pytest.raises(er.TaskAborted):
        running.get(60)
    assert running.cancelled()
    assert running.cancel() is False


@pytest.mark.fault(40)
def test_cancel_of_what_has_ended_changes_nothing(lb):
    ended = lb.apply_async(abs, -1)
    assert ended.get(60) == 1
    assert ended.cancel() is False
    assert not ended.cancelled()


def test_abort_leaves_alone_what_is_running(lb, gate):
    wait_until(gate.task.running)
    gate.task.abort()
    gate.open()
    assert gate.task.get(60) is None


def test_a_client_cancels_many_at_once(rc, lb):
    running = [lb.apply_async(time.sleep, 60) for _ in rc.ids]
    waiting = lb.map_async(time.sleep, [60] * 20)
    after = lb.apply_with_flags(abs, (-1,), after=running[0])
    wait_until(lambda: any(task.running() for task in running))
    rc.cancel(block=True)
    for result in (*running, waiting):
        assert result.wait(60)
        assert result.cancelled()
    assert isinstance(after.exception(20), er.TaskAborted | er.ImpossibleDependency)


def test_a_map_that_is_cancelled_submits_no_more(lb):
    growing = lb.map_async(time.sleep, [0.005] * 100_000)
    wait_until(lambda: growing.progress > 20)
    assert growing.cancel() is True
    with pytest.raises((er.TaskAborted, er.CompositeError)):
        growing.get(60)
    assert len(growing.msg_ids) < 1000


def test_an_executor_that_is_shut_down_cancels_what_is_pending_only(rc, gate):
    wait_until(gate.task.running)
    with rc.executor(targets=gate.task.engine_id) as executor:
        pending = executor.submit(abs, -1)
        executor.shutdown(wait=False, cancel_futures=True)
        assert isinstance(pending.exception(10), er.TaskAborted)
    assert not gate.task.done()


# ---------------------------------------------------------------------------------------------- explain


def test_explain_says_what_a_task_waits_for(rc, lb, gate):
    waiting = lb.apply_with_flags(abs, (-1,), after=gate.task)
    wait_until(gate.task.running)
    explanation = rc.explain(waiting)
    assert isinstance(explanation, er.Explanation)
    assert (explanation.msg_id, explanation.state) == (waiting.msg_ids[0], "waiting")
    assert gate.task.msg_ids[0] in explanation.reason
    assert explanation.details["after"]["pending"] == gate.task.msg_ids
    assert str(explanation) == f"{waiting.msg_ids[0]} is waiting: {explanation.reason}"
    held, unknown = rc.explain([gate.task, "nobody-1"])
    assert (held.state, unknown.state) == ("held", "unknown")
    gate.open()
    waiting.get(60)
    assert rc.explain(waiting).state == "ended"
    with pytest.raises(AttributeError, match="it has msg_id"):
        explanation.cause  # noqa: B018


def explain_in_a_terminal(cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engineroom.cli.engineroom", "explain"]
    folder = [f"--profile-dir={cluster.profile_dir}", f"--cluster-id={cluster.cluster_id}"]
    return subprocess.run([*command, *folder, *arguments], capture_output=True, text=True, timeout=60)


def test_explain_in_a_terminal(cluster, rc, lb, gate):
    waiting = lb.apply_with_flags(abs, (-1,), after=gate.task)
    failed = lb.apply_async(fail, "on purpose")
    failed.wait(60)
    session, number = waiting.msg_ids[0].split("-")
    said = explain_in_a_terminal(cluster, f"{session[:8]}-{number}", failed.msg_ids[0])
    assert said.returncode == 0, said.stderr
    first, second = said.stdout.split("\n\n")
    assert f"Task {waiting.msg_ids[0]}  waiting" in first
    assert gate.task.msg_ids[0] in first
    assert f"Task {failed.msg_ids[0]}  ended" in second
    assert f"it failed on engine {failed.engine_id} " in second
    assert "ValueError: on purpose" in second

    [found] = json.loads(explain_in_a_terminal(cluster, failed.msg_ids[0], "--json").stdout)
    assert (found["msg_id"], found["state"]) == (failed.msg_ids[0], "ended")
    assert found["details"]["outcome"] == "failed"


def test_explain_of_an_unknown_task_is_an_error(cluster, rc):
    said = explain_in_a_terminal(cluster, "nobody-1")
    assert said.returncode == 1
    assert "no task has a msg_id that begins with 'nobody-1'" in said.stderr


def test_explain_without_a_cluster_reads_the_database(fresh_cluster):
    rc = fresh_cluster(n=1, database="sqlite")
    id = rc.load_balanced_view().apply_async(abs, -1).msg_ids[0]
    rc.get_result(id).get(60)
    cluster = rc.cluster
    rc.close()
    cluster.stop_cluster_sync()
    said = explain_in_a_terminal(cluster, id)
    assert f"Task {id}  ended" in said.stdout, said.stderr
    assert "it ended well on engine 0" in said.stdout
