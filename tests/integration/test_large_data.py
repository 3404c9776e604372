"""Large arguments and results on one host: shared pages, values of the receiver's own, nothing lost with a process."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import wait_until

import engineroom as er
from engineroom.stores.sqlite.doctor import verify

MB = 1_000_000


def array(seed: int, size: int = 2 * MB) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)


def spoil(values: np.ndarray) -> int:
    """What the array holds at first; then it is overwritten."""
    total = int(values.sum())
    values[:] = 0
    return total


def total(values: np.ndarray, seconds: float = 0.0) -> int:

    time.sleep(seconds)
    return int(values.sum())


def twice(values: np.ndarray) -> np.ndarray:
    return values * np.uint8(2)


def files_mapped(name: str) -> set[str]:
    """Inodes of the shared files that this process has mapped."""
    with open("/proc/self/maps") as lines:
        return {line.split()[4] for line in lines if "memfd:engineroom" in line}


def file_of(values: np.ndarray) -> str:
    """The inode of the file whose mapping holds the array."""
    address = values.__array_interface__["data"][0]
    with open("/proc/self/maps") as lines:
        for line in lines:
            begin, end = (int(number, 16) for number in line.split()[0].split("-"))
            if begin <= address < end:
                return line.split()[4]
    raise LookupError("no mapping holds it")


def database(rc: er.Client) -> Path:
    return Path(rc.connection.database.removeprefix("sqlite://"))


def payload_files(rc: er.Client) -> list[Path]:
    folder = Path(f"{database(rc)}-payloads")
    return sorted(folder.iterdir()) if folder.exists() else []


# ---------------------------------------------------------------------------------------------- how much, how many


def pieces(count: int, size: int) -> list[np.ndarray]:
    return [np.full(size, number, float) for number in range(count)]


@pytest.mark.parametrize(("count", "size"), [(1100, 600), (300, 40_000)])
def test_a_value_may_have_thousands_of_arrays(any_rc, count, size):
    """The kernel takes 1,024 buffers in one call, and 250 file descriptors."""
    view, values = any_rc.load_balanced_view(), pieces(count, size)
    wanted = [float(number * size) for number in range(count)]
    assert view.apply(lambda found: [each.sum() for each in found], values).get(60) == wanted
    assert [each.sum() for each in view.apply(pieces, count, size).get(60)] == wanted
    assert view.map_sync(np.sum, values, chunksize=count) == wanted
    any_rc[:].push({"values": values}, block=True)
    for found in any_rc[:].pull("values", block=True):
        assert [each.sum() for each in found] == wanted


TOO_MUCH = {
    "apply": lambda rc, x: rc.load_balanced_view().apply_async(total, x),
    "apply, inside": lambda rc, x: rc.load_balanced_view().apply_async(len, [x]),
    "apply, bytes": lambda rc, x: rc.load_balanced_view().apply_async(len, bytes(x)),
    "apply, text": lambda rc, x: rc.load_balanced_view().apply_async(len, "x" * len(x)),
    "apply_with_flags": lambda rc, x: rc.load_balanced_view().apply_with_flags(total, (x,)),
    "map": lambda rc, x: rc.load_balanced_view().map_async(total, [x]),
    "imap": lambda rc, x: list(rc.load_balanced_view().imap(total, [x])),
    "run_graph": lambda rc, x: rc.load_balanced_view().run_graph({"a": []}, {"a": (total, [x])}),
    "executor": lambda rc, x: rc.executor().submit(total, x),
    "executor's map": lambda rc, x: list(rc.executor().map(total, [x])),
    "direct": lambda rc, x: rc[:].apply_async(total, x),
    "broadcast": lambda rc, x: rc.broadcast_view().apply_async(total, x),
    "direct map": lambda rc, x: rc[:].map_async(total, [x]),
    "push": lambda rc, x: rc[:].push({"x": x}),
    "scatter": lambda rc, x: rc[:].scatter("x", x),
    "parallel": lambda rc, x: rc.load_balanced_view().parallel()(total)(x),
    "a method's object": lambda rc, x: rc.load_balanced_view().apply_async(functools.partial(total, x)),
}


@pytest.mark.parametrize("way", TOO_MUCH)
def test_more_than_a_task_may_have_is_refused_whichever_way_it_goes(rc, way, monkeypatch):
    monkeypatch.setattr("engineroom.client.port.MAX_TASK_BYTES", MB // 2)
    with pytest.raises(er.MessageTooLarge, match="nothing was sent"):
        TOO_MUCH[way](rc, array(9))


# ---------------------------------------------------------------------------------------------- whose a value is


def test_what_a_task_does_to_its_argument_nobody_else_sees(any_rc):
    mine = array(1)
    expected = int(mine.sum())
    assert any_rc[:].apply_sync(spoil, mine) == [expected] * len(any_rc)
    assert int(mine.sum()) == expected
    view = any_rc.load_balanced_view()
    results = view.map_async(spoil, [mine] * 6, chunksize=1)
    assert list(results) == [expected] * 6
    assert int(mine.sum()) == expected


def test_what_is_sent_is_what_it_was_at_the_call(any_rc):
    view, results, expected = any_rc.load_balanced_view(), [], []
    mine = array(2)
    for number in range(8):
        mine[:] = number
        results.append(view.apply_async(total, mine, 0.01))
        expected.append(number * mine.size)
    mine[:] = 99
    assert [result.get(60) for result in results] == expected


def test_a_result_is_a_value_of_the_clients_own(any_rc):
    mine = array(3)
    result = any_rc.load_balanced_view().apply_async(twice, mine)
    got = result.get(60)
    assert np.array_equal(got, mine * np.uint8(2))
    assert got.flags.writeable
    got[:] = 0
    [again] = any_rc.get_result(result.msg_ids, owner=False).get(60)
    assert np.array_equal(again, mine * np.uint8(2))


def test_what_an_engine_returned_and_then_changes_is_not_changed_for_others(rc):
    view = rc[0]
    view.execute("import numpy; kept = numpy.ones(2_000_000, numpy.uint8)", block=True)
    first = view.pull("kept", block=False)
    view.execute("kept[:] = 7", block=True)
    second = view.pull("kept", block=True)
    assert (first.get(60).max(), second.max()) == (1, 7)
    assert first.get().max() == 1


@pytest.mark.parametrize("value", [b"x" * 2 * MB, bytearray(b"y" * 2 * MB), ["text" * 10] * 50_000], ids=type)
def test_other_large_values_arrive_as_they_were(any_rc, value):
    back = any_rc.load_balanced_view().apply_sync(lambda got: got, value)
    assert type(back) is type(value)
    assert back == value


def test_a_read_only_array_arrives_read_only(rc):
    mine = np.frombuffer(bytes(2 * MB), np.uint8)
    back = rc[0].apply_sync(lambda got: (got.flags.writeable, got), mine)
    assert back[0] is False


def test_scattered_parts_are_gathered_as_they_were(any_rc):
    mine = array(4, 4 * MB)
    any_rc[:].scatter("part", mine, block=True)
    assert np.array_equal(any_rc[:].gather("part", block=True), mine)


def test_tracked_buffers_are_told_to_be_sent(rc):
    mine = array(5)
    result = rc[:].push({"tracked": mine}, track=True, block=False)
    result.wait_for_send(30)
    assert result.sent
    assert rc[:].apply_sync(total, er.Reference("tracked")) == [int(mine.sum())] * len(rc)


# ---------------------------------------------------------------------------------------------- one copy


def test_engines_map_the_same_pages(rc):
    mine = array(6)
    rc[:].push({"everywhere": mine}, block=True)
    assert rc[:].apply_sync(total, er.Reference("everywhere")) == [int(mine.sum())] * len(rc)
    first, *others = rc[:].apply_sync(files_mapped, "engineroom")
    assert others
    assert first.intersection(*others)
    rc[:].execute("del everywhere", block=True)


def test_the_controller_does_not_grow_with_what_passes(fresh_cluster):
    rc = fresh_cluster(n=2)
    view = rc[:]
    controller = psutil.Process(rc.cluster.controller.pid)
    view.push({"a": array(0, 20 * MB)}, block=True)
    before = controller.memory_info().rss
    most = 0
    for number in range(10):
        view.push({"a": array(number, 20 * MB)}, block=True)
        rc[0].pull("a", block=True)
        most = max(most, controller.memory_info().rss)
    assert most - before < 10 * MB


def test_a_constant_of_many_tasks_is_one_file_in_the_database(fresh_cluster):
    rc = fresh_cluster(n=2)
    mine = array(7)
    results = rc.load_balanced_view().map_async(lambda x, a: int(a[x]), range(40), [mine] * 40, chunksize=1)
    assert list(results) == [int(value) for value in mine[:40]]
    wait_until(lambda: rc.db_count({"state": "completed"}) == 40)
    assert len(payload_files(rc)) == 1


class Table:
    """A value of the client's `__main__`-like code: pickled with everything it holds."""

    pickled = 0

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def __reduce__(self):
        Table.pickled += 1
        return Table, (self.words,)


