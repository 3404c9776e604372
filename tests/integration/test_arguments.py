"""Arguments and results are what they were at the call, and no more than they were."""

from __future__ import annotations

import os

import numpy as np
import pytest
from conftest import hold, wait_until

import engineroom as er

LARGE = 200_000


def first(values):
    return values[0]


# ------------------------------------------------------------------------------------------ what is sent


@pytest.mark.parametrize("make", [lambda: np.zeros(LARGE), lambda: bytearray(LARGE)])
def test_a_buffer_is_sent_as_it_was_at_the_call(rc, lb, make):
    for view in (lb, rc[0]):
        buffer, results = make(), []
        for number in range(20):
            buffer[:] = np.full(LARGE, number) if isinstance(buffer, np.ndarray) else bytes([number]) * LARGE
            results.append(view.apply_async(first, buffer))
        assert [result.get(60) for result in results] == list(range(20))


def test_push_scatter_and_map_send_what_was_there(rc, lb):
    view, buffer = rc[:], np.zeros((20, LARGE))
    pushed = view.push({"pushed": buffer}, block=False)
    scattered = view.scatter("part", buffer, block=False)
    mapped = [view.map_async(np.max, buffer) for view in (view, lb)]
    nested = lb.apply_async(lambda held: float(held["a"][0].max()), {"a": [buffer]})
    buffer[:] = 1
    pushed.get(60), scattered.get(60)
    assert [value.max() for value in view["pushed"]] == [0, 0]
    assert view.gather("part", block=True).max() == 0
    assert [max(result.get(60)) for result in mapped] == [0, 0]
    assert nested.get(60) == 0


def test_a_data_frame_is_sent_as_it_was(lb):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.zeros(LARGE)})
    result = lb.apply_async(lambda frame: float(frame["a"].max()), frame)
    frame.loc[:, "a"] = 1.0
    frame["a"].to_numpy(copy=False)
    assert result.get(60) == 0


def test_the_items_of_a_long_map_are_those_of_the_call(lb):
    items, numbers = [[x] for x in range(3000)], list(range(3000))
    array = np.arange(3000)
    results = lb.map_async(lambda x: x[0], items), lb.map_async(int, numbers), lb.map_async(int, array)
    for item in items:
        item[0] = -1
    numbers[:] = [-1] * 3000
    array[:] = -1
    for result in results:
        assert result.get(60) == list(range(3000))


def test_metadata_is_that_of_the_call(rc):
    about = {"run": 1}
    view = rc.load_balanced_view(metadata=about)
    ids = view.apply_async(abs, 1).msg_ids
    view.metadata["run"] = 2
    ids += view.apply_async(abs, 1).msg_ids
    rc.wait(ids)
    found = rc.db_query({"msg_id": {"$in": ids}}, "metadata", sort="submitted")
    assert [record["metadata"]["run"] for record in found] == [1, 2]


def test_a_result_is_what_was_returned(rc):
    view = rc[0]
    view.execute("import numpy; kept = numpy.zeros(200_000)", block=True)
    results = []
    for _ in range(10):
        results.append(view.apply_async(lambda kept: kept, er.Reference("kept")))
        results.append(view.pull("kept", block=False))
        view.execute("kept += 1")
    assert [float(result.get(60).max()) for result in results] == [float(n // 2) for n in range(20)]


# ------------------------------------------------------------------------------------------ track


def test_tracked_buffers_may_change_once_they_are_accepted(rc, lb):
    buffer = np.zeros(LARGE)
    calls = [
        lambda: rc[:].push({"tracked": buffer}, block=False, track=True),
        lambda: rc[:].scatter("tracked", buffer, block=False, track=True),
        lambda: rc[:].map_async(np.max, buffer.reshape(2, -1), track=True),
        lambda: lb.set_flags(track=True).apply_async(np.max, buffer),
        lambda: lb.map_async(float, range(2000)),
    ]
    for call in calls:
        buffer[:] = 0
        result = call()
        assert result.wait_for_send(30)
        assert result.sent
        buffer[:] = 1
        result.get(60)
    assert rc[:].gather("tracked", block=True).max() == 0


def test_without_track_all_is_sent_at_once(lb):
    result = lb.apply_async(np.max, np.zeros(LARGE))
    assert result.sent
    assert result.wait_for_send(0)


# ------------------------------------------------------------------------------------------ no more than they are


def test_a_repeated_array_is_sent_once(rc, lb):
    wide = np.broadcast_to(np.arange(1000.0), (100_000, 1000))  # 800 MB
    for view in (rc[0], lb):
        assert view.apply_sync(lambda x: (x.shape, float(x[-1, -1])), wide) == ((100_000, 1000), 999.0)
    returned = lb.apply_sync(lambda: np.broadcast_to(np.arange(1000.0), (100_000, 1000)))
    assert (returned.shape, returned.strides, float(returned[-1, -1])) == ((100_000, 1000), (0, 8), 999.0)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "array"
    path.write_bytes(np.arange(float(LARGE)).tobytes())
    return path


def test_a_memory_map_travels_as_its_file(rc, lb, file):
    values = np.memmap(file, np.float64, "r")
    for view in (rc[0], lb):
        kind, name, total = view.apply_sync(
            lambda x: (type(x).__name__, os.fspath(x.filename), float(x.sum())), values[10:]
        )
        assert (kind, name, total) == ("memmap", str(file), float(np.arange(10, LARGE).sum()))
    [id] = rc.history[-1:]
    [record] = rc.db_query({"msg_id": id}, "buffers")
    assert sum(map(len, record["buffers"])) < 10_000


def test_a_map_that_can_be_written_to_travels_as_its_bytes(lb, file):
    for mode in ("r+", "c"):
        values = np.memmap(file, np.float64, mode)
        values[0] = 7
        result = lb.apply_async(first, values)
        values[0] = 8
        assert result.get(60) == 7


def test_a_file_that_has_been_replaced_travels_as_its_bytes(lb, file, tmp_path):
    values = np.memmap(file, np.float64, "r")
    other = tmp_path / "other"
    other.write_bytes(np.ones(LARGE).tobytes())
    other.replace(file)
    assert lb.apply_sync(lambda x: float(x[5]), values) == 5


def test_a_file_that_has_changed_since_the_call_is_said(rc, lb, file, tmp_path):
    values = np.memmap(file, np.float64, "r")
    gate = tmp_path / "gate"

    held = rc[:].apply_async(hold, str(gate))
    result = rc[0].apply_async(first, values)
    file.write_bytes(np.ones(LARGE).tobytes())
    os.utime(file, ns=(1, 1))
    gate.touch()
    held.get(60)
    with pytest.raises(er.RemoteError, match="which has changed since the call was made"):
        result.get(60)
    wait_until(result.done)
