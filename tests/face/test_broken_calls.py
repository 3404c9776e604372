"""Every public method when its engine dies before or during the call, when it is interrupted, and with nothing to do.

The tables of methods are those of `test_every_method.py`. After each case the client is whole: its next call works.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until
from test_every_method import BALANCED, CLIENT, DIRECT, RESULT, awaited, outcome_of

import engineroom as er

Call = Callable[[Any], Any]

#: In their own tests: they start Dask, close the client, or register themselves for good.
ELSEWHERE = {
    "become_dask", "become_distributed", "stop_dask", "stop_distributed", "close", "register_joblib_backend",
}  # fmt: skip


def waiting(call: Call) -> Call:
    """The same call; it waits for a result that it returns."""

    def call_and_wait(subject: Any) -> Any:
        value = call(subject)
        return value.get() if isinstance(value, er.AsyncResult) else value

    return call_and_wait


def is_whole(rc: er.Client) -> bool:
    """Whether a client works: each engine answers, the hub answers, and nothing is left to wait for."""
    return rc.wait(timeout=60) and rc[:].apply_sync(abs, -1) == [1, 1] and rc.db_count({"state": "running"}) == 0


@pytest.fixture(scope="module")
def rc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[er.Client]:
    folder: Path = tmp_path_factory.mktemp("broken") / "profile_default"
    with er.Cluster(n=2, profile_dir=folder, database="memory") as client:
        yield client


# ---------------------------------------------------------------------------------------------- interrupted waits


def interrupted(call: Callable[[], Any]) -> bool:
    """Call it in the main thread, with a real SIGINT once it waits. Returns whether it did."""
    main = threading.get_ident()
    lock, inside, over = threading.Lock(), threading.Event(), threading.Event()

    def position() -> tuple[int, int]:
        frame = sys._current_frames()[main]
        return id(frame), frame.f_lasti

    def watch() -> None:
        looks: list[tuple[int, int]] = []
        while not over.wait(0.01):
            looks = [*looks[-3:], position()]
            if len(looks) == 4 and len(set(looks)) == 1:
                with lock:  # a thread that is not run for long seems to wait, wherever it is: also before the call
                    if inside.is_set():
                        signal.pthread_kill(main, signal.SIGINT)
                        return

    watcher = threading.Thread(target=watch)
    try:
        watcher.start()
        try:
            inside.set()
            call()
        finally:
            with lock:
                inside.clear()
    except KeyboardInterrupt:
        return True
    finally:
        over.set()
        watcher.join()
    return False


class Stopped:
    """A controller that does not answer, inside this context."""

    def __init__(self, rc: er.Client) -> None:
        controller = rc.cluster.controller
        assert controller is not None
        self.pid = controller.pid

    def __enter__(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def __exit__(self, *exc: object) -> None:
        os.kill(self.pid, signal.SIGCONT)


#: Calls that wait for as long as they are let, where those of the tables have a time limit.
LONG: dict[str, Call] = {
    "wait_for_engines": lambda rc: rc.wait_for_engines(3),
    "wait_for_engines_async": awaited(lambda rc: rc.wait_for_engines_async(3)),
    "wait": lambda subject: subject.wait(),
    "wait_async": awaited(lambda subject: subject.wait_async()),
    "wait_interactive": lambda rc: rc.wait_interactive(interval=1),
    "purge_results": lambda subject: subject.purge_results("all"),
    "run_graph": lambda view: view.run_graph({"a": []}, {"a": (abs, [1])})["a"].get(),
    "executor": lambda rc: rc.executor().submit(abs, 1).result(),
}
#: What asks nobody, and waits for nothing.
AT_ONCE = {
    "activate", "purge_local_results", "set_flags", "spin", "spin_thread", "stop_spin_thread", "temp_flags",
    "sync_imports", "get_result", "replay", "executor_shutdown", "cancel", "abort", "send_signal", "shutdown",
    "resubmit", "export", "pin", "unpin",
}  # fmt: skip

SUBJECTS: dict[str, tuple[Callable[[er.Client], Any], dict[str, Call]]] = {
    "Client": (lambda rc: rc, CLIENT),
    "DirectView": (lambda rc: rc[:], DIRECT),
    "BroadcastView": (lambda rc: rc.broadcast_view(), DIRECT),
    "LoadBalancedView": (lambda rc: rc.load_balanced_view(), BALANCED),
}
CASES = [(kind, name) for kind, (_, table) in SUBJECTS.items() for name in sorted(set(table) - ELSEWHERE)]


@pytest.mark.usefixtures("interrupts_arrive")
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_an_interrupted_call_leaves_the_client_whole(rc: er.Client, kind: str, name: str):
    """The controller is stopped meanwhile, so that whatever asks it, or waits for a task, waits."""
    make, table = SUBJECTS[kind]
    subject = make(rc)
    with Stopped(rc):
        if "wait" in name:
            (rc[:] if kind == "Client" else subject).apply_async(abs, -5)
        was_interrupted = interrupted(lambda: outcome_of(waiting(LONG.get(name, table[name])), subject))
    assert was_interrupted or name in AT_ONCE, "it has not waited"
    assert is_whole(rc)


FUTURES = {name: call for name, call in RESULT.items() if name not in {"add_done_callback", "join"}}
#: Methods of a pending result that do not wait for it.
NOT_WAITING = {"abort", "cancel", "cancelled", "done", "ready", "running", "split", "successful", "timedelta",
               "stream_output", "timeline", "wait_for_send"}  # fmt: skip


@pytest.mark.usefixtures("interrupts_arrive")
@pytest.mark.parametrize("shape", ["single", "several", "map", "hub", "graph"])
@pytest.mark.parametrize("name", sorted(set(FUTURES) - NOT_WAITING))
def test_an_interrupted_wait_for_a_result_can_be_done_again(rc: er.Client, shape: str, name: str):
    view = rc.load_balanced_view()
    with Stopped(rc):
        result: Any = {
            "single": lambda: rc[0].apply_async(abs, -1),
            "several": lambda: rc[:].apply_async(abs, -1),
            "map": lambda: view.map_async(abs, range(-3, 0)),
            "hub": lambda: rc.get_result(rc[:].apply_async(abs, -1).msg_ids, owner=False),
            "graph": lambda: view.run_graph({"a": [], "b": ["a"]}, {"a": (abs, [-1]), "b": (abs, [-2])}),
        }[shape]()
        call = FUTURES[name]
        if not hasattr(result, name):
            assert shape == "graph", "results of all kinds have the same methods"
            return
        if name in {"wait_async", "get_async"}:
            assert interrupted(lambda: asyncio.run(getattr(result, name)()))
        else:
            assert interrupted(lambda: call(result))
    outcome_of(call, result)
    assert result.ready()
    assert is_whole(rc)


EXECUTORS: dict[str, Call] = {
    "submit": lambda executor: executor.submit(abs, -1).result(),
    "map": lambda executor: list(executor.map(abs, [-1, -2])),
    "map, lazily": lambda executor: list(executor.map(abs, iter([-1, -2]), buffersize=1)),
    "shutdown": lambda executor: (executor.submit(abs, -1), executor.shutdown()),
    "exit": lambda executor: functools.partial(_inside, executor)(),
}


def _inside(executor: Any) -> None:
    with executor:
        executor.submit(abs, -1)


@pytest.mark.usefixtures("interrupts_arrive")
@pytest.mark.parametrize("kind", ["DirectView", "BroadcastView", "LoadBalancedView"])
@pytest.mark.parametrize("name", EXECUTORS)
def test_an_interrupted_executor_leaves_the_client_whole(rc: er.Client, kind: str, name: str):
    executor = SUBJECTS[kind][0](rc).executor
    with Stopped(rc):
        assert interrupted(lambda: EXECUTORS[name](executor))
    assert is_whole(rc)


# ---------------------------------------------------------------------------------------------- dead engines

#: Methods of views that run something on engines.
ON_ENGINES = {
    "apply", "apply_async", "apply_sync", "imap", "map", "map_async", "map_sync", "parallel", "remote", "clear",
    "clear_properties", "del_properties", "execute", "gather", "get", "get_properties", "has_properties", "pull",
    "push", "reload_modules", "run", "scatter", "set_properties", "update",
}  # fmt: skip


@pytest.fixture(scope="module")
def dying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[er.Client]:
    """A cluster whose engines are to be killed."""
    folder: Path = tmp_path_factory.mktemp("dying") / "profile_default"
    with er.Cluster(n=2, profile_dir=folder, database="memory") as client:
        yield client


def hold(rc: er.Client, folder: Path) -> tuple[er.AsyncResult, int]:
    """Keep engine 0 busy; returns the task, and the engine's pid."""

    def run_until_killed(path: str) -> None:
        import os
        import time
        from pathlib import Path

        Path(path).write_text(str(os.getpid()))
        while True:
            time.sleep(1)

    told = folder / "pid"
    held = rc[0].apply_async(run_until_killed, str(told))
    wait_until(lambda: told.exists() and told.read_text())
    return held, int(told.read_text())