def test_a_large_object_of_many_tasks_is_pickled_once_and_each_task_has_its_own(fresh_cluster):
    rc = fresh_cluster(n=2)

    def spoil_word(number, table):
        word = table.words[number]
        table.words.clear()
        return word

    table = Table([f"{number:020}" for number in range(40_000)])
    Table.pickled = 0
    got = rc.load_balanced_view().map_sync(spoil_word, range(30), [table] * 30, chunksize=1)
    assert got == table.words[:30]
    assert Table.pickled == 1
    wait_until(lambda: rc.db_count({"state": "completed"}) == 30)
    assert len(payload_files(rc)) == 1


def test_constants_that_hold_results_or_cannot_be_pickled_are_treated_as_before(rc):
    view = rc.load_balanced_view()
    one = view.apply_async(abs, -1)
    constant = {"result": one, "text": ["x" * 100 for _ in range(2000)]}
    assert view.map_sync(lambda x, c: x + c["result"], range(4), [constant] * 4, chunksize=1) == [1, 2, 3, 4]
    with pytest.raises(er.SerializationError, match="cannot be pickled"):
        view.map(lambda x, c: x, range(4), [{"bad": (i for i in range(3)), "t": "x" * 100_000}] * 4, chunksize=1)


# ---------------------------------------------------------------------------------------------- nothing is lost


