"""Every public method of clients, views and results, with a closed client, without engines, and with wrong types.

Each call ends: with a value, or with a clear error. `CALLS` must name every public method, so that none is forgotten.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import engineroom as er

Call = Callable[[Any], Any]


def awaited(call: Callable[[Any], Any]) -> Call:
    return lambda subject: asyncio.run(call(subject))


CLIENT: dict[str, Call] = {
    "abort": lambda rc: rc.abort(),
    "activate": lambda rc: rc.activate(),
    "become_dask": lambda rc: rc.become_dask(),
    "become_distributed": lambda rc: rc.become_distributed(),
    "broadcast_view": lambda rc: rc.broadcast_view().apply_async(abs, 1),
    "cancel": lambda rc: rc.cancel(),
    "clear": lambda rc: rc.clear(),
    "db_count": lambda rc: rc.db_count({}),
    "db_distinct": lambda rc: rc.db_distinct("label"),
    "db_group": lambda rc: rc.db_group("label"),
    "db_iter": lambda rc: list(rc.db_iter({})),
    "db_query": lambda rc: rc.db_query({}),
    "direct_view": lambda rc: rc.direct_view().apply_async(abs, 1),
    "executor": lambda rc: rc.executor().submit(abs, 1),
    "explain": lambda rc: rc.explain("nobody"),
    "export": lambda rc: rc.export("/nowhere/file.jsonl"),
    "get_result": lambda rc: rc.get_result("nobody").get(60),
    "hub_history": lambda rc: rc.hub_history(),
    "load_balanced_view": lambda rc: rc.load_balanced_view().apply_async(abs, 1),
    "pin": lambda rc: rc.pin("nobody"),
    "plot_history": lambda rc: rc.plot_history({}),
    "provenance": lambda rc: rc.provenance("nobody"),
    "purge_everything": lambda rc: rc.purge_everything(),
    "purge_hub_results": lambda rc: rc.purge_hub_results("all"),
    "purge_local_results": lambda rc: rc.purge_local_results("all"),
    "purge_results": lambda rc: rc.purge_results("all"),
    "queue_status": lambda rc: rc.queue_status(),
    "reload_modules": lambda rc: rc.reload_modules(),
    "replay": lambda rc: rc.replay("nobody"),
    "resubmit": lambda rc: rc.resubmit("nobody"),
    "result_status": lambda rc: rc.result_status("nobody"),
    "send_signal": lambda rc: rc.send_signal("SIGCONT"),  # it comes late, and an interrupt would end another's task
    "shutdown": lambda rc: rc.shutdown([]),
    "stop_dask": lambda rc: rc.stop_dask(),
    "stop_distributed": lambda rc: rc.stop_distributed(),
    "unpin": lambda rc: rc.unpin("nobody"),
    "wait": lambda rc: rc.wait(timeout=0.1),
    "wait_async": awaited(lambda rc: rc.wait_async(timeout=0.1)),
    "wait_for_engines": lambda rc: rc.wait_for_engines(3, timeout=0.1),
    "wait_for_engines_async": awaited(lambda rc: rc.wait_for_engines_async(3, timeout=0.1)),
    "wait_interactive": lambda rc: rc.wait_interactive(timeout=0.1),
    "close": lambda rc: None,
    "spin": lambda rc: rc.spin(),
    "spin_thread": lambda rc: rc.spin_thread(),
    "stop_spin_thread": lambda rc: rc.stop_spin_thread(),
}

VIEW: dict[str, Call] = {
    "abort": lambda view: view.abort(),
    "apply": lambda view: view.apply(abs, 1),
    "apply_async": lambda view: view.apply_async(abs, 1),
    "apply_sync": lambda view: view.apply_sync(abs, 1),
    "get_result": lambda view: view.get_result(),
    "imap": lambda view: list(view.imap(abs, [1])),
    "map": lambda view: view.map(abs, [1]),
    "map_async": lambda view: view.map_async(abs, [1]),
    "map_sync": lambda view: view.map_sync(abs, [1]),
    "parallel": lambda view: view.parallel()(len)([1]),
    "purge_results": lambda view: view.purge_results("all"),
    "queue_status": lambda view: view.queue_status(),
    "remote": lambda view: view.remote()(abs)(1),
    "set_flags": lambda view: view.set_flags(block=False),
    "shutdown": lambda view: view.shutdown([]),
    "spin": lambda view: view.spin(),
    "temp_flags": lambda view: view.temp_flags(block=False),
    "wait": lambda view: view.wait(timeout=0.1),
    "wait_async": awaited(lambda view: view.wait_async(timeout=0.1)),
}

DIRECT: dict[str, Call] = {
    **VIEW,
    "activate": lambda view: view.activate(),
    "clear": lambda view: view.clear(),
    "clear_properties": lambda view: view.clear_properties(),
    "del_properties": lambda view: view.del_properties(["a"]),
    "execute": lambda view: view.execute("1"),
    "gather": lambda view: view.gather("a"),
    "get": lambda view: view.get("a"),
    "get_properties": lambda view: view.get_properties(),
    "has_properties": lambda view: view.has_properties(["a"]),
    "pull": lambda view: view.pull("a"),
    "push": lambda view: view.push({"a": 1}),
    "reload_modules": lambda view: view.reload_modules(),
    "run": lambda view: view.run(__file__),
    "scatter": lambda view: view.scatter("a", [1]),
    "set_properties": lambda view: view.set_properties({"a": 1}),
    "sync_imports": lambda view: view.sync_imports(),
    "update": lambda view: view.update({"a": 1}),
    "use_cloudpickle": lambda view: view.use_cloudpickle(),
    "use_dill": lambda view: view.use_dill(),
    "use_pickle": lambda view: view.use_pickle(),
}

BALANCED: dict[str, Call] = {
    **VIEW,
    "apply_with_flags": lambda view: view.apply_with_flags(abs, (1,)),
    "register_joblib_backend": lambda view: None,  # test_joblib.py
    "run_graph": lambda view: view.run_graph({"a": []}, {"a": (abs, [1])}),
}

RESULT: dict[str, Call] = {
    "abort": lambda result: result.abort(),
    "add_done_callback": lambda result: result.add_done_callback(print),
    "cancel": lambda result: result.cancel(),
    "cancelled": lambda result: result.cancelled(),
    "display_outputs": lambda result: result.display_outputs(),
    "done": lambda result: result.done(),
    "exception": lambda result: result.exception(30),
    "get": lambda result: result.get(60),
    "get_async": awaited(lambda result: result.get_async(30)),
    "get_dict": lambda result: result.get_dict(30),
    "join": lambda result: er.AsyncResult.join(result, result),
    "ready": lambda result: result.ready(),
    "result": lambda result: result.result(60),
    "running": lambda result: result.running(),
    "timeline": lambda result: result.timeline(),
    "split": lambda result: result.split(),
    "stream_output": lambda result: result.stream_output(),
    "successful": lambda result: result.successful(),
    "timedelta": lambda result: result.timedelta(result.submitted, result.received),
    "wait": lambda result: result.wait(60),
    "wait_async": awaited(lambda result: result.wait_async(30)),
    "wait_for_output": lambda result: result.wait_for_output(30),
    "wait_for_send": lambda result: result.wait_for_send(30),
    "wait_interactive": lambda result: result.wait_interactive(timeout=30),
}

#: methods that `concurrent.futures` calls "for executors only"
NOT_OURS = {"set_exception", "set_result", "set_running_or_notify_cancel"}

TABLES = {er.Client: CLIENT, er.DirectView: DIRECT, er.LoadBalancedView: BALANCED, er.AsyncResult: RESULT}


def public_methods(cls: type) -> set[str]:
    return {name for name, value in inspect.getmembers(cls, callable) if not name.startswith("_")} - NOT_OURS


@pytest.mark.parametrize("cls", TABLES, ids=lambda cls: cls.__name__)
def test_every_public_method_is_in_its_table(cls: type):
    assert public_methods(cls) - TABLES[cls].keys() == set(), "add a call for each of these"


def outcome_of(call: Call, subject: Any) -> Exception | None:
    """The error of a call. It must be one that a user can do something with, and say so."""
    found = None
    try:
        call(subject)
    except (AttributeError, AssertionError, RecursionError, NotImplementedError):
        raise
    except Exception as error:
        found = error
    if found is not None:
        assert len(str(found)) > 10, f"{found!r} says nothing"
        assert "NoneType" not in str(found), found
    return found


CASES = [(cls, name) for cls, table in TABLES.items() if cls is not er.AsyncResult for name in sorted(table)]


def subject_of(cls: type, rc: er.Client) -> Any:
    return {er.Client: lambda: rc, er.DirectView: lambda: rc[:], er.LoadBalancedView: rc.load_balanced_view}[cls]()


@pytest.fixture(scope="module")
def closed(memory_cluster: er.Cluster) -> dict[type, Any]:
    rc = memory_cluster.connect_client_sync()
    rc.wait_for_engines(2, timeout=30)
    subjects = {cls: subject_of(cls, rc) for cls in TABLES if cls is not er.AsyncResult}
    rc.close()
    return subjects


#: what may succeed with a closed client: it asks nobody
LOCAL = {
    "close", "spin", "spin_thread", "stop_spin_thread", "set_flags", "temp_flags", "purge_local_results", "wait",
    "wait_async", "wait_interactive", "activate", "stop_dask", "stop_distributed", "register_joblib_backend",
    "sync_imports",
}  # fmt: skip


@pytest.mark.parametrize(("cls", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_with_a_closed_client_every_method_ends_and_says_why(closed: dict[type, Any], cls: type, name: str):
    error = outcome_of(TABLES[cls][name], closed[cls])
    elsewhere = isinstance(error, ImportError | RuntimeError | IndexError)  # no dask; no IPython; no tasks yet
    if name in LOCAL or (elsewhere and not isinstance(error, er.ControllerLost)):
        return
    assert isinstance(error, er.ControllerLost), f"{error!r}"
    assert "this client is closed" in str(error)


@pytest.fixture(scope="module")
def without_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[er.Client]:
    folder: Path = tmp_path_factory.mktemp("without") / "profile_default"
    with er.Cluster(n=0, profile_dir=folder, database="memory") as rc:
        yield rc


@pytest.mark.parametrize(("cls", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_without_engines_every_method_ends(without_engines: er.Client, cls: type, name: str):
    began = time.monotonic()
    error = outcome_of(TABLES[cls][name], subject_of(cls, without_engines))
    assert time.monotonic() - began < 60
    expected = (er.EngineroomError, IndexError, TimeoutError, ImportError, RuntimeError, OSError, UserWarning)
    assert error is None or isinstance(error, expected), f"{error!r}"


@pytest.mark.parametrize("name", sorted(RESULT))
@pytest.mark.parametrize("shape", ["single", "several", "map"])
def test_with_a_closed_client_a_pending_result_ends(memory_cluster: er.Cluster, name: str, shape: str):
    rc = memory_cluster.connect_client_sync()
    rc.wait_for_engines(2, timeout=30)
    gate = rc[:].apply_async(time.sleep, 30)
    result: Any = {
        "single": lambda: rc[0].apply_async(abs, 1),
        "several": lambda: rc[:].apply_async(abs, 1),
        "map": lambda: rc.load_balanced_view().map_async(time.sleep, [0.0] * 3),
    }[shape]()
    rc.cancel(gate)
    rc.close()
    outcome_of(RESULT[name], result)


#: a value of no sensible type, in the place of each argument that has a sensible one
@pytest.mark.parametrize(("cls", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_a_wrong_type_in_the_first_place_is_an_error_that_says_so(
    without_engines: er.Client, cls: type, name: str, tmp_path: Path
):
    subject = subject_of(cls, without_engines)
    method = getattr(subject, name)
    parameters = list(inspect.signature(method).parameters.values())
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY or inspect.iscoroutinefunction(method):
        return
    if parameters[0].kind is inspect.Parameter.VAR_KEYWORD:
        return
    outcome_of(lambda _: method(object()), subject)