@pytest.mark.parametrize("kind", ["DirectView", "BroadcastView"])
def test_calls_whose_engine_is_killed_meanwhile_say_so(dying: er.Client, tmp_path: Path, kind: str):
    """All methods at once: each call waits behind a task of engine 0, and this engine is killed."""
    dying.wait_for_engines(2, timeout=60)
    view: Any = dying.direct_view(0) if kind == "DirectView" else dying.broadcast_view([0])
    held, pid = hold(dying, tmp_path)
    with ThreadPoolExecutor(len(ON_ENGINES)) as pool:
        calls = {name: pool.submit(outcome_of, waiting(DIRECT[name]), view) for name in sorted(ON_ENGINES)}
        wait_until(lambda: dying.queue_status(0)["queue"] >= len(ON_ENGINES) + 1)
        os.kill(pid, signal.SIGKILL)
        outcomes = {name: call.result(60) for name, call in calls.items()}
    for name, error in outcomes.items():
        assert isinstance(error, er.EngineError), (name, error)
        assert "SIGKILL" in str(error), (name, error)
    assert isinstance(held.exception(60), er.EngineError)
    dying.wait_for_engines(2, timeout=60)
    assert view.apply_sync(abs, -1) in (1, [1]), "a new engine has taken the number"


def test_balanced_calls_whose_only_engine_is_killed_meanwhile_say_so(dying: er.Client, tmp_path: Path):
    dying.wait_for_engines(2, timeout=60)
    view = dying.load_balanced_view(targets=[0])
    held, pid = hold(dying, tmp_path)
    names = sorted((ON_ENGINES & set(BALANCED)) | {"apply_with_flags", "run_graph"})
    with ThreadPoolExecutor(len(names)) as pool:
        calls = {name: pool.submit(outcome_of, waiting(LONG.get(name, BALANCED[name])), view) for name in names}
        wait_until(lambda: dying.queue_status()["unassigned"] + dying.queue_status(0)["tasks"] >= len(names))
        os.kill(pid, signal.SIGKILL)
        outcomes = {name: call.result(60) for name, call in calls.items()}
    for name, error in outcomes.items():
        assert isinstance(error, er.ImpossibleDependency), (name, error)
        assert "none of the engines it may run on is there" in str(error), (name, error)
    assert isinstance(held.exception(60), er.EngineError)
    dying.wait_for_engines(2, timeout=60)