@pytest.mark.fault(11)
@pytest.mark.slow
def test_tasks_with_large_arguments_outlive_a_killed_controller(fresh_cluster):
    rc = fresh_cluster(n=1)
    view = rc.load_balanced_view()
    arrays = [array(number) for number in range(12)]
    results = [view.apply_async(total, mine, 0.3) for mine in arrays]
    wait_until(lambda: rc._channel.is_all_accepted)
    pid = rc.cluster.controller.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: rc.cluster.controller.pid != pid)
    assert [result.get(60) for result in results] == [int(mine.sum()) for mine in arrays]


@pytest.mark.fault(11)
@pytest.mark.slow
def test_results_that_a_killed_controller_had_not_stored_come_again(fresh_cluster):
    rc = fresh_cluster(n=2)
    view = rc.load_balanced_view()
    arrays = [array(number) for number in range(20)]
    results = [view.apply_async(twice, mine) for mine in arrays]
    wait_until(lambda: any(result.done() for result in results))
    pid = rc.cluster.controller.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: rc.cluster.controller.pid != pid)
    for result, mine in zip(results, arrays, strict=True):
        assert np.array_equal(result.get(60), mine * np.uint8(2))


@pytest.mark.fault(5)
@pytest.mark.slow
def test_a_task_of_a_killed_engine_gets_its_argument_again(fresh_cluster, tmp_path):
    rc = fresh_cluster(n=2)
    mark = tmp_path / "mark"

    def dies_once(values, mark):
        import os
        import signal

        got = int(values.sum())
        values[:] = 0
        if not os.path.exists(mark):
            with open(mark, "w"):
                pass
            os.kill(os.getpid(), signal.SIGKILL)
        return got

    view = rc.load_balanced_view(retries=2)
    mine = array(8)
    assert view.apply_async(dies_once, mine, str(mark)).get(60) == int(mine.sum())


def test_a_function_may_hold_an_array_that_it_is_also_given(rc: er.Client) -> None:
    held = np.ones(200_000)

    def function(given: np.ndarray) -> float:
        return float(held.sum() + given.sum())

    first = rc[0].apply_async(function, held)
    assert first.get(60) == 400_000
    assert rc.get_result(first.msg_ids[0]).get(60) == 400_000
    assert rc.resubmit(first.msg_ids).get(60) == [400_000], "the database has both"


@pytest.mark.fault(1)
@pytest.mark.slow
def test_what_a_killed_client_sent_is_there_for_others(fresh_cluster):
    rc = fresh_cluster(n=1)
    code = f"""
import numpy as np, os, signal, sys
import engineroom as er
rc = er.Client({str(rc.cluster._connection_file())!r})
result = rc.load_balanced_view(label="orphan").apply_async(lambda a: int(a.sum()), np.ones(2_000_000, np.uint8))
while not rc._channel.is_all_accepted:
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    [record] = wait_until(lambda: rc.db_query({"label": "orphan", "state": "completed"}, ["msg_id"]))
    assert rc.get_result(record["msg_id"]).get(60) == 2 * MB


def test_a_record_with_large_buffers_runs_again(fresh_cluster):
    rc = fresh_cluster(n=1)
    mine = array(9)
    result = rc.load_balanced_view().apply_async(twice, mine)
    result.get(60)
    wait_until(lambda: rc.db_count({"state": "completed"}) == 1)
    again = rc.resubmit(result.msg_ids, block=False)
    assert np.array_equal(np.asarray(again.get(60)).reshape(-1), mine * np.uint8(2))
    wait_until(lambda: rc.db_count({"state": "completed"}) == 2)
    assert len(payload_files(rc)) == 2, "the argument and the result, once each"
    rc.purge_results("all")
    wait_until(lambda: payload_files(rc) == [])
    path = database(rc)
    rc.cluster.stop_cluster_sync()
    assert verify(path).sound


def test_a_client_with_few_descriptors_gets_all_results(rc):
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
import numpy as np
import engineroom as er
rc = er.Client({str(rc.cluster._connection_file())!r})
view = rc.load_balanced_view()
results = [view.apply_async(lambda n: np.full(300_000, n, np.uint8), n) for n in range(200)]
values = [result.get(60) for result in results]
assert all(value.size == 300_000 and (value == n).all() for n, value in enumerate(values))
sent = [view.apply_async(lambda a: int(a[0]), value) for value in values]
assert [result.get(60) for result in sent] == list(range(200))
rc.close()
print("good")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "good\n", done.stderr


def test_a_client_keeps_no_more_descriptors_than_it_has_buffers(rc):
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    rc[0].push({"a": array(1)}, block=True)
    before = count()
    for number in range(30):
        rc[0].apply_sync(twice, array(number))
    wait_until(lambda: rc._channel.is_all_accepted)
    wait_until(lambda: count() <= before + 20)  # a few files are kept for later


def test_user_code_has_descriptors_left_with_the_usual_limit(tmp_path):
    code = """
