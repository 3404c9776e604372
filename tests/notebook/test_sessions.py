"""Results of a session, again: after the kernel was restarted, from another client, after the controller's death."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import wait_until
from support.notebooks import Notebook, kernel_environment

import engineroom as er

WORK = """
def step(i, gate):
    import os, time
    print('step', i, flush=True)
    while i == 2 and not os.path.exists(gate): time.sleep(0.01)
    return i * i
def double(x): return 2 * x
"""


def submit(rc: er.Client, gate: Path) -> list[er.AsyncResult]:
    """One result of each kind; the last is pending until there is a file `gate`."""

    def step(i: int, gate: str) -> int:
        import os
        import time

        print("step", i, flush=True)
        while i == 2 and not os.path.exists(gate):
            time.sleep(0.01)
        return i * i

    view = rc.load_balanced_view(label="fit")
    results = [
        rc[0].apply_async(len, "abc"),
        rc[[1]].apply_async(abs, -1),
        view.map_async(abs, range(10), chunksize=4),
        rc[:].map_async(abs, range(5)),
        view.map_async(abs, range(3000)),
        rc[:].scatter("part", range(4)),
        rc[1].execute("1 + 1", silent=False),
    ]
    assert rc.wait(results, 60)
    return [*results, view.map_async(step, range(4), [str(gate)] * 4)]


def test_results_come_back_with_their_shapes_in_their_order(fresh_cluster: Callable[..., er.Client], tmp_path: Path):
    rc = fresh_cluster(n=2)
    rc.session.name = "fit-v3"
    gate = tmp_path / "gate"
    before = submit(rc, gate)
    wait_until(lambda: before[-1].progress == 3)
    with rc.cluster.connect_client_sync() as other:
        again = other.session("fit-v3")
        assert len(again) == len(before)
        assert again[7] is again[7]
        assert [type(result).__name__ for result in again] == [
            "AsyncHubResult", "AsyncHubResult", "AsyncMapResult", "AsyncMapResult", "AsyncMapResult",
            "AsyncHubResult", "AsyncHubResult", "AsyncMapResult",
        ]  # fmt: skip
        assert [len(result) for result in again] == [len(result) for result in before]
        assert [result.msg_ids for result in again] == [result.msg_ids for result in before]
        assert again.pending == [again[7]]
        wait_until(lambda: again[7].progress == 3)
        assert "1 pending" in repr(again)
        assert "pending" in again._repr_html_()
        gate.touch()
        assert again.wait(60)
        for number in (0, 1, 2, 3, 4, 5, 7):
            assert again[number].get(60) == before[number].get(60)
        assert again[6].get().data["text/plain"] == "2"
        assert again[7].stdout == [f"step {i}\n" for i in range(4)]
        assert [result.msg_ids for result in other.session("fit")] == [before[n].msg_ids for n in (2, 4, 7)]
        assert len(other.session(rc.session.session)) == len(before)
        assert len(other.session(rc)) == len(before)


def test_what_cannot_be_found_or_named(fresh_cluster: Callable[..., er.Client]):
    rc = fresh_cluster(n=1)
    with pytest.raises(er.QueryError, match="nothing is recorded"):
        rc.session("fit")
    rc.session.name = "known"
    for bad in ("", 5, "x" * 201):
        with pytest.raises(er.ConfigError, match="name of a session"):
            rc.session.name = bad
    rc[0].apply_sync(abs, 1)
    with pytest.raises(er.QueryError, match=r"no session has the name.*'fit'[\s\S]*There are:\n.*'known'.*: 1 task"):
        rc.session("fit")
    with pytest.raises(er.ConfigError, match="cannot be named any more"):
        rc.session.name = "late"
    assert rc.session.name == "known"
    assert rc.session("mine")[0].get() == 1
    assert len(rc.session("last")) == 1


def test_tasks_that_were_resubmitted_are_results_of_their_own(fresh_cluster: Callable[..., er.Client]):
    rc = fresh_cluster(n=2)
    ar = rc[:].apply_async(abs, -3)
    ar.get()
    rc.resubmit(ar.msg_ids).get()
    assert [result.get() for result in rc.session("mine")] == [[3, 3], 3, 3]


def test_a_dealt_map_has_its_errors_in_their_places(fresh_cluster: Callable[..., er.Client]):
    rc = fresh_cluster(n=2)
    before = rc[:].map_async(lambda i: os._exit(1) if i == 0 else i, range(5), dist="r", return_exceptions=True)
    before.wait(60)
    [again] = rc.session("mine")
    values = [value if isinstance(value, int) else value.items for value in again.get(60, return_exceptions=True)]
    assert values == [(0, 4, 2), 1, (0, 4, 2), 3, (0, 4, 2)]


@pytest.mark.fault(4, 11)
def test_a_restarted_kernel_and_a_restarted_controller(fresh_cluster: Callable[..., er.Client], tmp_path: Path):
    """The notebook's name is enough: the first kernel is killed in the middle of its work, then the controller."""
    rc = fresh_cluster(n=2)
    gate = tmp_path / "gate"
    connect = f"import engineroom as er\nrc = er.Client({str(rc.cluster._connection_file())!r})\n"
    environment = kernel_environment(tmp_path, JPY_SESSION_NAME="papers/fit.ipynb")
    with Notebook(tmp_path, environment).running() as notebook:
        made = notebook.run(
            connect + WORK + "first = rc[:].apply_async(double, 21); first.get()\n"
            f"second = rc.load_balanced_view().map_async(step, range(4), [{str(gate)!r}] * 4)"
        )
        assert made.error is None, made
        wait_until(lambda: rc.db_count({"function_name": "step", "state": "completed"}) == 3)
        notebook.restart()
        found = notebook.run(connect + "work = rc.session('fit.ipynb'); work[1]")
        assert "AsyncMapResult(step)" in found.bundles[-1]["text/plain"], found
        assert notebook.value("len(work), work[0].get(), work[1].done()") == "(2, [42, 42], False)"
        controller = rc.cluster.controller
        assert controller is not None
        pid = controller.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: rc.cluster.controller.running and rc.cluster.controller.pid != pid)
        gate.touch()
        assert notebook.value("work[1].get(60), work[1].stdout[0]") == "([0, 1, 4, 9], 'step 0\\n')"
        notebook.restart()
        assert notebook.value(connect + "[list(ar) for ar in rc.session('fit')]") == "[[42, 42], [0, 1, 4, 9]]"
        cell = notebook.run("rc.session('nothing such')")
        assert "papers/fit.ipynb" in cell.error.evalue
