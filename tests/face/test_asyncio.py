"""Results, maps, waits and clusters in coroutines: the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import networkx
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


async def ticking(work: Coroutine[Any, Any, Any]) -> tuple[Any, int]:
    """Run a coroutine beside one that ticks; returns its value, and how often the other ticked meanwhile."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(tick())
    try:
        return await work, ticks
    finally:
        beside.cancel()


def wait_for_file(path: str) -> str:
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.005)
    return "there"


def touched_later(path: Path) -> Coroutine[Any, Any, None]:
    """Makes a file once the loop has gone round a hundred times: only a loop that is not blocked gets there."""

    async def touch() -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        path.touch()

    return touch()


def test_the_loop_goes_on_while_a_result_is_awaited(rc: er.Client, tmp_path: Path):
    async def main() -> Any:
        result = rc.load_balanced_view().apply_async(wait_for_file, str(tmp_path / "go"))
        later = asyncio.create_task(touched_later(tmp_path / "go"))
        value = await result
        await later
        return value

    value, ticks = asyncio.run(ticking(main()))
    assert value == "there"
    assert ticks >= 100


WAITS: dict[str, Callable[[er.Client, str], Coroutine[Any, Any, Any]]] = {
    "get_async": lambda rc, path: rc[:].apply_async(wait_for_file, path).get_async(60),
    "wait_async": lambda rc, path: rc[:].apply_async(wait_for_file, path).wait_async(60),
    "a map": lambda rc, path: rc.load_balanced_view().map_async(wait_for_file, [path] * 3).get_async(),
    "client": lambda rc, path: rc.wait_async([rc[0].apply_async(wait_for_file, path)]),
    "all of the client": lambda rc, path: (rc[:].apply_async(wait_for_file, path), rc.wait_async())[1],
    "view": lambda rc, path: (view := rc[:], view.apply_async(wait_for_file, path), view.wait_async())[2],
    "graph": lambda rc, path: awaited(
        rc.load_balanced_view().run_graph(networkx.DiGraph([(0, 1)]), {0: (wait_for_file, [path]), 1: (str, ["there"])})
    ),
    "another client": lambda rc, path: er.Client(rc.connection)
    .get_result(rc[0].apply_async(wait_for_file, path).msg_ids)
    .get_async(),
}  # fmt: skip


async def awaited(result: Any) -> list[Any]:
    return list((await result).values())


@pytest.mark.parametrize("name", WAITS)
def test_each_wait_leaves_the_loop_alone(rc: er.Client, tmp_path: Path, name: str):
    path = tmp_path / "go"

    async def main() -> Any:
        later = asyncio.create_task(touched_later(path))
        value = await WAITS[name](rc, str(path))
        await later
        return value

    value, ticks = asyncio.run(ticking(main()))
    assert value in (True, "there", ["there"], ["there"] * 2, ["there"] * 3)
    assert ticks >= 100


@pytest.mark.parametrize("how", [{}, {"ordered": False}, {"chunksize": 2}])
def test_async_for_gives_items_as_they_come(rc: er.Client, tmp_path: Path, how: dict[str, Any]):
    paths = [str(tmp_path / str(number)) for number in range(4)]

    async def main() -> list[Any]:
        given = []
        Path(paths[0]).touch()
        Path(paths[1]).touch()
        async for value in rc.load_balanced_view().map_async(wait_for_file, paths, **how):
            given.append(value)
            if len(given) == 2:  # the others are not there yet
                Path(paths[2]).touch()
                Path(paths[3]).touch()
        return given

    assert asyncio.run(main()) == ["there"] * 4


def test_async_for_over_a_map_that_chooses_its_chunks(rc: er.Client):
    async def main() -> list[int]:
        return [value async for value in rc.load_balanced_view().map_async(abs, range(-3000, 0))]

    assert asyncio.run(main()) == list(range(3000, 0, -1))


@pytest.mark.parametrize("ordered", [True, False])
def test_async_for_over_imap_which_may_be_endless(rc: er.Client, ordered: bool):
    import itertools

    async def main() -> list[int]:
        given = []
        items = rc.load_balanced_view().imap(abs, itertools.count(), ordered=ordered, max_outstanding=4)
        async for value in items:
            given.append(value)
            if len(given) == 20:
                items.cancel()
        return given

    values, ticks = asyncio.run(ticking(main()))
    assert len(set(values)) == 20
    assert ticks
    if ordered:
        assert values == list(range(20))