def test_a_balanced_task_that_kills_its_engine_fails_in_every_form(dying: er.Client):
    dying.wait_for_engines(2, timeout=60)
    view = dying.load_balanced_view()
    for make in (
        lambda: view.apply_async(os._exit, 3),
        lambda: view.map_async(os._exit, [3]),
        lambda: view.apply_with_flags(os._exit, (3,)),
        lambda: view.executor.submit(os._exit, 3),
        lambda: view.run_graph({"a": []}, {"a": (os._exit, [3])})["a"],
    ):
        result: Any = make()
        with pytest.raises(er.EngineError, match="exited with code 3"):
            result.get(60)
        assert isinstance(result, er.AsyncResult)
        assert (result.successful(), result.done(), result.cancelled()) == (False, True, False)
    with pytest.raises(er.EngineError, match="exited with code 3"):
        list(view.imap(os._exit, [3]))
    with pytest.raises(er.EngineError, match="exited with code 3"):
        list(view.executor.map(os._exit, [3]))
    dying.wait_for_engines(2, timeout=60)


@pytest.mark.parametrize("kind", ["DirectView", "BroadcastView", "LoadBalancedView"])
def test_calls_to_an_engine_that_has_gone_say_so(tmp_path: Path, kind: str):
    with er.Cluster(n=2, profile_dir=tmp_path / "profile_default", database="memory") as rc:
        view: Any = {
            "DirectView": lambda: rc[0],
            "BroadcastView": lambda: rc.broadcast_view([0]),
            "LoadBalancedView": lambda: rc.load_balanced_view(targets=[0]),
        }[kind]()
        executor = view.executor
        rc.shutdown(0, block=True)
        table = BALANCED if kind == "LoadBalancedView" else DIRECT
        for name in sorted(ON_ENGINES & set(table)):
            error = outcome_of(waiting(table[name]), view)
            assert isinstance(error, IndexError | er.ImpossibleDependency), (name, error)
            assert "no engine 0" in str(error) or "is there (any more)" in str(error), (name, error)
        for call in (lambda: executor.submit(abs, 1).result(60), lambda: list(executor.map(abs, [1]))):
            with pytest.raises((IndexError, er.ImpossibleDependency)):
                call()
        assert rc[:].apply_sync(abs, -1) == [1]


# ---------------------------------------------------------------------------------------------- nothing to do