import os, resource, subprocess
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
import numpy as np
import engineroom as er

def open_files(count):
    return len([open("/dev/null") for _ in range(count)])

def start_program():
    return subprocess.check_output(["echo", "x"])

names = [f"x{i}" for i in range(300)]
with er.Cluster(n=1) as rc:
    view, kept = rc[:], []
    for turn in range(3):
        view.push({name: np.full(40_000, i + turn, float) for i, name in enumerate(names)}, block=True)
        kept.append(view.pull(names, block=True))
        assert [value[-1] for value in kept[-1][0]] == [i + turn for i in range(300)]
        assert view.apply_sync(open_files, 240) == [240]
        assert view.apply_sync(start_program) == [b"x\\n"]
        assert open_files(240) == 240
        assert start_program() == b"x\\n"
print("good")
"""
    environment = os.environ | {"IPYTHONDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout == "good\n", done.stderr
    assert "may open no more" not in done.stderr


def test_engines_may_open_more_files_than_the_process_that_starts_them(tmp_path):
    code = """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
low = 1024 if hard == resource.RLIM_INFINITY or hard > 1024 else hard
resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
import engineroom as er

def limit():
    import resource
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

with er.Cluster(n=1) as rc:
    expected = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    assert rc[0].apply_sync(limit) == expected
    assert limit() == low, "the client's limit is its user's"
print("good")
"""
    environment = os.environ | {"IPYTHONDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == "good\n", done.stderr


# ---------------------------------------------------------------------------------------------- functions


class Model:
    """A large object, whose methods are sent."""

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights

    def at(self, index: int) -> int:
        return int(self.weights[index])

    def file(self, index: int) -> str:
        return file_of(self.weights)


def test_methods_of_a_large_object_partials_and_closures_are_sent_once(any_rc):
    mine = array(7)
    model, expected = Model(mine), [int(value) for value in mine[:30]]
    view = any_rc.load_balanced_view()
    assert view.map_sync(model.at, range(30)) == expected
    assert view.map_sync(lambda index: int(mine[index]), range(30)) == expected
    assert any_rc[:].map_sync(model.at, range(30)) == expected
    assert view.apply_sync(functools.partial(Model.at, model), 5) == expected[5]
    assert any_rc[:].apply_sync(model.at, 5) == [expected[5]] * len(any_rc)
    mine[5] ^= 0xFF
    assert view.apply_sync(model.at, 5) == int(mine[5])
    found = any_rc.db_query({"function_name": {"$regex": "at$"}}, keys=["buffers"])
    assert {len(buffer) for record in found for buffer in record["buffers"][1:]} <= {mine.nbytes}


def test_a_method_of_a_large_object_maps_one_file(rc):
    model, view = Model(array(8)), rc.load_balanced_view()
    assert len(set(view.map_sync(model.file, range(20)))) == 1


def test_a_recorded_call_of_a_method_of_a_large_object_can_be_run_again(rc):
    mine = array(9)
    result = rc.load_balanced_view().apply(Model(mine).at, 11)
    assert result.get() == int(mine[11])
    assert rc.replay(result) == int(mine[11])
    assert rc.resubmit(result.msg_ids).get() == [int(mine[11])]


def test_an_array_that_is_sent_again_unchanged_is_in_memory_once(rc):
    mine, view = array(10), rc.load_balanced_view()
    assert len({view.apply_sync(file_of, mine) for _ in range(12)}) == 1
    mine[0] ^= 0xFF
    assert view.apply_sync(total, mine) == int(mine.sum())