def test_async_for_over_a_direct_result_and_dealt_items(rc: er.Client):
    async def main() -> tuple[list[int], list[int]]:
        view = rc[:]
        ones = [value async for value in view.apply_async(abs, -1)]
        return ones, [value async for value in view.map_async(abs, [-1, -2, -3], dist="r")]

    assert asyncio.run(main()) == ([1, 1], [1, 2, 3])


def test_async_for_raises_in_the_place_of_an_item_and_goes_on(rc: er.Client):
    async def main() -> list[Any]:
        items, given = aiter(rc.load_balanced_view().map_async(lambda x: 1 // x, [1, 0, 1])), []
        while True:
            try:
                given.append(await anext(items))
            except ZeroDivisionError:
                given.append("error")
            except StopAsyncIteration:
                return given

    assert asyncio.run(main()) == [1, "error", 1]


def test_errors_are_raised_by_await(rc: er.Client):
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await rc[0].apply_async(lambda: 1 / 0)
        with pytest.raises(er.CompositeError):
            await rc[:].apply_async(lambda: 1 / 0)
        [error] = await rc[[0]].apply_async(lambda: 1 / 0).get_async(return_exceptions=True)
        assert isinstance(error, ZeroDivisionError)
        with pytest.raises(TypeError, match="single task"):
            async for _ in rc[0].apply_async(abs, 1):
                pass

    asyncio.run(main())


def test_a_timeout_ends_the_wait_alone(rc: er.Client, tmp_path: Path):
    async def main() -> Any:
        result = rc[0].apply_async(wait_for_file, str(tmp_path / "go"))
        with pytest.raises(TimeoutError, match="its tasks go on"):
            await result.get_async(0.01)
        assert await result.wait_async(0.01) is False
        assert await rc.wait_async(result, 0.01) is False
        assert result._listeners == (), "nothing is left of the waits"
        (tmp_path / "go").touch()
        return await result

    assert asyncio.run(main()) == "there"


def test_a_cancelled_coroutine_leaves_the_work_alone(rc: er.Client, tmp_path: Path):
    async def main() -> Any:
        result = rc[0].apply_async(wait_for_file, str(tmp_path / "go"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await result
        (tmp_path / "go").touch()
        return await result

    assert asyncio.run(main()) == "there"


@pytest.mark.parametrize("how", ["result", "client", "view"])
def test_a_cancelled_coroutine_cancels_the_work_if_asked(rc: er.Client, tmp_path: Path, how: str):
    view = rc[:]
    result = view.apply_async(wait_for_file, str(tmp_path / "never"))
    wait_until(lambda: all(result.started))
    waits = {"result": result.get_async, "client": rc.wait_async, "view": view.wait_async}

    async def main() -> None:
        waiting = asyncio.create_task(waits[how](cancel=True))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises((er.TaskAborted, er.CompositeError)):
            await result.get_async(30)

    asyncio.run(main())
    assert result.cancelled()


def test_many_coroutines_wait_at_the_same_time(rc: er.Client):
    view = rc.load_balanced_view()

    async def main() -> list[int]:
        return await asyncio.gather(*[view.apply_async(abs, -number) for number in range(300)])

    assert asyncio.run(main()) == list(range(300))


def test_results_can_be_gathered_with_other_awaitables_and_wrapped(rc: er.Client):
    async def main() -> tuple[Any, ...]:
        loop = asyncio.get_running_loop()
        results = rc[0].apply_async(abs, -1), asyncio.wrap_future(rc[0].apply_async(abs, -2))
        with rc.executor() as executor:
            third = await loop.run_in_executor(executor, abs, -3)
        other: concurrent.futures.Future[int] = concurrent.futures.Future()
        loop.call_later(0.01, other.set_result, 4)
        assert await rc.wait_async([other, results[0]], 30)
        return (*await asyncio.gather(*results), third, other.result())

    assert asyncio.run(main()) == (1, 2, 3, 4)


def test_a_loop_that_is_closed_meanwhile_harms_nobody(rc: er.Client, tmp_path: Path):
    result = rc[0].apply_async(wait_for_file, str(tmp_path / "go"))
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(result.get_async())
    loop.run_until_complete(asyncio.sleep(0.01))
    listener = result._listeners[0]
    waiting.cancel()
    loop.run_until_complete(asyncio.wait([waiting]))
    loop.close()
    (tmp_path / "go").touch()
    assert result.get(60) == "there"
    listener()  # as the I/O thread would call it, had it been about to


def test_a_cluster_starts_and_stops_without_blocking_the_loop(tmp_path: Path):
    async def main() -> int:
        async with er.Cluster(n=1, profile_dir=tmp_path / "profile_a", database="none") as rc:
            await rc.wait_for_engines_async(1, timeout=30)
            return await rc[0].apply_async(abs, -7)

    value, ticks = asyncio.run(ticking(main()))
    assert value == 7
    assert ticks > 10
    wait_until(lambda: not processes_of(tmp_path))


def test_a_cluster_whose_start_is_cancelled_is_stopped(tmp_path: Path):
    async def main() -> None:
        async with asyncio.timeout(0.05):
            async with er.Cluster(n=1, profile_dir=tmp_path / "profile_a", database="none"):
                await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert processes_of(tmp_path) == []
    assert list(tmp_path.glob("**/security/*")) == []


@pytest.mark.parametrize("method", ["start_cluster", "start_and_connect", "start_controller"])
def test_a_start_that_is_cancelled_is_undone_and_can_be_tried_again(tmp_path: Path, method: str):
    cluster = er.Cluster(n=1, profile_dir=tmp_path / "profile_a", database="none")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(getattr(cluster, method)(), 0.05)
        assert processes_of(tmp_path) == []
        assert list(tmp_path.glob("**/security/*")) == []
        await getattr(cluster, method)()
        await cluster.stop_cluster()

    asyncio.run(main())
    wait_until(lambda: not processes_of(tmp_path))


def test_a_cancelled_start_of_a_cluster_that_runs_leaves_it_running(tmp_path: Path):
    async def main() -> None:
        async with er.Cluster(n=1, profile_dir=tmp_path / "profile_a", database="none") as rc:
            again = asyncio.ensure_future(rc.cluster.start_cluster())
            await asyncio.sleep(0)  # the thread has been started
            again.cancel()
            await asyncio.wait([again])
            assert await rc[0].apply(abs, -7) == 7

    asyncio.run(main())


@pytest.mark.parametrize("method", ["start_engines", "scale"])
def test_engines_whose_start_is_cancelled_are_stopped(tmp_path: Path, method: str):
    async def main() -> None:
        async with er.Cluster(n=1, profile_dir=tmp_path / "profile_a", database="none") as rc:
            before = set(rc.cluster.engines)
            more = asyncio.ensure_future(getattr(rc.cluster, method)(2))
            await asyncio.sleep(0)  # the thread has been started
            more.cancel()
            await asyncio.wait([more])
            assert more.cancelled()
            assert set(rc.cluster.engines) == before
            while rc.ids != [0]:
                await asyncio.sleep(0.01)
            scaled = await rc.cluster.scale(2)
            assert set(rc.cluster.engines) == {*before, scaled}
            await rc.wait_for_engines_async(2, timeout=60)

    asyncio.run(asyncio.wait_for(main(), 120))


def test_a_client_whose_connection_is_cancelled_is_closed(tmp_path: Path):
    async def main() -> None:
        async with er.Cluster(n=0, profile_dir=tmp_path / "profile_a", database="none") as rc:
            made: list[er.Client] = []
            connect = rc.cluster.connect_client_sync
            rc.cluster.connect_client_sync = lambda: made.append(connect()) or made[0]
            other = asyncio.ensure_future(rc.cluster.connect_client())
            await asyncio.sleep(0)
            other.cancel()
            await asyncio.wait([other])
            assert made[0].closed

    asyncio.run(main())


def test_waiting_for_too_many_engines_fails_as_it_does_for_threads(rc: er.Client):
    with pytest.raises(TimeoutError, match="2 of 5 engines"):
        asyncio.run(rc.wait_for_engines_async(5, timeout=0.1))


def test_another_event_loop_is_told_what_to_do(rc, gate: Path):
    slow = rc[0].apply_async(wait_for_file, str(gate))
    with pytest.raises(RuntimeError, match=r"no event loop of asyncio runs here.*trio.to_thread.run_sync\(result"):
        slow.__await__().send(None)
    gate.touch()
    slow.get(60)