#: What each method gives for an empty sequence in the place of its tasks, items or names; an error class: it says so.
EMPTY: dict[str, dict[str, tuple[Call, Any]]] = {
    "Client": {
        "abort": (lambda rc: rc.abort([]), None),
        "cancel": (lambda rc: rc.cancel([]), None),
        "clear": (lambda rc: rc.clear([]), er.NoEnginesRegistered),
        "direct_view": (lambda rc: rc.direct_view([]).apply(abs, 1), er.NoEnginesRegistered),
        "broadcast_view": (lambda rc: rc.broadcast_view([]).apply(abs, 1), er.NoEnginesRegistered),
        "load_balanced_view": (lambda rc: rc.load_balanced_view([]).apply(abs, 1), er.ConfigError),
        "executor": (lambda rc: list(rc.executor().map(abs, [])), []),
        "explain": (lambda rc: list(rc.explain([])), []),
        "get_result": (lambda rc: rc.get_result([]).get(), []),
        "pin": (lambda rc: rc.pin([]), 0),
        "unpin": (lambda rc: rc.unpin([]), 0),
        "provenance": (lambda rc: rc.provenance([]), ValueError),
        "replay": (lambda rc: rc.replay([]), ValueError),
        "purge_hub_results": (lambda rc: rc.purge_hub_results([]), ValueError),
        "purge_local_results": (lambda rc: rc.purge_local_results([]), None),
        "purge_results": (lambda rc: rc.purge_results([]), ValueError),
        "queue_status": (lambda rc: rc.queue_status([]), {"unassigned": 0}),
        "reload_modules": (lambda rc: rc.reload_modules(names=[]), {0: [], 1: []}),
        "resubmit": (lambda rc: rc.resubmit([]).get(), []),
        "result_status": (lambda rc: rc.result_status([]), {"pending": [], "completed": []}),
        "send_signal": (lambda rc: rc.send_signal("SIGTERM", []), None),
        "shutdown": (lambda rc: rc.shutdown([], block=True), None),
        "wait": (lambda rc: rc.wait([]), True),
        "wait_async": (awaited(lambda rc: rc.wait_async([])), True),
        "wait_interactive": (lambda rc: rc.wait_interactive([]), None),
    },
    "view": {
        "abort": (lambda view: view.abort([]), None),
        "imap": (lambda view: list(view.imap(abs, [])), []),
        "map": (lambda view: view.map(abs, []).get(), []),
        "map_async": (lambda view: view.map_async(abs, []).get(), []),
        "map_sync": (lambda view: view.map_sync(abs, []), []),
        "parallel": (lambda view: view.parallel(block=True)(sorted)([]), []),
        "parallel.map": (lambda view: view.parallel(block=True)(abs).map([]), []),
        "wait": (lambda view: view.wait([]), True),
        "wait_async": (awaited(lambda view: view.wait_async([])), True),
        "get_result": (lambda view: view.get_result([]).get(), []),
        "executor": (lambda view: list(view.executor.map(abs, [])), []),
    },
    "direct": {
        "execute": (lambda view: len(view.execute("").get()), 2),
        "pull": (lambda view: view.pull([], block=True), [[], []]),
        "get": (lambda view: view.get([]), [[], []]),
        "push": (lambda view: view.push({}, block=True), [None, None]),
        "scatter": (lambda view: view.scatter("nothing", [], block=True), [None, None]),
        "gather": (lambda view: view.gather("nothing", block=True), []),
        "set_properties": (lambda view: view.set_properties({}, block=True), [None, None]),
        "has_properties": (lambda view: view.has_properties([], block=True), [[], []]),
        "reload_modules": (lambda view: view.reload_modules([], block=True), [[], []]),
    },
    "balanced": {
        "run_graph": (lambda view: (len(view.run_graph({}, {})), view.run_graph({}, {}).wait()), (0, True)),
    },
}
EMPTY_CASES = [
    *(("Client", "Client", name) for name in EMPTY["Client"]),
    *((kind, "view", name) for kind in list(SUBJECTS)[1:] for name in EMPTY["view"]),
    *((kind, "direct", name) for kind in ("DirectView", "BroadcastView") for name in EMPTY["direct"]),
    *(("LoadBalancedView", "balanced", name) for name in EMPTY["balanced"]),
]


@pytest.mark.parametrize(("kind", "table", "name"), EMPTY_CASES)
def test_nothing_to_do_is_done_at_once_or_an_error(rc: er.Client, kind: str, table: str, name: str):
    call, expected = EMPTY[table][name]
    if isinstance(expected, type):
        with pytest.raises(expected) as caught:
            call(SUBJECTS[kind][0](rc))
        assert len(str(caught.value)) > 10
    else:
        assert call(SUBJECTS[kind][0](rc)) == expected
    assert len(rc) == 2


def test_a_result_of_no_tasks_is_ready(rc: er.Client):
    for result in (rc.get_result([]), rc[:].map_async(abs, []), rc.load_balanced_view().map_async(abs, [])):
        assert result.wait(60)  # a direct map asks an engine what its function makes of nothing: it could be aborted
        for name, call in RESULT.items():
            if name not in {"timedelta", "add_done_callback"}:
                assert outcome_of(call, result) is None, name
        assert (result.get(), list(result), len(result), result.done(), result.progress) == ([], [], 0, True, 0)
    with pytest.raises(ValueError, match="nothing to join"):
        er.AsyncResult.join()
