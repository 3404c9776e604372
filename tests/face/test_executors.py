"""A view as an executor behaves as the executors of the standard library do; and loky's reusable executor."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Executor,
    as_completed,
    wait,
)
from pathlib import Path

import pytest
from conftest import processes_of, wait_until

import engineroom as er


@pytest.fixture
def rc(memory_cluster: er.Cluster) -> Iterator[er.Client]:
    with memory_cluster.connect_client_sync() as client:
        client.wait_for_engines(2, timeout=30)
        yield client
        client.cancel()
        client.wait()


@pytest.fixture(params=["balanced", "direct"])
def executor(rc: er.Client, request: pytest.FixtureRequest) -> er.ViewExecutor:
    return rc.executor() if request.param == "balanced" else rc[0].executor


def wait_for_file(path):
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.005)
    return "there"


# ---------------------------------------------------------------------------------------------- submit


def test_submit_calls_with_any_arguments(executor: er.ViewExecutor):
    assert isinstance(executor, Executor)
    assert executor.submit(pow, 2, 8).result() == 256
    assert executor.submit(lambda *args, **kwargs: (args, kwargs), 1, fn=7, self=8).result() == (
        (1,),
        {"fn": 7, "self": 8},
    )
    with pytest.raises(TypeError):
        executor.submit()
    with pytest.raises(TypeError):
        executor.submit(fn=pow)
    with pytest.raises(TypeError, match="a function is needed"):
        executor.submit(3)


def test_a_future_has_the_error_and_its_cause(executor: er.ViewExecutor):
    def fails():
        try:
            {}["key"]
        except KeyError as error:
            raise RuntimeError("failed") from error

    future = executor.submit(fails)
    error = future.exception(30)
    assert isinstance(error, RuntimeError)
    assert isinstance(error.__cause__, KeyError)
    with pytest.raises(RuntimeError, match="failed"):
        future.result()


def test_callbacks_are_called_with_the_future_once(executor: er.ViewExecutor):
    called: list[object] = []
    both = threading.Event()

    def note(future: object) -> None:
        called.append(future)
        if len(called) == 2:
            both.set()

    future = executor.submit(abs, -1)
    future.add_done_callback(note)
    future.result()
    future.add_done_callback(note)
    assert both.wait(60)
    assert called == [future, future]


def test_a_timeout_of_a_future(executor: er.ViewExecutor, tmp_path: Path):
    future = executor.submit(wait_for_file, str(tmp_path / "go"))
    for ask in (future.result, future.exception):
        with pytest.raises(TimeoutError):
            ask(timeout=0.01)
    assert not future.done()
    assert not future.cancelled()
    (tmp_path / "go").touch()
    assert future.result(60) == "there"


# ---------------------------------------------------------------------------------------------- cancel


def test_a_cancelled_future_raises_cancelled_error(executor: er.ViewExecutor, tmp_path: Path):
    future = executor.submit(wait_for_file, str(tmp_path / "never"))
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result(60)
    assert future.cancelled()
    assert future.done()
    assert not future.running()
    assert not future.cancel(), "it has ended"


# ---------------------------------------------------------------------------------------------- wait, as_completed


def test_wait_and_as_completed_take_our_futures(executor: er.ViewExecutor, tmp_path: Path):
    quick = executor.submit(abs, -1)
    assert wait([quick], timeout=30).done == {quick}
    slow = executor.submit(wait_for_file, str(tmp_path / "go"))
    done, pending = wait([quick, slow], return_when=FIRST_COMPLETED, timeout=30)
    assert (done, pending) == ({quick}, {slow})
    done, pending = wait([slow], timeout=0.01, return_when=ALL_COMPLETED)
    assert (done, pending) == (set(), {slow})
    with pytest.raises(TimeoutError):
        list(as_completed([slow], timeout=0.01))
    (tmp_path / "go").touch()
    assert set(as_completed([quick, slow, quick], timeout=30)) == {quick, slow}


def test_waiting_for_the_first_exception(rc: er.Client, tmp_path: Path):
    executor = rc.executor()
    slow = executor.submit(wait_for_file, str(tmp_path / "go"))
    failing = executor.submit(lambda: 1 / 0)
    done, pending = wait([slow, failing], return_when=FIRST_EXCEPTION, timeout=30)
    assert (done, pending) == ({failing}, {slow})
    (tmp_path / "go").touch()
    assert slow.result(60) == "there"


# ---------------------------------------------------------------------------------------------- map


@pytest.mark.parametrize("how", [{}, {"chunksize": 3}, {"chunksize": 100}, {"buffersize": 2}])
def test_map_gives_values_in_order(rc: er.Client, how: dict[str, int]):
    executor = rc.executor()
    assert list(executor.map(pow, range(10), range(10), **how)) == list(map(pow, range(10), range(10)))
    assert list(executor.map(abs, iter(range(-5, 0)), **how)) == [5, 4, 3, 2, 1]
    assert list(executor.map(abs, [], **how)) == []
    assert list(executor.map(pow, range(3), itertools.repeat(2), **how)) == [0, 1, 4]


def test_map_submits_at_once(rc: er.Client, tmp_path: Path):
    rc.executor().map(lambda path: open(path, "w").close(), [tmp_path / "a", tmp_path / "b"])  # nobody takes a value
    wait_until(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())


@pytest.mark.parametrize("how", [{}, {"buffersize": 4}])
def test_an_error_ends_the_iterator(rc: er.Client, how: dict[str, int]):
    values = rc.executor().map(lambda a, b: a // b, [4, 5, 6], [1, 0, 1], **how)
    assert next(values) == 4
    with pytest.raises(ZeroDivisionError):
        next(values)
    with pytest.raises(StopIteration):
        next(values)


@pytest.mark.parametrize("how", [{}, {"buffersize": 1}])
def test_a_timeout_of_map_counts_from_the_call(rc: er.Client, tmp_path: Path, how: dict[str, int]):
    values = rc.executor(targets=[0]).map(wait_for_file, [str(tmp_path / "never")], timeout=0.01, **how)
    with pytest.raises(TimeoutError):
        next(values)
    with pytest.raises(StopIteration):
        next(values)


def test_wrong_arguments_of_map_are_named(rc: er.Client):
    executor = rc.executor()
    for wrong in (0, -1, "3"):
        with pytest.raises(ValueError, match="chunksize is a number of items"):
            executor.map(abs, [1], chunksize=wrong)
    with pytest.raises(ValueError, match="buffersize is a number of calls"):
        executor.map(abs, [1], buffersize=0)
    with pytest.raises(TypeError, match="buffersize is a number of calls"):
        executor.map(abs, [1], buffersize="1")


def test_closing_the_iterator_ends_what_has_not_started(rc: er.Client, tmp_path: Path):
    (tmp_path / "0").touch()
    executor = rc.executor(targets=[0])
    values = executor.map(wait_for_file, [str(tmp_path / str(number)) for number in range(20)])
    assert next(values) == "there"
    values.close()
    wait_until(lambda: len(rc.outstanding) <= 1)  # one may run
    for number in range(20):
        (tmp_path / str(number)).touch()
    executor.shutdown()
    assert rc.outstanding == set()


def test_endless_iterables_are_read_as_values_are_taken(rc: er.Client):
    values = rc.executor().map(pow, itertools.count(), itertools.repeat(2))
    assert list(itertools.islice(values, 5)) == [0, 1, 4, 9, 16]
    values.close()
    read: list[int] = []
    items = (read.append(number) or number for number in itertools.count())
    values = rc.executor().map(abs, items, buffersize=3)
    assert read == []
    assert next(values) == 0
    assert len(read) <= 4
    values.close()


# ---------------------------------------------------------------------------------------------- shutdown


def test_after_shutdown_calls_are_refused_and_the_engines_are_there(rc: er.Client):
    executor = rc.executor()
    executor.submit(abs, -1)
    executor.shutdown()
    executor.shutdown()
    for call in (lambda: executor.submit(abs, 1), lambda: executor.map(abs, [1])):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            call()
    assert len(rc) == 2


def test_leaving_the_with_block_waits(rc: er.Client):
    with rc.executor() as executor:
        futures = [executor.submit(time.sleep, 0.05) for _ in range(4)]
    assert all(future.done() for future in futures)


def test_shutdown_without_waiting_lets_tasks_go_on(rc: er.Client, tmp_path: Path):
    executor = rc.executor()
    future = executor.submit(wait_for_file, str(tmp_path / "go"))
    executor.shutdown(wait=False)
    assert not future.done()
    (tmp_path / "go").touch()
    assert future.result(60) == "there"


def test_shutdown_can_cancel_what_has_not_started(rc: er.Client, tmp_path: Path):
    executor = rc.executor(targets=[0])
    first = executor.submit(wait_for_file, str(tmp_path / "go"))
    wait_until(first.running)
    rest = [executor.submit(abs, -1) for _ in range(3)]
    executor.shutdown(wait=False, cancel_futures=True)
    done, _ = wait(rest, timeout=30)
    assert done == set(rest)
    assert all(future.cancelled() for future in rest)
    (tmp_path / "go").touch()
    assert first.result(60) == "there"


# ---------------------------------------------------------------------------------------------- initializer


def test_an_initializer_runs_once_on_each_engine(rc: er.Client, tmp_path: Path):
    def begin(folder, text):
        import os
        import tempfile

        tempfile.mkstemp(prefix=f"{text}-{os.getpid()}-", dir=folder)

    with rc.executor(initializer=begin, initargs=(str(tmp_path), "a")) as executor:
        pids = set(executor.map(lambda _: (time.sleep(0.01), os.getpid())[1], range(40), chunksize=1))
        assert executor.submit(abs, -1).result() == 1
    begun = [name.split("-")[1] for name in os.listdir(tmp_path)]
    assert set(begun) == set(map(str, pids))
    assert len(begun) == len(set(begun))
    with rc.executor(initializer=begin, initargs=(str(tmp_path), "b")) as other:
        other.submit(abs, -1).result()
    assert [name for name in os.listdir(tmp_path) if name.startswith("b")], "an executor's own"


def test_an_initializer_that_fails_breaks_the_executor(rc: er.Client):
    def begin():
        raise OSError("no licence")

    executor = rc.executor(initializer=begin)
    future = executor.submit(abs, -1)
    with pytest.raises(BrokenExecutor, match="no licence"):
        future.result(60)
    wait_until(lambda: executor._broken)
    for call in (lambda: executor.submit(abs, 1), lambda: executor.map(abs, [1])):
        with pytest.raises(BrokenExecutor, match="no licence"):
            call()
    assert rc.executor().submit(abs, -1).result() == 1, "the engines are as good as before"


def test_a_wrong_initializer_is_named(rc: er.Client):
    with pytest.raises(TypeError, match="initializer must be callable"):
        rc.executor(initializer=3)


# ---------------------------------------------------------------------------------------------- broken


def test_an_engine_that_dies_breaks_its_task_alone(tmp_path: Path):
    with er.Cluster(n=2, profile_dir=tmp_path / "profile_x", database="none") as rc:
        executor, before = rc.executor(), set(rc._engines.values())
        dying = executor.submit(lambda: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(BrokenExecutor):
            dying.result(60)
        assert list(executor.map(abs, range(-3, 0))) == [3, 2, 1], "another engine took its place"
        wait_until(lambda: len(rc) == 2 and set(rc._engines.values()) != before)
        rc.shutdown(block=True)
        with pytest.raises(BrokenExecutor, match="no engines"):
            executor.submit(abs, 1)
        waiting = rc.executor()
    for one in (executor, waiting):
        with pytest.raises(BrokenExecutor):
            one.submit(abs, 1)


# ---------------------------------------------------------------------------------------------- reusable


def test_the_reusable_executor_is_started_once_resized_and_replaced(tmp_path: Path):
    options = {"profile_dir": tmp_path / "profile_x", "database": "none"}
    first = er.get_reusable_executor(1, **options)
    try:
        pid = first.submit(os.getpid).result()
        assert er.get_reusable_executor(**options) is first
        assert er.get_reusable_executor(1, **options).submit(os.getpid).result() == pid
        assert er.get_reusable_executor(2, **options) is first
        assert len(first.client) == 2
        assert er.get_reusable_executor(1, **options) is first
        wait_until(lambda: len(first.client) == 1)
        assert er.get_reusable_executor(reuse=True) is first, "whatever the arguments are"
        other = er.get_reusable_executor(1, initializer=int, **options)
        assert other is not first
        with pytest.raises(RuntimeError):
            first.submit(abs, 1)
        assert other.submit(abs, -1).result() == 1
        other.shutdown()
        third = er.get_reusable_executor(1, **options)
        os.kill(third.client.connection.pid, signal.SIGTERM)
        wait_until(lambda: third.client.closed)
        fourth = er.get_reusable_executor(1, **options)
        assert fourth is not third
        running = fourth.submit(time.sleep, 60)
        wait_until(running.running)
        fourth.shutdown(kill_workers=True)
        assert running.cancelled()
    finally:
        from engineroom.cluster import reusable

        if reusable._current is not None:
            reusable._current.shutdown(kill_workers=True)
    wait_until(lambda: not processes_of(tmp_path))
    with pytest.raises(er.ConfigError, match="max_workers is a number of engines"):
        er.get_reusable_executor(0)
    with pytest.raises(er.ConfigError, match="reuse is"):
        er.get_reusable_executor(1, reuse="never")
